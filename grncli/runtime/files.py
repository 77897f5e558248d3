"""Files that appear whole or not at all, and errors of the operating system that name the file."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from grncli.runtime.errors import UsageError
from grncli.runtime.system import NONBLOCK, open_file, open_folder, write_at

MAX_NAME = 255  # bytes in a file's name, on nearly every file system


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; it becomes ``path`` if the block ends well, else it is removed.

    Guards against an error, an interrupt or a killed process; there is no fsync, so a power cut may still
    cost the last files. An OSError of the block names ``path``.
    """
    temporary = temporary_path(path)
    try:
        with naming(path):
            if temporary.is_symlink():  # what it leads to is not ours to write
                temporary.unlink()
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Put ``content`` at ``path`` in one step that outlasts a power cut; OSError where its temporary name is a link.

    ``sync=False`` leaves out waiting for the disk, for what can be made again.
    """
    temporary = temporary_path(path)
    fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, follow=False)
    try:
        write_all(fd, memoryview(content), 0)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    if sync:
        sync_directory(path.parent)


def temporary_path(path: Path) -> Path:
    """Where a file is prepared: one name, so that the next run replaces what a killed one left."""
    name = f".{path.name}.tmp"
    if len(os.fsencode(name)) > MAX_NAME:
        # Of the same length for every long name, and still another one for each.
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.tmp"
    return path.with_name(name)


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write every byte at ``offset``; the system may take less than it was given."""
    while data:
        written = write_at(fd, data, offset)
        data = data[written:]
        offset += written


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


def open_plain(path: Path | str, flags: int = os.O_RDONLY, *, follow: bool = True) -> int:
    """Descriptor of a file, for reading; OSError where something else, such as a named pipe, is in its place."""
    fd = open_file(path, flags | NONBLOCK, follow=follow)
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
    """Wait until the entries of a directory are on disk, where the system can be asked to."""
    fd = open_folder(path)
    if fd is not None:
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def check_file(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Raise UsageError for the name of an output that could not be written; without ``suffixes`` it may end in any."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no such folder, expected one that exists")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, expected the name of a file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{path}: its folder cannot be written to, expected another place")
