"""Makes a process like one on Windows, as far as Python's modules go: imported before anything of grncli.

What others need of POSIX they take before; what grncli does without must then be gone.
"""

import contextlib
import errno
import os
import select
import signal
import subprocess  # noqa: F401 - it keeps what it needs of POSIX
import sys
import tempfile  # noqa: F401
import types

with contextlib.suppress(ImportError):
    import fcntl

if os.environ.get("PRELOAD"):
    import numpy  # noqa: F401
    import torch
    import zarr  # noqa: F401

    torch.load  # noqa: B018 - imported whole

O_BINARY = 1 << 29  # no flag of Linux
_open, _lockf = os.open, fcntl.lockf


def open_like_windows(path, flags, mode=0o777, **more):
    if sys._getframe(1).f_globals.get("__name__", "").startswith("grncli"):
        assert flags & O_BINARY, f"{path} is opened as text"
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return _open(path, flags & ~O_BINARY, mode, **more)


def locking(file, mode, size):
    """Like that of msvcrt: from the file's position on."""
    assert mode == msvcrt.LK_NBLCK
    try:
        _lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, size, os.lseek(file, 0, os.SEEK_CUR), os.SEEK_SET)
    except OSError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
for name in ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty"):
    sys.modules[name] = None
if not os.environ.get("WITHOUT_LOCKS"):
    sys.modules["msvcrt"] = msvcrt
for name in ("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "pread", "preadv", "pwrite", "pwritev", "killpg"):
    delattr(os, name)
for name in ("fork", "getpgrp", "getuid", "geteuid", "sysconf", "sched_getaffinity", "statvfs", "setsid"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL"):
    delattr(signal, name)
del select.poll
os.O_BINARY, os.open = O_BINARY, open_like_windows
