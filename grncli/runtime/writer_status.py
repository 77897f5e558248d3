"""What a process that fills a part or a run says of itself: one small file there, replaced every few seconds.

The file is no part of the data. It is there while the work goes on and after it ended early; work that ends well
removes it, so that what a resumed run leaves is what an uninterrupted one leaves. Most work of less than a second, and
all in a folder that cannot be written, leaves none.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from grncli.runtime.checking import Count, Text, check
from grncli.runtime.errors import GrnError
from grncli.runtime.files import open_plain, replace_file, temporary_path
from grncli.runtime.folders import HeldFolder
from grncli.runtime.group_faults import is_lost
from grncli.runtime.jsonfiles import parse_json, to_json
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Ended, Stopped
from grncli.runtime.text import one_line

STATUS = ".status.json"
FIRST_AFTER, EVERY = 1.0, 10.0  # seconds
LONGEST = 1000  # characters of a note or a reason
_MOST_BYTES = 1 << 16

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Ending = Literal["running", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class WriterStatus:
    """Content of the file.

    Attributes
    ----------
    command, unit : what runs, and what it counts
    state, reason : how it ended if it did, and why
    host, pid, machine : where it runs; ``machine`` tells two machines of one name apart
    done, total : counts of the unit; None where not known yet
    rate : units a second since the process began to count
    idle : seconds since it counted last, at the time of writing
    """

    command: Text
    unit: Text
    state: Ending
    reason: Text = ""
    host: Text
    pid: Count
    machine: Text
    done: Count | None = None
    total: Count | None = None
    rate: Seconds | None = None
    idle: Seconds = 0.0
    note: Text = ""


@dataclass(frozen=True)
class SeenStatus:
    """A status and when its file was written, by the clock of the file system."""

    status: WriterStatus
    written: float


@contextmanager
def reporting(folder: Path, command: str, unit: str, monitor: Monitor, *, at_once: bool = False) -> Iterator[Monitor]:
    """Tell in ``folder`` how far the work of a block is; it reports to the monitor that is given.

    For the one process that fills the folder, while it holds the lock. Nothing fails where the file cannot be written.

    Parameters
    ----------
    at_once : also of work of less than a second, in a folder whose other files do not say whether it ended
    """
    report = _Report(folder, command, unit)
    report.start(at_once=at_once)
    try:
        yield replace(monitor, progress=report.following(monitor.progress))
    except BaseException as error:
        report.end(*_ending(error))
        raise
    report.end()


class _Report:
    """Writes the file from a thread of its own, also while a step takes long."""

    def __init__(self, folder: Path, command: str, unit: str) -> None:
        self._folder = folder
        self._held: HeldFolder | None = None
        self._begun = WriterStatus(
            command=command,
            unit=unit,
            state="running",
            host=socket.gethostname(),
            pid=os.getpid(),
            machine=machine_name(),
        )
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, int | None, str, float] | None = None
        self._since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="grn-status", daemon=True)

    def start(self, *, at_once: bool) -> None:
        with suppress(OSError, RuntimeError):  # the latter where there can be no further thread
            self._held = HeldFolder(self._folder)
            if at_once:
                self._write(self._now())
            self._thread.start()

    def following(self, progress: Callable[[int, int | None, str], object]) -> Callable[[int, int | None, str], object]:
        """``progress``, of which the report takes note."""

        def note(done: int, total: int | None, text: str) -> object:
            now = time.monotonic()
            if self._first is None:
                self._first = done, now
            if self._last is None or (done, text) != (self._last[0], self._last[2]):
                self._since = now
            self._last = done, total, text, now
            return progress(done, total, text)

        return note

    def end(self, state: Ending | None = None, reason: str = "") -> None:
        """The last word; without a state the work ended well."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if state is not None:
            self._write(replace(self._now(), state=state, reason=reason[:LONGEST]))
        elif self._is_there():
            for path in (self._folder / STATUS, temporary_path(self._folder / STATUS)):
                with suppress(OSError):
                    path.unlink()
        if self._held is not None:
            self._held.close()

    def _is_there(self) -> bool:
        """Whether the path leads to the folder still, and not to another that a user put in its place."""
        with suppress(OSError):
            return self._held is not None and self._held.is_there()
        return False

    def _keep_writing(self) -> None:
        wait = FIRST_AFTER
        while not self._over.wait(wait):
            self._write(self._now())
            wait = EVERY

    def _now(self) -> WriterStatus:
        idle = round(time.monotonic() - self._since, 1)
        if self._first is None or self._last is None:
            return replace(self._begun, idle=idle)
        (first, began), (done, total, note, now) = self._first, self._last
        rate = (done - first) / (now - began) if done > first and now > began else None
        return replace(self._begun, done=done, total=total, rate=rate, idle=idle, note=note[:LONGEST])

    def _write(self, status: WriterStatus) -> None:
        if self._is_there():
            with suppress(OSError):
                replace_file(self._folder / STATUS, to_json(vars(status)).encode() + b"\n", sync=False)


def _ending(error: BaseException) -> tuple[Ending, str]:
    if isinstance(error, Stopped | Ended | KeyboardInterrupt):
        return "stopped", one_line(error) or "Ctrl-C"
    if isinstance(error, RuntimeError) and is_lost(str(error)):
        return "failed", "the connection to another of its processes ended; the message of the command says why"
    named = isinstance(error, GrnError | OSError)
    return "failed", str(error) if named else f"{type(error).__name__}: {one_line(error)}"


def machine_name() -> str:
    """Tells this machine from others, also from one of the same name; until it starts anew, where the system knows."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


def read_status(folder: Path) -> SeenStatus | None:
    """What the process that fills a folder, or filled it last, said; None where nothing readable is there."""
    path = folder / STATUS
    try:
        with os.fdopen(open_plain(path, follow=False), "rb") as file:
            written, data = os.fstat(file.fileno()).st_mtime, file.read(_MOST_BYTES + 1)
        document = parse_json(data, path, error=GrnError, remedy="remove it")
        return SeenStatus(check(document, WriterStatus, str(path), error=GrnError, remedy="remove it"), written)
    except (OSError, GrnError):
        return None
