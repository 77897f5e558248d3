"""What operating systems do differently: opening files, reading them by offset, locks, process groups, limits.

Windows has neither POSIX's modules (``fcntl``, ``resource``) nor several calls; everything else asks here.
"""

import array
import contextlib
import errno
import os
import select
import signal
import struct
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from grncli.runtime.errors import MediaError


def _module(name: str) -> Any:
    """A module of some operating systems; None on others."""
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl, msvcrt, resource, termios = map(_module, ("fcntl", "msvcrt", "resource", "termios"))
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines
_BUSY = (errno.EACCES, errno.EAGAIN)
# Windows lets nobody read a locked byte: one far behind what the file holds.
_LOCKED_BYTE = 1 << 30
_LOCK_FORM = "hhqqi"  # kind, whence, start, length and process of a lock, on Linux
_seeking = threading.Lock()  # of files that have one position for all threads

NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""To open what may be a named pipe without waiting for its other end."""
ASKING_TO_END = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if hasattr(signal, name)]
"""Signals that ask a process to end, as far as there are such."""


def open_file(path: Path | str, flags: int, *, follow: bool = True) -> int:
    """Descriptor of a file whose bytes stay as they are; OSError where it is a link and not to ``follow``."""
    if not follow:
        if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        flags |= getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags | _BINARY, 0o666)


def open_folder(path: Path) -> int | None:
    """Descriptor of a folder; None where the system opens none, OSError where it is no folder."""
    if hasattr(os, "O_DIRECTORY"):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if not path.is_dir():
        code = errno.ENOTDIR if path.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), os.fspath(path))
    return None


def read_into(file: int, target: memoryview, offset: int) -> int:
    """Fill ``target`` from ``offset`` on, from any thread; how many bytes came, 0 at the end."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [target], offset)
    part = read_at(file, target.nbytes, offset)
    target.cast("B")[: len(part)] = part
    return len(part)


def read_at(file: int, size: int, offset: int) -> bytes:
    """Up to ``size`` bytes from ``offset`` on, from any thread."""
    if hasattr(os, "pread"):
        return os.pread(file, size, offset)
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, size)


def write_at(file: int, data: memoryview | bytes, offset: int) -> int:
    """Write at ``offset``, from any thread; how many bytes were taken."""
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, offset)
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.write(file, data)


def try_lock(file: int) -> bool:
    """Lock a file until its descriptor is closed, or the process ends; False where another process has it.

    Raises
    ------
    OSError
        If the file system, or the operating system, cannot lock files.
    """
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _lock_byte(file)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def is_locked(file: int) -> bool | None:
    """Whether another process has locked a file; None where the system does not say."""
    if fcntl is None or sys.platform != "linux":  # elsewhere the request has another form
        return None
    asked = struct.pack(_LOCK_FORM, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind = struct.unpack(_LOCK_FORM, fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
    except OSError:
        return None
    return bool(kind != fcntl.F_UNLCK)


def _lock_byte(file: int) -> None:
    if msvcrt is None:
        raise OSError(errno.ENOSYS, "the operating system has no locks that Python knows")
    os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
    msvcrt.locking(file, msvcrt.LK_NBLCK, 1)


def kill_group(leader: int) -> None:
    """End a process and, where there are groups, those of its group; ProcessLookupError where there is none."""
    if hasattr(os, "killpg"):
        os.killpg(leader, signal.SIGKILL)
    else:
        os.kill(leader, signal.SIGTERM)  # which ends it at once, on Windows


def most_open_files(usual: int) -> int:
    """How many files this process may have open; ``usual`` where there is no limit, or none is known."""
    soft = -1 if resource is None else int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return usual if soft < 0 else soft


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def require_pipes() -> None:
    """MediaError where media cannot be read: that takes pipes which many may wait for and a child may inherit."""
    if not hasattr(select, "poll"):
        raise MediaError(f"media are not read on {_system_name()}; use Linux, macOS or the Linux inside Windows (WSL)")


def widen_pipe(pipe: IO[bytes]) -> None:
    """Let a pipe hold 1 MiB, where the system allows it: its writer need not wait for a busy reader."""
    request = getattr(fcntl, "F_SETPIPE_SZ", None)
    if request is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, request, 1 << 20)


def bytes_waiting(pipe: IO[bytes]) -> int:
    """How many bytes of a pipe can be read without waiting."""
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe.fileno(), termios.FIONREAD, waiting)
    return int(waiting[0])


def _system_name() -> str:
    return {"win32": "Windows", "darwin": "macOS"}.get(sys.platform, sys.platform)
