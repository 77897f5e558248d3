"""Where copies go: a folder of this machine, or a URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from grncli.runtime.errors import StoreError
from grncli.runtime.files import sync_directory, whole_file
from grncli.runtime.folders import make_folder
from grncli.runtime.lock import PathLock
from grncli.runtime.remote_objects import ObjectState, RemoteObjects
from grncli.runtime.urls import UrlPath
from grncli.store.rows.byte_source import ByteSource, LocalFiles
from grncli.store.rows.claiming import lock_part
from grncli.store.rows.remote_files import RemoteFiles
from grncli.transfer.contents import Content

_IN_MEMORY = 64 << 20  # bytes up to which an object is sent in one request


class Destination(Protocol):
    """A place that files are written to, by their names below it."""

    @property
    def files(self) -> ByteSource:
        """What is there, read without a cache."""

    def walk(self, folder: str) -> dict[str, ObjectState]:
        """Every file below a folder, by its name below the place."""

    def state(self, name: str) -> ObjectState | None:
        """What is known of one file, None where there is none."""

    def write(self, content: Content) -> None:
        """Put a file in place, whole; StoreError where its source does not have what it should."""

    def remove(self, name: str) -> None:
        """Take a file away."""

    @contextmanager
    def claimed(self, folder: str) -> Iterator[None]:
        """Keep other writers out of a folder, where the place can: StoreError while there is one."""


class LocalDestination:
    """A folder of this machine; see `Destination`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.files: ByteSource = LocalFiles(path)

    def walk(self, folder: str) -> dict[str, ObjectState]:
        """Every file below a folder but hidden ones, which are locks, and what is not ready yet."""
        found = {}
        for place, folders, names in os.walk(self._path / folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(place, name)
                if not name.startswith("."):
                    with suppress(FileNotFoundError):  # removed meanwhile
                        found[path.relative_to(self._path).as_posix()] = ObjectState(path.lstat().st_size)
        return found

    def state(self, name: str) -> ObjectState | None:
        """Size of one file."""
        size = self.files.size(name)
        return None if size is None else ObjectState(size)

    def write(self, content: Content) -> None:
        """Put a file in place once it is on disk."""
        path = self._path / content.name
        with _changing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary, temporary.open("wb") as file:
                for piece in content.pieces():
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(path.parent)

    def remove(self, name: str) -> None:
        """Delete a file, and its folder where nothing else is in it."""
        path = self._path / name
        with _changing(path):
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
            with suppress(OSError):
                path.parent.rmdir()

    @contextmanager
    def claimed(self, folder: str) -> Iterator[None]:
        """Hold the lock of a folder, as its writers do."""
        with _changing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            make_folder(self._path)
            lock: PathLock = lock_part(self._path / folder)
        try:
            yield
        finally:
            lock.release()


class RemoteDestination:
    """What lies below a URL; see `Destination`."""

    def __init__(self, url: UrlPath) -> None:
        self._objects = RemoteObjects(str(url))
        self.files: ByteSource = RemoteFiles(self._objects, None)

    def walk(self, folder: str) -> dict[str, ObjectState]:
        """Every object below a folder."""
        return self._objects.walk(folder)

    def state(self, name: str) -> ObjectState | None:
        """Size and, where the server says it, MD5 of one object."""
        return self._objects.state(name)

    def write(self, content: Content) -> None:
        """Send an object; a large one is read through first, as what is sent counts."""
        if content.size <= _IN_MEMORY:
            self._objects.write(content.name, b"".join(content.pieces()))
            return
        for _ in content.pieces():
            pass
        self._objects.write_pieces(content.name, content.pieces)

    def remove(self, name: str) -> None:
        """Delete an object."""
        self._objects.remove(name)

    @contextmanager
    def claimed(self, folder: str) -> Iterator[None]:
        """Nothing: object stores have no locks."""
        yield


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """StoreError where a place of this machine cannot be written."""
    try:
        yield
    except OSError as error:
        place = os.fsdecode(error.filename or path)
        raise StoreError(
            f"{place}: cannot be written ({error.strerror or error}); choose another DST, or free space and run the "
            "same command again."
        ) from None


def destination_at(place: Path) -> Destination:
    """A destination by its path or URL."""
    return RemoteDestination(place) if isinstance(place, UrlPath) else LocalDestination(place)
