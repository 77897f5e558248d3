"""Copying a run directory or an export: complete checkpoints and what lies beside them, what marks them whole last.

The run may be in training, which removes old checkpoints while they are copied: the newest comes first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from grncli.runs.checkpoint import CHECKPOINTS, COMPLETE, EXPORT, LATEST, RECIPE, STATE
from grncli.runs.exporting import CARD
from grncli.runtime.errors import CheckpointError, StoreError
from grncli.runtime.monitor import Monitor
from grncli.store.rows.byte_source import ByteSource
from grncli.transfer.contents import uncounted
from grncli.transfer.destinations import Destination
from grncli.transfer.sending import Sender

FIRST = (RECIPE, EXPORT)
"""The first of these that is there tells a run from others; what is exported for the release has no recipe."""

_MARKS = (CARD, STATE, COMPLETE)  # at the root


@dataclass(frozen=True)
class RunFiles:
    """What of a run directory is copied, in the order in which it has to be there.

    Attributes
    ----------
    first : tells it from other runs
    checkpoints : of each complete one its tensors, by the name of the state that follows them; the newest first
    beside : the log, previews and the like
    marks : what an export or a run has only while all else is there
    """

    first: str
    checkpoints: dict[str, list[str]]
    beside: list[str]
    marks: list[str]

    @property
    def every(self) -> list[str]:
        """All names."""
        tensors = (name for state, names in self.checkpoints.items() for name in (*names, state))
        return [self.first, *tensors, *self.beside, *self.marks]


def copy_run(source: Destination, destination: Destination, *, overwrite: bool, monitor: Monitor) -> Sender:
    """Copy a run directory or an export; checkpoints that only the destination has stay there.

    Parameters
    ----------
    overwrite : replace what the destination has of a run with another recipe

    Raises
    ------
    CheckpointError
        If the destination holds something else, or every checkpoint was removed while it was copied.
    StoreError
        If a file cannot be read or written.
    Stopped
        If the monitor's stop asks for it; the same call resumes.
    """
    sizes = source.walk("")
    files = run_files(sizes)
    _require_fit(source.files, destination, files.first, overwrite)
    there = destination.walk("")

    def unmark() -> None:
        for mark in {*files.marks, COMPLETE}:
            if there.pop(mark, None) is not None:
                destination.remove(mark)

    def send(names: Iterable[str], mark: str = "") -> None:
        sender.send([uncounted(source.files, name) for name in names], there, mark=mark)

    def was_sent(state: str, tensors: Iterable[str]) -> bool:
        """Copy a checkpoint; False, and nothing of it is left, where the source has it no more."""
        try:
            send(tensors, mark=state)
            send([state])
        except StoreError:
            if source.files.size(state) is not None:
                raise
            if state not in there:  # which may have kept it longer
                sender.remove(list(destination.walk(str(PurePosixPath(state).parent))))
            return False
        return True

    sender = Sender(destination, monitor, sum(sizes[name].size for name in files.every), unmark)
    with destination.claimed(""):
        send([files.first])
        sent = [was_sent(state, tensors) for state, tensors in files.checkpoints.items()]
        if sent and not any(sent):
            raise CheckpointError(
                f"{source.files.where('')}: its checkpoints were removed while they were copied; run the same command "
                "again"
            )
        send(files.beside)
        send(files.marks)
    return sender


def run_files(names: Iterable[str]) -> RunFiles:
    """What of a run directory is copied: nothing that is temporary, and of a checkpoint without its state nothing."""
    every = sorted(PurePosixPath(name) for name in names)
    visible = [path for path in every if not any(part.startswith(".") or part == LATEST for part in path.parts)]
    inner = [path for path in visible if path.parts[0] == CHECKPOINTS]
    first = next(name for name in FIRST if PurePosixPath(name) in visible)
    beside = [str(path) for path in visible if path not in inner and str(path) not in (first, *_MARKS)]
    states = [path for path in reversed(inner) if path.name == STATE]
    checkpoints = {
        str(state): [str(path) for path in inner if state.parent in path.parents and path != state] for state in states
    }
    return RunFiles(first, checkpoints, beside, [mark for mark in _MARKS if PurePosixPath(mark) in visible])


def _require_fit(source: ByteSource, destination: Destination, first: str, overwrite: bool) -> None:
    there = destination.files
    ours, theirs = uncounted(source, first).committed, there.size(first)
    where = there.where("")
    if theirs is None:
        if [name for name in there.list("") or () if not name.startswith(".")]:
            raise CheckpointError(f"{where} holds something else than a run; choose another DST, or empty it yourself")
    elif not overwrite and uncounted(there, first).committed != ours:
        raise CheckpointError(
            f"{where}: its {first} is not that of {source.where('')}; choose another DST, or add --overwrite"
        )
