"""Run directories as a whole: recognizing them, one writer at a time, clearing, and the mark of a finished one.

RUN/recipe.yaml     what was trained, fully resolved. It identifies the directory: replaced, but never removed
RUN/run.json        how the run was made: see ``RunRecord``
RUN/metrics.jsonl   one JSON object a logged step
RUN/checkpoints/    see ``checkpoint``
RUN/previews/       pictures on the way
RUN/COMPLETE        empty; there while the run has all the steps of its recipe, so that make can depend on it
RUN/.lock           locked by the process that writes
RUN/.status.json    what that process says of itself: see ``writer_status``

Nothing outside the directory is ever written or removed: links in the place of these are refused, or replaced by a
run that is made anew.
"""

import contextlib
import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from grncli import __version__
from grncli.runs.checkpoint import (
    CHECKPOINTS,
    COMPLETE,
    EXPORT,
    LATEST,
    LOCK,
    PREVIEWS,
    RECIPE,
    RECORD,
    SCHEDULE,
    TENSORBOARD,
    entries,
    is_step,
    remove_leftovers,
)
from grncli.runs.metrics_log import METRICS
from grncli.runs.recipe import kind_of, load_yaml
from grncli.runtime.checking import Count, Text, read_json_as
from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.files import naming, sync_directory
from grncli.runtime.folders import ClaimedFolder, HeldFolder, is_vacant, remove_now
from grncli.runtime.folders import remove as remove_folder
from grncli.runtime.jsonfiles import write_json
from grncli.runtime.system import open_file
from grncli.runtime.writer_status import STATUS

STAGING = ".import.partial"  # where an imported network is made ready
FILES = (RECIPE, RECORD, METRICS, SCHEDULE, COMPLETE, LOCK, STATUS)
FOLDERS = (CHECKPOINTS, PREVIEWS, TENSORBOARD)
_TEMPORARY = tuple(f".{name}.tmp" for name in FILES)
# What a process that was killed before it wrote a recipe may have left.
_BEGUN = {LOCK, STAGING, f".{RECIPE}.tmp"}
_PREVIEW = re.compile(r"\.?(images|clips|samples)-[0-9]{8,}\.(png|mp4)(\.tmp|\.old)?")
_EVENTS = re.compile(r"events\.out\.tfevents\..*")
_OURS: dict[str, Callable[[Path], object]] = {
    CHECKPOINTS: lambda path: is_step(path) or (path.name == LATEST and path.is_symlink()),
    PREVIEWS: lambda path: _PREVIEW.fullmatch(path.name),
    TENSORBOARD: lambda path: _EVENTS.fullmatch(path.name),
}
"""Whether something in one of these folders was written by a training."""


def check_run_is_free(run: Path, kind: str | None, *, overwrite: bool) -> None:
    """Refuse to write into a directory, except an empty one and a run of the same kind that the user wants replaced.

    ``kind`` is None where it is not known yet.
    """
    if is_vacant(run, _BEGUN):
        return
    refuse_export(run)
    present = recipe_kind(run)
    if present is None:
        raise CheckpointError(f"{run}: exists and is no run directory; choose another name")
    if kind not in (None, present):
        raise CheckpointError(f"{run}: is the run of a {present[:40]}, expected that of a {kind} or a new name")
    if not overwrite:
        raise CheckpointError(f"{run}: is already a run directory; choose another name or add --overwrite")


def refuse_export(run: Path) -> None:
    """CheckpointError for a folder that ``grn export`` made: its weights would hide those of what is written."""
    if (run / EXPORT).is_file():
        raise CheckpointError(f"{run}: was made by grn export, which nothing else is written into; choose another name")


def is_run(run: Path) -> bool:
    """Whether a directory has a recipe of ours."""
    return recipe_kind(run) is not None


def recipe_kind(run: Path) -> str | None:
    """The kind of network that a run directory is of; None without a recipe of ours."""
    try:
        return kind_of(load_yaml(run / RECIPE))
    except RecipeError:
        return None


