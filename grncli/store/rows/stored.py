"""Reading the committed rows of one array in one group of a part, straight from its raw chunk files.

zarr-python takes about a millisecond for one record and fills missing chunks with zeros; ``pread`` gives a record
in microseconds, and a missing or short file is an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.store.rows.byte_source import ByteFile, ByteSource, Committed, OpenFiles
from grncli.store.rows.dropped_rows import Rows
from grncli.store.rows.record import PartRecord
from grncli.store.rows.schema import ArrayLayout, Schema, changed, part_name, unreadable

_LARGE_ROW = 1 << 20  # bytes from which on a row is believed only once its file is seen


@dataclass(frozen=True)
class StoredArray:
    """One array of a group in a part, of which ``rows`` rows are committed; ``folder`` is its name in the source.

    ``checksums`` has the crc32c of each chunk's committed rows.
    """

    source: ByteSource
    folder: str
    layout: ArrayLayout
    rows: int
    checksums: Sequence[int] = ()

    @property
    def chunks(self) -> int:
        """Chunk files the committed rows take."""
        return self.layout.chunk_count(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the committed rows."""
        return self.rows * self.layout.row_bytes

    def disk_bytes(self, complete: bool) -> int:
        """Bytes of its chunk files, and of its document, in a part that is complete or not."""
        chunk = self.layout.stored_chunk_rows(self.rows, complete) * self.layout.row_bytes
        return self.chunks * chunk + len(self.layout.document(self.rows, complete))

    def chunk_name(self, chunk: int) -> str:
        """File of one chunk in the source."""
        return f"{self.folder}/{self.layout.chunk_name(chunk)}"

    def chunk_path(self, chunk: int) -> str:
        """What messages call the file of one chunk."""
        return self.source.where(self.chunk_name(chunk))

    def rows_in(self, chunk: int) -> int:
        """Committed rows of one chunk."""
        return min(self.layout.chunk_rows, self.rows - chunk * self.layout.chunk_rows)

    def bytes_in(self, chunk: int) -> int:
        """Bytes of the committed rows of one chunk."""
        return self.rows_in(chunk) * self.layout.row_bytes

    def chunk_to_expect(self, chunk: int) -> tuple[str, Committed]:
        """One chunk as the source is told of it."""
        return self.chunk_name(chunk), Committed(self.bytes_in(chunk), self.checksums[chunk])

    def expect(self) -> None:
        """Say that all chunks are going to be read, the first one first."""
        if self.source.is_remote:
            self.source.expect(map(self.chunk_to_expect, range(self.chunks)))

    def require_files(self) -> None:
        """StoreError unless every chunk file is there with the size that `open_chunk` wants: a look at each."""
        for chunk in range(self.chunks):
            size = self.source.size(self.chunk_name(chunk))
            if size is None or not self.bytes_in(chunk) <= size <= self.layout.chunk_bytes:
                self.open_chunk(chunk)

    def open_chunk(self, chunk: int) -> ByteFile:
        """A chunk file that has its committed rows; StoreError when it cannot be had.

        The file may be longer: a chunk that is not full has its whole size until the part is complete.
        """
        expected = self.bytes_in(chunk)
        try:
            file = self.source.open(*self.chunk_to_expect(chunk))
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise unreadable(self.chunk_path(chunk), what, f"{expected}") from error
        if not expected <= file.size <= self.layout.chunk_bytes:
            raise unreadable(self.chunk_path(chunk), f"has {file.size} bytes", f"{expected}")
        return file

    def read_chunk(self, chunk: int) -> NDArray[Any]:
        """Committed rows of one chunk, in memory of their own."""
        file = self.open_chunk(chunk)  # whose size is checked before memory of that size is taken
        rows = np.empty((self.rows_in(chunk), *self.layout.row_shape), self.layout.dtype)
        target = rows.reshape(-1).view(np.uint8).data
        try:
            file.read_into(target, 0)
        except EOFError as error:
            raise self.cut_short(error, target, chunk, 0) from None
        return rows

    def checked_chunk(self, chunk: int) -> NDArray[Any]:
        """As ``read_chunk``; StoreError also where the rows are not those that were committed."""
        rows = self.read_chunk(chunk)
        found, expected = google_crc32c.value(rows.reshape(-1).view(np.uint8)), self.checksums[chunk]
        if found != expected:
            raise StoreError(changed(self.chunk_path(chunk), found, expected))
        return rows

    def read_all(self) -> NDArray[Any]:
        """Every committed row."""
        self.expect()
        for chunk in {0, self.chunks - 1} if self.chunks else ():
            self.open_chunk(chunk)
        rows = np.empty((self.rows, *self.layout.row_shape), self.layout.dtype)
        for chunk in range(self.chunks):
            first = chunk * self.layout.chunk_rows
            rows[first : first + self.rows_in(chunk)] = self.read_chunk(chunk)
        return rows

    def cut_short(self, error: EOFError, target: memoryview, chunk: int, offset: int) -> StoreError:
        """The error for a chunk file that became shorter after it was opened."""
        return unreadable(
            self.chunk_path(chunk), f"ends after {offset + error.args[0]} bytes", f"{offset + target.nbytes}"
        )


