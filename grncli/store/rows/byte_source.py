"""Where a reader gets the bytes of a store from: files by name, pieces of them by offset. Local folders are one source.

Local files are read with ``pread``. Not with a mapping: that needs as many descriptors, pays a page fault per record,
and kills the process when a file is cut under it.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol
from weakref import WeakSet

from grncli.runtime.errors import StoreError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonfiles import load_json
from grncli.runtime.system import most_open_files, read_into
from grncli.store.rows.schema import METADATA

_MOST_OPEN_FILES = 4096
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class Committed(NamedTuple):
    """The first bytes of a file as a commit record counts them: how many, and their crc32c."""

    size: int
    crc32c: int


class ByteFile(Protocol):
    """An open file. It closes with its last user: a thread may still read from one that a cache gave up."""

    @property
    def size(self) -> int:
        """Bytes it had when it was opened."""

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on; EOFError with the number of bytes there were where they are fewer."""


class ByteSource(Protocol):
    """A store's files, by their names below its root, such as ``part-00000/commit.json``; can be pickled.

    ``committed`` is what a record says of a file: one that is far away is checked by it, and need not be fetched again.
    """

    @property
    def is_remote(self) -> bool:
        """Whether it helps to `expect`."""

    def where(self, name: str) -> str:
        """What messages call a file, or with an empty name the store."""

    def open(self, name: str, committed: Committed | None = None) -> ByteFile:
        """A file; FileNotFoundError where there is none, OSError or RemoteError where it cannot be read."""

    def stream(self, name: str, committed: Committed | None = None) -> BinaryIO:
        """As ``open``, to be read from front to back."""

    def size(self, name: str) -> int | None:
        """Bytes of a plain file, None where there is none."""

    def list(self, folder: str) -> list[str] | None:
        """Names of what a folder holds, in order; none where there is no folder, None where it cannot be told."""

    def expect(self, wanted: Iterable[tuple[str, Committed | None]], *, streamed: bool = False) -> None:
        """Files that are going to be opened or ``streamed``, in this order: a remote source fetches from here on."""


class LocalFiles:
    """The files of a store in a local folder."""

    is_remote = False

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def where(self, name: str) -> str:
        """Path of a file."""
        return f"{self._root}/{name}" if name else self._root

    def open(self, name: str, committed: Committed | None = None) -> "LocalFile":
        """Open a file; where the process may open no more, every cache keeps fewer open from here on."""
        while True:
            try:
                return LocalFile(open_plain(self.where(name)))
            except OSError as error:
                if error.errno not in _TOO_MANY or not any(cache.shrink() for cache in list(_caches)):
                    raise

    def stream(self, name: str, committed: Committed | None = None) -> BinaryIO:
        """Open a file to be read from front to back."""
        return os.fdopen(open_plain(self.where(name)), "rb")

    def size(self, name: str) -> int | None:
        """Bytes of a plain file, None where there is none."""
        try:
            status = os.stat(self.where(name))
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def list(self, folder: str) -> list[str]:
        """Names of what a folder holds."""
        path = self.where(folder)
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def expect(self, wanted: Iterable[tuple[str, Committed | None]], *, streamed: bool = False) -> None:
        """Nothing: the system reads ahead."""


class LocalFile:
    """A descriptor, closed with its last user."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int, size: int | None = None) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size if size is None else size

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on; EOFError where the file ends before."""
        got = read_into(self._fd, target, offset)
        while got < target.nbytes:  # the system reads at most 2 GiB at a time
            more = read_into(self._fd, target.cast("B")[got:], offset + got)
            if not more:
                raise EOFError(got)
            got += more

    def __del__(self) -> None:
        os.close(self._fd)


class OpenFiles:
    """Files kept open, the most recently used ones: a large store has more than a process may open."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, ByteFile] = OrderedDict()
        self._limit = max(8, min(_MOST_OPEN_FILES, most_open_files(2 * _MOST_OPEN_FILES) // 2))
        _caches.add(self)

    def get(self, key: int, opener: Callable[[int], ByteFile], chunk: int) -> ByteFile:
        """The file kept under ``key``, opened with ``opener(chunk)`` when it is not open."""
        try:
            file = self._files[key]
            self._files.move_to_end(key)
        except KeyError:  # also when another thread evicted it between the two lines
            file = self._files[key] = opener(chunk)
            if len(self._files) > self._limit:
                self._files.popitem(last=False)
        return file

    def shrink(self) -> bool:
        """Keep half as many files from here on; False where none is kept."""
        self._limit = max(1, len(self._files) // 2)
        shrunk = False
        with suppress(KeyError):  # another thread evicted the last one
            while len(self._files) >= self._limit:
                self._files.popitem(last=False)
                shrunk = True
        return shrunk

    def __reduce__(self) -> tuple[type["OpenFiles"], tuple[()]]:
        return OpenFiles, ()


_caches: "WeakSet[OpenFiles]" = WeakSet()  # of this process, whose files all count against one limit


@contextmanager
def reading(
    source: ByteSource, name: str, committed: Committed | None = None, *, missing: bool = False
) -> Iterator[BinaryIO]:
    """A file to be read from front to back; StoreError where it cannot be; empty where it may be ``missing``."""
    with read_from(lambda: _stream(source, name, committed, missing), source.where(name)) as file:
        yield file


@contextmanager
def read_from(opener: Callable[[], BinaryIO], where: str) -> Iterator[BinaryIO]:
    """What an opener gives; StoreError where it cannot be opened or read."""
    try:
        with opener() as file:
            yield file
    except OSError as error:
        raise StoreError(f"{where} cannot be read ({error.strerror}); restore it from a copy.") from None


def _stream(source: ByteSource, name: str, committed: Committed | None, missing: bool) -> BinaryIO:
    try:
        return source.stream(name, committed)
    except FileNotFoundError:
        if missing:
            return BytesIO()
        raise


def read_document(
    source: ByteSource, name: str, remedy: str, seen: Callable[[bytes], object] = lambda data: None
) -> Any:
    """The JSON document in a small file, whose bytes go to ``seen``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StoreError
        If it is something else; ends with ``remedy``.
    """
    return load_json(lambda: source.stream(name), source.where(name), error=StoreError, remedy=remedy, seen=seen)


def root_attributes(source: ByteSource) -> dict[str, Any] | None:
    """Attributes of the Zarr group at the root of a source, None when there is no Zarr v3 document."""
    names = source.list("")
    if names is not None and METADATA not in names:
        return None
    remedy = "restore it, or move the directory away."
    try:
        document = read_document(source, METADATA, remedy)
    except FileNotFoundError:  # also of a link that leads nowhere, or removed meanwhile
        return None
    attributes = document.get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise StoreError(f"{source.where(METADATA)} is not a Zarr v3 group document; {remedy}")
    return attributes
