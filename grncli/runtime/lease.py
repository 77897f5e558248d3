"""One writer where the file system cannot lock files: a lease that its holder renews, and that others watch.

Each lease is a file with a number in its name, made where none of that name was, which only one of several processes
can. The highest number holds. A lease is over when it says so, or when its counter rests for ``STALE_SECONDS`` of the
process that watches; clocks of machines are not compared. What is assumed of the file system: that a file is made
exclusively, and that what was written and closed is read by whoever opens the file later.
"""

import contextlib
import os
import re
import secrets
import socket
import sys
import threading
import time
from pathlib import Path

from grncli.runtime.system import open_file, write_at

RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0  # without a renewal, after which another process may take over
KEPT = 8  # older leases, so that who was about to make one of an earlier number still finds it there

_FREE = b"free\n"
_NAME = re.compile(r"\.lease-(\d{8})")
_LONGEST_LOOK = 0.25  # of RENEW_SECONDS, between two looks at a lease


def is_lease(name: str) -> bool:
    """Whether a file of this name is a lease."""
    return name.startswith(".") and _NAME.search(name) is not None


class Lease:
    """The right to be the only one that does what the file at ``path`` stands for, on a file system without locks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        self._count = 0
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def try_acquire(self) -> bool:
        """Take the lease, after a minute where its holder has died; False while another process renews it."""
        newest = self._newest()
        if newest and not self._is_over(newest):
            return False
        self._number = newest + 1
        try:
            os.close(open_file(self._file(self._number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, follow=False))
        except FileExistsError:
            return False
        self._renew()
        if self._newest() != self._number:  # others took and left several while this process looked
            self._file(self._number).unlink()
            return False
        for number in range(max(1, self._number - 2 * KEPT), self._number - KEPT + 1):
            self._file(number).unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._keep, name="grn-lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Let others have it at once."""
        if self._thread is None:
            return
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write(_FREE)

    def holder(self) -> tuple[str, int] | None:
        """Host and process of who has it, or had it last; None where that is not known."""
        host, _, rest = self._read(self._newest()).decode("ascii", "replace").partition(" ")
        pid = rest.partition(" ")[0]
        return (host, int(pid)) if pid.isdecimal() else None

    def _is_over(self, number: int) -> bool:
        first, pause, waited = self._read(number), 0.02, 0.0
        text = first
        while waited < STALE_SECONDS and text == first and not text.startswith(_FREE):
            time.sleep(pause)
            waited += pause  # a process that is itself suspended has not watched meanwhile
            pause = min(2 * pause, _LONGEST_LOOK * RENEW_SECONDS)
            text = self._read(number)
        return text == first or text.startswith(_FREE)

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # of a server that does not answer for a moment
                if self._newest() > self._number:
                    self._end_process()
                self._renew()

    def _renew(self) -> None:
        self._count += 1
        self._write(f"{self._owner} {self._count:012d}\n".encode("ascii", "replace"))

    def _end_process(self) -> None:
        """Nothing more may be written: the main thread may be about to, and could not be told in time."""
        host, pid = self.holder() or ("another machine", 0)
        print(
            f"grn: {self.path}: this process was suspended for longer than {STALE_SECONDS:.0f} s on a file system that "
            f"cannot lock files, and process {pid} on {host} writes there now; wait until it has ended",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    def _write(self, text: bytes) -> None:
        """In place, as one who reads an empty file would take that for a renewal."""
        file = open_file(self._file(self._number), os.O_WRONLY, follow=False)
        try:
            write_at(file, text, 0)
            os.fsync(file)
        finally:
            os.close(file)

    def _read(self, number: int) -> bytes:
        try:
            file = open_file(self._file(number), os.O_RDONLY, follow=False)
        except FileNotFoundError:
            return b""
        try:
            return os.read(file, 1024)
        finally:
            os.close(file)

    def _newest(self) -> int:
        begin = len(self.path.name)
        numbers = [
            int(match[1])
            for name in os.listdir(self.path.parent)
            if name.startswith(self.path.name) and (match := _NAME.fullmatch(name, begin))
        ]
        return max(numbers, default=0)

    def _file(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.lease-{number:08d}")
