"""Folders that a command fills: their marker, one writer at a time, whether they were moved, and removing in one step.

Nothing is written or removed through a link.
"""

import errno
import os
import shutil
import stat
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from grncli.runtime.differences import describe_differences
from grncli.runtime.errors import LockError, MissingFolderError, UsageError
from grncli.runtime.jsonfiles import brief, read_json, write_json
from grncli.runtime.lease import is_lease
from grncli.runtime.lock import PathLock
from grncli.runtime.system import open_folder

LOCK = ".lock"


def is_vacant(folder: Path, leftovers: Collection[str] = ()) -> bool:
    """Whether a new folder may be made at a path: nothing is there, or a folder with at most ``leftovers`` in it.

    Parameters
    ----------
    leftovers : names that a process may leave that is killed before it has marked the folder
    """
    if folder.is_dir():
        return not {name for name in os.listdir(folder) if not is_lease(name)} - set(leftovers)
    return not folder.exists()


@dataclass(frozen=True, kw_only=True)
class FolderMarker:
    """The JSON document by which a command recognizes a folder that it filled, and what it filled it with.

    Parameters
    ----------
    folder, file : the folder, and its marker, in most cases inside it
    command : what fills it, such as ``grn decode``
    purpose : what is expected in a message, such as ``a folder to decode into``
    remedy : what the user can do, such as ``choose another DIR``
    replaceable : whether the command has ``--overwrite``
    """

    folder: Path
    file: Path
    command: str
    purpose: str
    remedy: str
    replaceable: bool = True

    def require_ours(self) -> None:
        """UsageError where the path is a file, or a folder that holds something and has no marker."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder} is a file, expected {self.purpose}")
        if not os.path.lexists(self.file) and not is_vacant(self.folder, (LOCK, f".{self.file.name}.tmp")):
            raise UsageError(f"{self.folder} holds files that {self.command} did not write; {self.remedy}")

    def read(self) -> dict[str, Any] | None:
        """What the folder was filled with, None where it is vacant; UsageError where it is not ours or damaged."""
        self.require_ours()
        try:
            document = read_json(self.file, error=UsageError, remedy=self.remedy)
        except FileNotFoundError:
            return None
        if not isinstance(document, dict):
            raise UsageError(f"{self.file}: holds {brief(document)}, expected a JSON object; {self.remedy}")
        return document

    def require(self, asked: Mapping[str, Any], *, overwrite: bool = False) -> dict[str, Any] | None:
        """As `read`; UsageError with what differs where the folder was filled with something else than ``asked``."""
        there = self.read()
        if there is None or there == asked or overwrite:
            return there
        remedy = f"{self.remedy}, or --overwrite it" if self.replaceable else self.remedy
        raise UsageError(
            f"{self.folder} was made by {self.command} with other settings or data "
            f"({describe_differences(there, asked)}); {remedy}"
        )

    def write(self, document: Mapping[str, Any]) -> None:
        """Mark the folder, or replace its mark in one step."""
        write_json(self.file, document)


class HeldFolder:
    """A folder kept open, so that it is noticed when its path comes to lead elsewhere; OSError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        fd = open_folder(path)
        # Where it cannot be kept open, another folder may get its number once it is gone.
        self._status = os.stat(path) if fd is None else os.fstat(fd)
        self._close = weakref.finalize(self, (lambda: None) if fd is None else (lambda: os.close(fd)))

    def is_there(self) -> bool:
        """Whether the path still leads to the folder; about 2 microseconds."""
        try:
            return os.path.samestat(os.stat(self.path), self._status)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def close(self) -> None:
        """Harmless when repeated."""
        self._close()

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
    doing : what is done to the folder, as in "is being written"

    Raises
    ------
    LockError
        If another process fills it.
    """

    def __init__(self, path: Path, *, doing: str = "written") -> None:
        self.path = path
        self._held = HeldFolder(path)
        self._lock = PathLock(path / LOCK, signed=True)
        try:
            if not self._lock.try_acquire():
                raise LockError(
                    f"{path} is being {doing} by {self._lock.holder()}; wait until it has ended, or stop it first"
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

    A folder is renamed to a hidden name first, so that it never lies there half empty.
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
    """As `remove`, for names that are hidden already."""
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
