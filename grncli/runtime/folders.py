"""Folders of ours: cleared in steps that can be repeated, never left through a link, and still in their place."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from grncli.runtime.errors import LockError, MissingFolderError
from grncli.runtime.lock import PathLock

LOCK = ".lock"


class HeldFolder:
    """A folder kept open, so that it is noticed when its path comes to lead elsewhere."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def is_there(self) -> bool:
        """Whether the path still leads to the folder; about 2 microseconds."""
        assert self._fd is not None
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Harmless when repeated."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "HeldFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ClaimedFolder:
    """A folder that exists and that one process at a time fills; use as a context manager.

    The hidden, empty file that is locked stays in it. OSError where the folder cannot be written.

    Parameters
    ----------
    lock : the file that is locked, if it is another than ``.lock`` in the folder

    Raises
    ------
    LockError
        If another process fills it.
    """

    def __init__(self, path: Path, lock: Path | None = None) -> None:
        self.path = path
        self._held = HeldFolder(path)
        self._lock = PathLock(lock or path / LOCK, signed=True)
        try:
            if not self._lock.try_acquire():
                raise LockError(
                    f"{path} is being written by {self._lock.holder()}; wait until it has ended, or stop it first"
                )
        except BaseException:
            self._held.close()
            raise

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Where a file below the folder is to be written; the folders between are made, and none of them is a link.

        Raises
        ------
        MissingFolderError
            If the path no longer leads to the folder, or ceases to while the file is written.
        """
        self.require_in_place()
        try:
            yield inside(self.path, name, create=True)
        except OSError:
            self.require_in_place()
            raise

    def require_in_place(self) -> None:
        """MissingFolderError where the path no longer leads to the folder."""
        if not self._held.is_there():
            raise MissingFolderError(
                f"{self.path} was moved, replaced or removed while it was written; move it back and run the same "
                "command again"
            )

    def close(self) -> None:
        """Let others fill it; harmless when repeated."""
        self._lock.release()
        self._held.close()

    def __enter__(self) -> "ClaimedFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_folder(path: Path) -> bool:
    """Create a folder in one that exists, unless it is there; OSError where a link or a file is. Whether it was."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        try:
            path.mkdir()
            return True
        except FileExistsError:  # by another process, in between
            mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        raise _no_folder(path, mode)
    return False


def refuse_link(path: Path) -> None:
    """OSError that names ``path`` where it is a link: what it leads to is not ours to change."""
    if path.is_symlink():
        raise _no_folder(path, stat.S_IFLNK)


def inside(folder: Path, name: str, *, create: bool = False) -> Path:
    """The path of a file below a folder; OSError where a link lies on the way to it.

    Parameters
    ----------
    name : with slashes; no part of it leads up
    create : make the folders in between
    """
    path = folder
    *between, last = Path(name).parts
    for part in between:
        path /= part
        if create:
            make_folder(path)
        elif path.is_symlink():
            raise _no_folder(path, stat.S_IFLNK)
    return path / last


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link rather than what it leads to; nothing where there is nothing.

    A folder goes out of sight in one step, so that it is never found half empty.
    """
    hidden = path.with_name(f".{path.name}.old")
    remove_now(hidden)  # what an interrupted call left
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rename(path, hidden)
            path = hidden
    except FileNotFoundError:
        return
    remove_now(path)


def remove_now(path: Path) -> None:
    """As `remove`, for what nobody looks for under its name."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _no_folder(path: Path, mode: int) -> OSError:
    if stat.S_ISLNK(mode):
        return OSError(errno.ELOOP, "is a link, and nothing is written or removed through links", os.fspath(path))
    return OSError(errno.ENOTDIR, "is no folder", os.fspath(path))
