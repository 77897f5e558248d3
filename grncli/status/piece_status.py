"""How far the work of one writer is: of a part of a store, of a run, or of another folder that it fills.

Counts are what is saved, or what a living writer says. Whether it lives is told by its lock, and where locks are not
seen from another machine by the age of its status file; that is by the clock of the file system, not by that of a
machine. Where nothing can be written, which is how that clock is read, a file that seems old by the clock of this
machine is watched for longer than the writer's interval.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from grncli.runtime.lock import is_held
from grncli.runtime.writer_status import EVERY, SeenStatus, machine_name, read_status

LOST_AFTER = 120.0
"""Seconds without a new status file after which a writer on another machine is lost. Network file systems may show one
that is up to a minute old."""
WATCHED = 1.5 * EVERY  # seconds
SKEW = 2.0  # seconds that a file may come from the future

State = Literal["complete", "running", "stopped", "failed", "lost", "damaged", "unfinished", "not begun"]


@dataclass(frozen=True, kw_only=True)
class PieceStatus:
    """State and counts of one piece of work.

    Attributes
    ----------
    part : number of a part; None for anything else
    state : ``stopped`` early on request, ``lost`` without a word, ``unfinished`` by a writer that left none
    done, total : in the unit of the work; the total is None where it is not known yet
    failed, last_failure : sources that could not be read, the latest of them and why
    rate : units a second, of a running one
    seconds_left : at that rate
    moved : seconds since it counted last
    host, pid : of its writer, the last one where none runs
    note, reason : what it says beside its counts, and why it ended
    """

    part: int | None = None
    state: State
    done: int = 0
    total: int | None = None
    failed: int = 0
    last_failure: str = ""
    rate: float | None = None
    seconds_left: float | None = None
    moved: float | None = None
    host: str | None = None
    pid: int | None = None
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class FileClock:
    """How old files are: by the clock of their file system as far as it can be read, see `file_clock`."""

    now: float
    certain: bool
    began: float = field(default_factory=time.monotonic)

    def age(self, written: float) -> float:
        """Seconds since a file was written."""
        return max(0.0, self.now + time.monotonic() - self.began - written)

    def may_be_wrong(self, written: float) -> bool:
        """Whether the age of a file may be that of another clock, and matters."""
        return not self.certain and not -SKEW < self.now - written < LOST_AFTER

    def renewed(self, folder: Path, seen: SeenStatus) -> SeenStatus | None:
        """The status that has replaced another within `WATCHED` seconds; None where none has."""
        time.sleep(max(0.0, self.began + WATCHED - time.monotonic()))
        again = read_status(folder)
        return again if again is not None and again.written != seen.written else None


def file_clock(folder: Path) -> FileClock:
    """The clock of the file system that a folder lies on, by a file that is there for a moment; else this machine's."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".grn-clock-") as file:
        os.write(file.fileno(), b"\n")  # a file system may date an empty file when it likes
        return FileClock(os.fstat(file.fileno()).st_mtime, certain=True)
    return FileClock(time.time(), certain=False)


def piece_status(saved: PieceStatus, folder: Path, clock: Callable[[], FileClock], lock: Path) -> PieceStatus:
    """What is ``saved``, with what the writer of the folder says.

    Parameters
    ----------
    saved : ``complete``, ``unfinished`` or ``not begun``
    clock : called where an age is to be told
    lock : the file that the writer has locked
    """
    if saved.state == "complete":
        return saved
    held, seen = is_held(lock), read_status(folder)
    if seen is None:
        return replace(saved, state="running") if held else saved
    if seen.status.state != "running":
        return _described(saved, seen, seen.status.state, clock().age(seen.written))
    if held is False and seen.status.machine == machine_name():
        return _described(saved, seen, "lost", clock().age(seen.written))
    age = clock().age(seen.written)
    if not held and clock().may_be_wrong(seen.written):
        renewed = clock().renewed(folder, seen)
        seen, age = (seen, age) if renewed is None else (renewed, 0.0)
        return _described(saved, seen, "lost" if renewed is None else "running", age)
    return _described(saved, seen, "running" if held or age < LOST_AFTER else "lost", age)


def _described(saved: PieceStatus, seen: SeenStatus, state: State, age: float) -> PieceStatus:
    status = seen.status
    described = replace(
        saved,
        state=state,
        total=saved.total if saved.total is not None else status.total,
        moved=age + status.idle,
        host=status.host,
        pid=status.pid,
        reason=status.reason,
    )
    if state != "running":
        return described
    done, total = max(saved.done, status.done or 0), status.total if status.total is not None else described.total
    left = None if total is None or not status.rate else max(0.0, (total - done) / status.rate - age)
    return replace(described, done=done, total=total, rate=status.rate, seconds_left=left, note=status.note)