@dataclass(frozen=True)
class StoredChunk:
    """A full chunk of an array in a local store, whose file another store may share."""

    array: StoredArray
    chunk: int

    def __len__(self) -> int:
        return self.array.rows_in(self.chunk)

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.array.chunk_path(self.chunk))

    @property
    def checksum(self) -> int:
        """The committed crc32c."""
        return self.array.checksums[self.chunk]

    def require_file(self) -> None:
        """StoreError unless the file is there with its size."""
        self.array.open_chunk(self.chunk)

    def read(self) -> NDArray[Any]:
        """Its rows; StoreError where they are not those that were committed."""
        return self.array.checked_chunk(self.chunk)


def stored_arrays(
    source: ByteSource, part: int, record: PartRecord, schema: Schema
) -> Iterator[tuple[str, list[StoredArray]]]:
    """Every group of a part and its arrays in order, as the commit record counts them."""
    for group, committed in record.groups.items():
        folder = f"{part_name(part)}/{group}"
        arrays = []
        for layout in schema.layouts(group, record.columns):
            checksums = committed.crc32c.get(layout.name, ())
            arrays.append(StoredArray(source, f"{folder}/{layout.name}", layout, committed.rows, checksums))
        yield group, arrays


class ArrayReader:
    """Single rows of a stored array, from chunk files that stay open.

    Parameters
    ----------
    key : number of the array's first chunk among all those of ``files``
    """

    def __init__(self, array: StoredArray, files: OpenFiles, key: int) -> None:
        self.array = array
        self._row_shape = array.layout.row_shape
        self._row_bytes = array.layout.row_bytes
        self._chunk_rows = array.layout.chunk_rows
        self._dtype = array.layout.dtype
        self._files = files
        self._key = key
        self._open = array.open_chunk
        if self._row_bytes > _LARGE_ROW and array.rows:
            array.open_chunk(0)

    def read_row(self, row: int) -> NDArray[Any]:
        """One row, in memory of its own."""
        values = np.empty(self._row_shape, self._dtype)
        chunk, first = divmod(row, self._chunk_rows)
        self.read_into(values.data, chunk, first)
        return values

    def read_into(self, target: memoryview, chunk: int, first: int) -> None:
        """Fill ``target`` with rows of one chunk, from row ``first`` of it."""
        file = self._files.get(self._key + chunk, self._open, chunk)
        offset = first * self._row_bytes
        try:
            file.read_into(target, offset)
        except EOFError as error:
            raise self.array.cut_short(error, target, chunk, offset) from None


class Segment:
    """Rows of one group in one part without the dropped ones; ``start`` is the store's number of the first.

    Attributes
    ----------
    rows : how many remain
    kept : the stored row of each of them, ascending; None where nothing is dropped
    """

    def __init__(self, part: int, group: str, start: int, readers: dict[str, ArrayReader], kept: Rows | None) -> None:
        self.part = part
        self.group = group
        self.start = start
        self.readers = readers
        self.kept = kept
        stored = next(iter(readers.values())).array.rows
        self.rows = stored if kept is None else len(kept)
        self._kept_columns: dict[str, NDArray[Any]] = {}

    def stored(self, row: int) -> int:
        """Where a row lies on disk."""
        return row if self.kept is None else self.kept.item(row)

    def chunks(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """First row and rows of one chunk file of an array after the other."""
        array = self.readers[name].array
        array.expect()
        for chunk in range(array.chunks):
            first = chunk * array.layout.chunk_rows
            if self.kept is None:
                yield first, array.read_chunk(chunk)
                continue
            start, end = np.searchsorted(self.kept, (first, first + array.layout.chunk_rows)).tolist()
            if start < end:
                yield start, array.read_chunk(chunk)[self.kept[start:end] - first]

    def column(self, name: str) -> NDArray[Any]:
        """One number of every row; StoreError when the part has none of that name."""
        numbers = [name for name, reader in self.readers.items() if not reader.array.layout.row_shape]
        if name not in numbers:
            part = self.readers[next(iter(self.readers))].array.source.where(part_name(self.part))
            raise StoreError(f"{part} has no column {name!r}, it has {', '.join(numbers)}; choose one of these.")
        values = self.readers[name].array.read_all()
        return values if self.kept is None else values[self.kept]

    def kept_column(self, name: str) -> NDArray[Any]:
        """As ``column``, read once: for a number that every sample is read with."""
        values = self._kept_columns.get(name)
        if values is None:
            values = self._kept_columns[name] = self.column(name)
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept_columns": {}}