# One writer


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Make a run directory where there is none, and be its only writer for the time of a block.

    Raises
    ------
    LockError
        If another process is, or the file system cannot keep two apart.
    CheckpointError
        If the directory cannot be made or written.
    """
    is_new = not run.exists()
    try:
        # Where the path is a link to a directory that is not there yet, that one is made.
        Path(os.path.realpath(run)).mkdir(parents=True, exist_ok=True)
        _refuse_link(run / LOCK, "file")
        claimed = ClaimedFolder(run, doing="trained")
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be written ({error.strerror}); choose another name") from None
    with claimed:
        try:
            yield
        finally:
            # Nothing was written.
            with contextlib.suppress(OSError):
                if is_new and os.listdir(run) == [LOCK]:
                    (run / LOCK).unlink()
                    run.rmdir()


class Place(HeldFolder):
    """The directory that a run began in, which a user may move or remove while it is being trained."""

    def check(self) -> None:
        """CheckpointError unless the path still leads there, so that nothing is written elsewhere or claimed of it."""
        if not self.is_there():
            raise CheckpointError(
                f"{self.path}: was moved, removed or replaced while it was being trained; what was saved before "
                "is where it was moved to: train that one further, or start again"
            )


def refuse_links(run: Path) -> None:
    """CheckpointError where a link, or something else of the wrong kind, is in the place of what a run writes."""
    for name in (*FILES, *_TEMPORARY):
        _refuse_link(run / name, "file")
    for name in FOLDERS:
        _refuse_link(run / name, "directory")
    for path in entries(run / CHECKPOINTS):
        if is_step(path):
            _refuse_link(path, "directory")
            for file in entries(path):
                is_folder = file.is_dir() and not file.is_symlink()
                for inner in entries(file) if is_folder else (file,):
                    _refuse_link(inner, "file")
        elif path.name == LATEST and path.exists() and not path.is_symlink():
            raise CheckpointError(f"{path}: is no link, expected one to the newest checkpoint; move it away")
    for folder in (PREVIEWS, TENSORBOARD):
        for path in entries(run / folder):
            _refuse_link(path, "file")


def _refuse_link(path: Path, expected: str) -> None:
    if path.is_symlink():
        raise CheckpointError(
            f"{path}: is a link, expected a {expected} of the run's own; put what it points at in its place"
        )
    right = path.is_file() if expected == "file" else path.is_dir()
    if not right and path.exists():
        raise CheckpointError(f"{path}: is no plain {expected}, expected one of the run's own; move it away")


# Clearing


def clear_run(run: Path, *, but: tuple[str, ...] = ()) -> None:
    """Remove what a run directory of ours holds but its recipe (and ``but``), and nothing else that lies in it.

    May be interrupted and called again: the recipe, which is replaced later, still says whose directory it is. Links
    are removed, never what they point at.
    """
    for name in (COMPLETE, RECORD):
        remove(run / name)
    for folder in FOLDERS:
        _clear_folder(run / folder, _OURS[folder])
    for name in (METRICS, SCHEDULE, STATUS, STAGING, *_TEMPORARY):
        if name not in but:
            remove(run / name)


def tidy_run(run: Path) -> None:
    """Remove what killed processes left half-written."""
    for name in (STAGING, *_TEMPORARY):
        remove(run / name)
    with _removing(run / CHECKPOINTS):
        remove_leftovers(run)


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all in it; harmless where there is none."""
    with _removing(path):
        # What has a hidden name needs no other one.
        (remove_now if path.name.startswith(".") else remove_folder)(path)


@contextmanager
def _removing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be removed ({error.strerror})") from None


def _clear_folder(folder: Path, is_ours: Callable[[Path], object]) -> None:
    if folder.is_symlink() or not folder.is_dir():
        remove(folder)
        return
    # The newest first: what an interrupted call leaves is a run of fewer steps.
    for path in sorted(entries(folder), reverse=True):
        if is_ours(path):
            remove(path)
    if folder.name == CHECKPOINTS:
        with _removing(folder):
            remove_leftovers(folder.parent)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless something of the user's lies there


# The mark of a finished run


def mark_complete(run: Path) -> None:
    """Leave ``COMPLETE``, last of all."""
    with naming(run / COMPLETE):
        os.close(open_file(run / COMPLETE, os.O_WRONLY | os.O_CREAT, follow=False))
        sync_directory(run)


def unmark_complete(run: Path) -> None:
    """Remove ``COMPLETE``, before anything else of a run changes."""
    if (run / COMPLETE).exists():
        (run / COMPLETE).unlink()
        sync_directory(run)


# How it was made


@dataclass(frozen=True)
class DataRecord:
    """What a run is trained on: ``digest`` is the same for the same data, wherever it lies.

    ``features`` is the number format that text features are computed in: "" without any, and in older records.
    """

    digest: Text
    items: Count
    unit: Text
    source: Text = ""
    features: Text = ""

    def is_same(self, other: "DataRecord") -> bool:
        """Whether the numbers of a training are the same; a number format that is not known may be any."""
        known = {self.features, other.features} - {""}
        return self.digest == other.digest and len(known) <= 1


@dataclass(frozen=True)
class RunRecord:
    """Content of ``run.json``.

    Parameters
    ----------
    command, versions, host : of the process that wrote last
    began, resumed : dates in UTC; the second is None until the run is resumed
    overwrite : digest of the settings and data that ``--overwrite`` asked for, where it did
    """

    command: list[Text]
    versions: dict[Text, Text]
    host: Text
    began: Text
    resumed: Text | None = None
    data: DataRecord | None = None
    overwrite: Text | None = None


def new_record(before: RunRecord | None, data: DataRecord | None, overwrite: str | None) -> RunRecord:
    """The record of a run that this process begins, or resumes where there is one from ``before``."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return RunRecord(
        command=list(sys.argv),
        versions={"grn": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        host=socket.gethostname(),
        began=now if before is None else before.began,
        resumed=None if before is None else now,
        data=data,
        overwrite=overwrite if before is None else before.overwrite,
    )


def write_record(run: Path, record: RunRecord) -> None:
    """Replace ``run.json``."""
    write_json(run / RECORD, asdict(record))


def read_record(run: Path) -> RunRecord | None:
    """Content of ``run.json``, None where there is none; CheckpointError where it is damaged."""
    remedy = "restore it, or remove it to resume without the check that the data are the same"
    try:
        return read_json_as(run / RECORD, RunRecord, error=CheckpointError, remedy=remedy)
    except FileNotFoundError:
        return None
