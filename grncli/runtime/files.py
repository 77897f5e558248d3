"""Files that appear whole or not at all, and errors of the operating system that name the file."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_NAME = 255  # bytes in a file's name, on nearly every file system


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; it becomes ``path`` if the block ends well, else it is removed.

    Guards against an error, an interrupt or a killed process; there is no fsync, so a power cut may still
    cost the last files. An OSError of the block names ``path``.
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        with naming(path):
            if temporary.is_symlink():  # what it leads to is not ours to write
                temporary.unlink()
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block name ``path``: that of a write to an open file names no file at all."""
    try:
        yield
    except OSError as error:
        # A broken pipe is that of another program, and has handlers of its own.
        if error.errno is not None and not isinstance(error, BrokenPipeError):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def open_plain(path: Path) -> int:
    """Descriptor for reading a file; OSError where something else, such as a named pipe, is in its place."""
    # Without O_NONBLOCK, opening a named pipe would wait forever.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "is no plain file", os.fspath(path))


def read_plain(path: Path, most: int) -> bytes | None:
    """All bytes of a file, None where it has more than ``most``; OSError as `open_plain`."""
    with os.fdopen(open_plain(path), "rb") as file:
        data = file.read(most + 1)
    return data if len(data) <= most else None


def sync_directory(path: Path) -> None:
    """Wait until the entries of a directory are on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temporary_name(name: str) -> str:
    temporary = f".{name}.tmp"
    if len(os.fsencode(temporary)) <= MAX_NAME:
        return temporary
    # Of the same length for every long name, and still another one for each.
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.tmp"
