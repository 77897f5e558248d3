"""One writer of a part or a run: a lock that ends with the process holding it.

POSIX record locks rather than ``flock``: a worker process forked by the writer inherits a ``flock`` and would keep
what it locks after ``kill -9`` of the writer. They do not exclude two writers in one process, and closing any
descriptor of the file drops them; hence the table of locks that this process
holds, which is looked up before a file is opened. Where the file system cannot lock files, a lease takes their place.
"""

import contextlib
import errno
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from grncli.runtime.errors import LockError
from grncli.runtime.lease import Lease
from grncli.runtime.system import NONBLOCK, is_locked, open_file, try_lock, write_at

# What file systems answer that have none: NFS without a lock service, Lustre mounted without flock.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

_held: set[tuple[int, int]] = set()
_held_guard = threading.Lock()


class PathLock:
    """An exclusive lock on a file that exists only to be locked. It stays in place, empty, when released.

    Parameters
    ----------
    signed : write who holds it into the file; without it the file is never touched again once it is there
    """

    def __init__(self, path: Path, *, signed: bool = False) -> None:
        self.path = path
        self.signed = signed
        self._fd: int | None = None
        self._identity = (0, 0)
        self._pid = 0
        self._lease: Lease | None = None  # where the file system cannot lock

    def try_acquire(self) -> bool:
        """Take the lock if it is free; False when another writer holds it.

        Without locks that takes moments, or a minute where another writer has died.
        """
        with _held_guard:
            if self.path.exists() and _identity(os.stat(self.path)) in _held:
                return False
            fd = open_file(self.path, os.O_RDWR | os.O_CREAT, follow=False)
            try:
                taken = try_lock(fd)
                if taken:
                    self._hold(fd)
                else:
                    os.close(fd)
                return taken
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(fd)
                    raise LockError(
                        f"{self.path}: the file system failed to lock the file ({error.strerror}), so two writers "
                        "could not be kept apart; write to another file system."
                    ) from error
        # Others of this process need not wait while a lease is watched.
        lease, taken = Lease(self.path), False
        try:
            taken = lease.try_acquire()
        finally:
            if not taken:
                os.close(fd)
        if not taken:
            return False
        with _held_guard:
            self._lease = lease
            self._hold(fd)
        return True

    def _hold(self, fd: int) -> None:
        self._fd, self._identity, self._pid = fd, _identity(os.fstat(fd)), os.getpid()
        _held.add(self._identity)
        self._sign(f"{socket.gethostname()} {self._pid}\n")

    def acquire(self, timeout: float = 120.0) -> None:
        """Take the lock, waiting for other processes to let go of it."""
        deadline = time.monotonic() + timeout
        while not self.try_acquire():
            if time.monotonic() > deadline:
                raise LockError(
                    f"{self.path} stayed locked by {self.holder()} for {timeout:.0f} s; "
                    "stop that process, or wait for it, and run the same command again."
                )
            time.sleep(0.01)

    def holder(self) -> str:
        """Who holds the lock, for a sentence: ``process 4711 on node3``, or ``another process`` if unknown."""
        with _held_guard:
            if self.path.exists() and _identity(os.stat(self.path)) in _held:
                return "this process"  # which would drop its lock by closing the file again
            try:
                host, pid = self.path.read_text(encoding="utf-8").split()
            except (OSError, ValueError):
                return "another process"
        return f"process {int(pid)} on {host[:64]}" if pid.isdecimal() and host.isprintable() else "another process"

    def release(self) -> None:
        """Let go; harmless when not held."""
        with _held_guard:
            if self._fd is not None:
                # A forked child holds neither the lock nor a right to the table entry.
                _held.discard(self._identity)
                if self._pid == os.getpid():
                    self._sign("")
                    if self._lease is not None:
                        self._lease.release()
                os.close(self._fd)
                self._fd, self._lease = None, None

    def _sign(self, text: str) -> None:
        """Write who holds the lock into the file; a full disk is no reason to fail."""
        assert self._fd is not None
        if not self.signed:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            write_at(self._fd, text.encode(), 0)

    def __enter__(self) -> "PathLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock of a file, this one included; None where the system does not say."""
    with _held_guard:
        try:
            if _identity(os.stat(path)) in _held:
                return True
            fd = open_file(path, os.O_RDONLY | NONBLOCK, follow=False)
        except OSError as error:
            return False if isinstance(error, FileNotFoundError) else None
        try:
            return is_locked(fd)
        finally:
            os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
