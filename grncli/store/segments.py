"""Reading the committed rows of one grid in one part, straight from its raw chunk files.

zarr-python takes about a millisecond for one record and fills missing chunks with zeros; ``pread`` gives a record
in microseconds, and a missing or short file is an error. Not a mapping: that needs as many descriptors, pays a page
fault per record, and kills the process when a file is cut under it.
"""

import errno
import os
import resource
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.files import open_plain
from grncli.store.layout import LABEL, Grid, RowLayout, grid_layouts, grid_name
from grncli.store.record import PartRecord

_MOST_OPEN_FILES = 4096
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_caches: "WeakSet[ChunkFiles]" = WeakSet()  # of this process, whose files all count against one limit
_LARGE_ROW = 1 << 20  # bytes from which on a row is believed only once its file is seen


@dataclass(frozen=True)
class StoredArray:
    """One array of a grid in a part, of which ``rows`` rows are committed."""

    directory: Path
    layout: RowLayout
    rows: int

    @property
    def chunks(self) -> int:
        """Chunk files the committed rows take."""
        return self.layout.chunk_count(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the committed rows."""
        return self.rows * self.layout.row_bytes

    def chunk_path(self, chunk: int) -> Path:
        """File of one chunk."""
        return self.layout.chunk_path(self.directory, chunk)

    def rows_in(self, chunk: int) -> int:
        """Committed rows of one chunk."""
        return min(self.layout.chunk_rows, self.rows - chunk * self.layout.chunk_rows)

    def require_files(self) -> None:
        """StoreError unless every chunk file is there with the size that `open_chunk` wants."""
        for chunk in range(self.chunks):
            try:
                status = os.stat(self.chunk_path(chunk))
                size = status.st_size if stat.S_ISREG(status.st_mode) else -1
            except OSError:
                size = -1
            if not self.rows_in(chunk) * self.layout.row_bytes <= size <= self.layout.chunk_bytes:
                os.close(self.open_chunk(chunk))

    def open_chunk(self, chunk: int) -> int:
        """Descriptor of a chunk file that has its committed rows; StoreError when it cannot be had.

        The file may be longer: a chunk that is not full has its whole size until the part is complete.
        """
        path, expected = self.chunk_path(chunk), self.rows_in(chunk) * self.layout.row_bytes
        try:
            fd = _open(path)
        except OSError as error:
            found = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise _unreadable(path, found, expected) from error
        size = os.fstat(fd).st_size
        if not expected <= size <= self.layout.chunk_bytes:
            os.close(fd)
            raise _unreadable(path, f"has {size} bytes", expected)
        return fd

    def read_chunk(self, chunk: int) -> NDArray[Any]:
        """Committed rows of one chunk, in memory of their own."""
        fd = self.open_chunk(chunk)  # whose size is checked before memory of that size is taken
        try:
            rows = np.empty((self.rows_in(chunk), *self.layout.row_shape), self.layout.dtype)
            self.read_into(fd, rows.reshape(-1).view(np.uint8).data, 0, chunk)
        finally:
            os.close(fd)
        return rows

    def read_all(self) -> NDArray[Any]:
        """Every committed row."""
        for chunk in {0, self.chunks - 1} if self.chunks else ():
            os.close(self.open_chunk(chunk))
        rows = np.empty((self.rows, *self.layout.row_shape), self.layout.dtype)
        for chunk in range(self.chunks):
            first = chunk * self.layout.chunk_rows
            rows[first : first + self.rows_in(chunk)] = self.read_chunk(chunk)
        return rows

    def read_into(self, fd: int, target: memoryview, offset: int, chunk: int) -> None:
        """Fill ``target`` from ``offset`` of an open chunk; StoreError when the file became shorter."""
        got = os.preadv(fd, [target], offset)
        while got < target.nbytes:  # the system reads at most 2 GiB at a time
            more = os.preadv(fd, [target.cast("B")[got:]], offset + got)
            if not more:
                raise _unreadable(self.chunk_path(chunk), f"ends after {offset + got} bytes", offset + target.nbytes)
            got += more


def _open(path: Path) -> int:
    """Open for reading; where the process may open no more files, every store keeps fewer open from here on."""
    while True:
        try:
            return open_plain(path)
        except OSError as error:
            if error.errno not in _TOO_MANY or not any(files.shrink() for files in list(_caches)):
                raise


class ChunkFiles:
    """Chunk files kept open, the most recently used ones: a large store has more than a process may open."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = _MOST_OPEN_FILES if limit < 0 else max(8, min(_MOST_OPEN_FILES, limit // 2))
        _caches.add(self)

    def get(self, key: int, opener: Callable[[int], int], chunk: int) -> "_OpenFile":
        """The file kept under ``key``, opened with ``opener(chunk)`` when it is not open."""
        try:
            file = self._files[key]
            self._files.move_to_end(key)
        except KeyError:  # also when another thread evicted it between the two lines
            file = self._files[key] = _OpenFile(opener(chunk))
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

    def __reduce__(self) -> tuple[type["ChunkFiles"], tuple[()]]:
        return ChunkFiles, ()


class _OpenFile:
    """A descriptor closed with its last user: a thread may still read from a file that was just evicted."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Segment:
    """Rows of one grid in one part; ``start`` is the store's index of the first."""

    def __init__(self, part: Path, grid: Grid, start: int, arrays: list[StoredArray], files: ChunkFiles) -> None:
        self.part = part
        self.grid = grid
        self.start = start
        self.bits = arrays[0]
        self.numbers = {array.layout.name: array for array in arrays[1:]}
        self.rows = self.bits.rows
        self.row_shape = self.bits.layout.row_shape
        self._row_bytes = self.bits.layout.row_bytes
        self._chunk_rows = self.bits.layout.chunk_rows
        self._files = files
        self._labels: NDArray[np.int32] | None = None
        if self._row_bytes > _LARGE_ROW and self.rows:
            os.close(self.bits.open_chunk(0))

    def read_row(self, row: int) -> NDArray[np.uint8]:
        """Bits [t, h, w, M, bytes] of one row."""
        bits = np.empty(self.row_shape, np.uint8)
        chunk, first = divmod(row, self._chunk_rows)
        self.read_into(bits.data, chunk, first)
        return bits

    def read_into(self, target: memoryview, chunk: int, first: int) -> None:
        """Fill ``target`` with rows of one chunk, from row ``first`` of it."""
        # The store's index of a chunk's first row names the chunk among all segments.
        file = self._files.get(self.start + chunk * self._chunk_rows, self.bits.open_chunk, chunk)
        self.bits.read_into(file.fd, target, first * self._row_bytes, chunk)

    def chunks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """First row and bits of each chunk."""
        for chunk in range(self.bits.chunks):
            yield chunk * self._chunk_rows, self.bits.read_chunk(chunk)

    def labels(self) -> NDArray[np.int32]:
        """Label of every row; kept, as it is 4 bytes a sample."""
        if self._labels is None:
            self._labels = self.numbers[LABEL].read_all()
        return self._labels

    def column(self, name: str) -> NDArray[Any]:
        """A declared column; StoreError when the part has none of that name."""
        if name not in self.numbers:
            raise StoreError(
                f"{self.part} has no column {name!r}, it has {', '.join(self.numbers)}; choose one of these."
            )
        return self.numbers[name].read_all()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_labels": None}


def stored_arrays(part: Path, record: PartRecord, grid: Grid, rounds: int, channels: int) -> list[StoredArray]:
    """Arrays of one grid as the commit record counts them: bits, label, then the declared columns."""
    directory, rows = part / grid_name(grid), record.grids[grid].rows
    layouts = grid_layouts(grid, rounds, channels, record.columns)
    return [StoredArray(directory / layout.name, layout, rows) for layout in layouts]


def _unreadable(path: Path, found: str, expected: int) -> StoreError:
    return StoreError(
        f"{path} {found}, expected {expected} bytes; restore it from a copy, or make the store again with --overwrite."
    )
