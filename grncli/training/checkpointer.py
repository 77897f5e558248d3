"""Where the state of a training is kept: one interface that every process calls, and checkpoints of whole tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from grncli.runs.checkpoint import (
    CheckpointState,
    check_checkpoint,
    check_tensors,
    list_checkpoints,
    prune_checkpoints,
    set_aside,
    write_checkpoint,
)
from grncli.runs.rundir import Place
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.processes import Processes
from grncli.runtime.tensor_files import read_tensors
from grncli.training.logs import own_sums
from grncli.training.training_state import TrainingState


@dataclass(frozen=True)
class Position:
    """Where a training is.

    Parameters
    ----------
    step : steps done
    sums : what this process has added up for the next line of the log
    """

    step: int = 0
    sums: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Checkpointer(Protocol):
    """Keeps the state of a training. Every process calls each method at the same step, whoever of them writes."""

    def restore(self, states: Sequence[TrainingState]) -> Position:
        """Load the newest sound checkpoint into ``states``; step 0 where there is none.

        Raises
        ------
        CheckpointError
            If there are checkpoints and none is sound.
        """

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        """Write a checkpoint, and remove those that are not to be kept; once it returns, all is on disk.

        Raises
        ------
        CheckpointError
            If it cannot be written, or the run was moved away.
        """

    def newest(self) -> Path | None:
        """The newest checkpoint, for messages."""


class WholeFileCheckpointer:
    """Checkpoints of whole tensors in safetensors files, which the first process writes (see ``runs.checkpoint``).

    Parameters
    ----------
    config : sizes of the first network, for the header of each file
    keep, keep_every : how many of the newest are kept, and every so many steps one for good
    say : called with one sentence when a damaged checkpoint is passed over
    """

    def __init__(
        self,
        run: Path,
        config: Mapping[str, Any],
        processes: Processes,
        *,
        keep: int,
        keep_every: int | None,
        say: Say,
    ) -> None:
        self.run, self.config, self.processes = run, config, processes
        self.keep, self.keep_every = keep, keep_every
        self.say = say
        self._place: Place | None = None  # of the process that writes
        if processes.is_main:
            run.mkdir(parents=True, exist_ok=True)
            self._place = Place(run)

    def restore(self, states: Sequence[TrainingState]) -> Position:
        """As in ``Checkpointer``; damaged checkpoints that are newer than the one loaded are set aside."""
        position, damaged = Position(), []
        checkpoints = list_checkpoints(self.run)[::-1]
        for checkpoint in checkpoints:
            try:
                saved, files = _read(checkpoint, states)
            except CheckpointError as error:
                if checkpoint == checkpoints[-1]:
                    raise
                self.say(f"{error}; resuming from the checkpoint before it")
                damaged.append(checkpoint)
                continue
            for state in states:
                state.load(files, saved.averaged)
            position = Position(saved.step, own_sums(saved.sums, self.processes.rank, self.processes.count))
            break
        self.processes.wait()  # until all have read, also what is damaged
        if self.processes.is_main:
            for checkpoint in damaged:
                set_aside(checkpoint)
        return position

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        """As in ``Checkpointer``."""
        sums = self.processes.gather_json(position.sums)
        if self._place is not None:
            self._place.check()
            tensors = {file: named for state in states for file, named in state.tensors().items()}
            state = {"step": position.step, "averaged": states[0].averaged, "sums": sums}
            checkpoint = write_checkpoint(self.run, position.step, tensors, state, self.config)
            prune_checkpoints(self.run, self.keep, self.keep_every)
            self._place.check()
            check_checkpoint(checkpoint)
        self.processes.wait()

    def newest(self) -> Path | None:
        """As in ``Checkpointer``."""
        return next(reversed(list_checkpoints(self.run)), None)


def _read(
    checkpoint: Path, states: Sequence[TrainingState]
) -> tuple[CheckpointState, Mapping[str, Mapping[str, Tensor]]]:
    """A checkpoint's state and its tensors by file; CheckpointError unless all fit ``states``."""
    saved = check_checkpoint(checkpoint)
    files = {}
    for state in states:
        for name, wanted in state.tensors().items():
            file = checkpoint / f"{name}.safetensors"
            files[name] = read_tensors(file)
            moments = name == state.called("optimizer")
            check_tensors(files[name], state.expected_moments(files[name]) if moments else wanted, file)
    return saved, files
