"""What a store is made of, before anything is read or written: names, declared arrays and their Zarr v3 documents.

The documents are written here as plain JSON: they are small and fixed by the Zarr v3 specification, and importing
zarr-python takes three times as long as opening a store. The tests read them with zarr-python and xarray.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from grncli.runtime.errors import StoreError

FORMAT = 1
CHUNK_BYTES = 4 << 20
NUMBER_CHUNK_ROWS = 65536
MAX_PARTS = 100_000
_SHOWN_PARTS = 3
RESTORE = "restore it from a copy, or make the store again with --overwrite."

METADATA = "zarr.json"
COMMIT = "commit.json"
SAMPLES = "samples.jsonl"
FAILURES = "failures.jsonl"
COMPLETE = "COMPLETE"
LOCK = ".lock"
OVERWRITING = ".overwriting"  # in a part that --overwrite began, until it is complete

EDITED = "edited"
"""What ``versions`` in the root of a store calls the command that made it of others, with a hash of what it took."""

LineField = tuple[tuple[type, ...], str]
"""Types that a field of a line may have, and what messages call them; numbers are whole or finite, and from 0."""
TEXT: LineField = ((str,), "text")
TEXT_OR_NULL: LineField = ((str, type(None)), "text or null")
WHOLE: LineField = ((int,), "a whole number from 0")
NUMBER: LineField = ((int, float), "a finite number from 0")
FLAG: LineField = ((bool,), "true or false")

_PART_NAME = re.compile(r"part-([0-9]{5,})")
_CHUNK_NAME = re.compile(r"c\.([0-9]+)[.0]*")
_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_COLUMN_DTYPES |= {"float16", "float32", "float64"}


def part_name(part: int) -> str:
    """Directory of part number ``part``."""
    return f"part-{part:05d}"


def parse_part(name: str) -> int | None:
    """Part number of a directory name, None when it is not a part."""
    match = _PART_NAME.fullmatch(name)
    return int(match[1]) if match else None


def named_parts(parts: Sequence[int]) -> str:
    """Some parts as the subject of a sentence, with its verb: ``part-00003 and part-00007 are``."""
    names, more = [part_name(part) for part in parts[:_SHOWN_PARTS]], len(parts) - _SHOWN_PARTS
    if more > 0:
        return f"{', '.join(names)} and {more} more are"
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def unreadable(path: Path | str, state: str, expected: str) -> StoreError:
    """The error for a file of an array that has not the bytes it should have."""
    return StoreError(f"{path} {state}, expected {expected} bytes; {RESTORE}")


def changed(path: Path | str, found: int, expected: int) -> str:
    """What to say of a file whose crc32c is not the committed one."""
    return f"{path} has checksum {found:08x}, expected {expected:08x}: its bytes changed; {RESTORE}"


@dataclass(frozen=True)
class ArrayLayout:
    """A declared array, a row per sample, and how it lies in raw chunk files of ``chunk_rows`` rows.

    ``row_dimensions`` names the axes of a row, whose shape is ``row_shape``.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    row_dimensions: tuple[str, ...]
    chunk_rows: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return self.dtype.itemsize * math.prod(self.row_shape)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a full chunk file."""
        return self.row_bytes * self.chunk_rows

    def chunk_name(self, chunk: int) -> str:
        """File of one chunk: Zarr's default key with dots, as slashes make six directories for each chunk."""
        return ".".join(["c", str(chunk), *("0" for _ in self.row_shape)])

    def parse_chunk(self, name: str) -> int | None:
        """Chunk that a file name stands for, None when it is not a chunk file."""
        match = _CHUNK_NAME.fullmatch(name)
        return int(match[1]) if match else None

    def chunk_count(self, rows: int) -> int:
        """Chunk files that ``rows`` rows take."""
        return -(-rows // self.chunk_rows)

    def stored_chunk_rows(self, rows: int, complete: bool) -> int:
        """Rows a chunk file holds: a complete array smaller than one chunk is cut to its rows."""
        return rows if complete and 0 < rows < self.chunk_rows else self.chunk_rows

    def document(self, rows: int, complete: bool = False) -> bytes:
        """Bytes of the array's ``zarr.json``."""
        codec: dict[str, Any] = {"name": "bytes"}
        if self.dtype.itemsize > 1:
            codec["configuration"] = {"endian": "little"}
        chunk_shape = [self.stored_chunk_rows(rows, complete), *self.row_shape]
        return _document(
            {
                "shape": [rows, *self.row_shape],
                "data_type": self.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
                "fill_value": 0.0 if self.dtype.kind == "f" else 0,
                "codecs": [codec],
                "attributes": {},
                "dimension_names": ["sample", *self.row_dimensions],
                "zarr_format": 3,
                "node_type": "array",
                "storage_transformers": [],
            }
        )


def array_layout(name: str, dtype: DTypeLike, axes: Mapping[str, int]) -> ArrayLayout:
    """Layout of an array whose rows have these axes (name and length), in chunks of about 4 MiB."""
    one = ArrayLayout(name, np.dtype(dtype).newbyteorder("<"), tuple(axes.values()), tuple(axes), 1)
    return replace(one, chunk_rows=max(1, CHUNK_BYTES // one.row_bytes))


def number_layout(name: str, dtype: DTypeLike) -> ArrayLayout:
    """Layout of one number per sample."""
    return ArrayLayout(name, np.dtype(dtype).newbyteorder("<"), (), (), NUMBER_CHUNK_ROWS)


class Schema(ABC):
    """Which rows a kind of store has; writer, reader and verification learn from here all they know of them.

    A store is divided into parts, a part into groups of rows of one shape, and a group has an array for each of
    ``array_names``, in this order, then one for each column (a number per row) that its writer declared.

    Attributes
    ----------
    noun : what messages call such a store
    attribute : name of the root attribute under which its settings are kept
    array_names : the arrays of every group
    group_field : what the line of a row calls its group
    line_fields : fields whose type is checked in every line that has them
    required_fields : fields, of type text, that every line has
    """

    noun: ClassVar[str]
    attribute: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]
    group_field: ClassVar[str]
    line_fields: ClassVar[Mapping[str, LineField]] = {"row": WHOLE, "key": TEXT, "source": TEXT}
    required_fields: ClassVar[tuple[str, ...]] = ("key", "source")

    @property
    @abstractmethod
    def parts(self) -> int:
        """Number of parts the sources are divided into."""

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Attributes of the root group."""

    @abstractmethod
    def require_same(self, attributes: Mapping[str, Any], where: Path, remedy: str) -> None:
        """StoreMismatch that ends with ``remedy``, unless the store at ``where`` has the same settings."""

    @abstractmethod
    def group_order(self, name: str) -> tuple[int, ...] | None:
        """Place of a group among others; None when the name is not that of a group."""

    @abstractmethod
    def arrays(self, group: str) -> list[ArrayLayout]:
        """The arrays of a group, without columns."""

    def problems_in(self, layout: ArrayLayout, rows: NDArray[Any], path: Path | str) -> Iterator[str]:
        """What no writer has put into a chunk of an array, one sentence each."""
        yield from ()

    def in_order(self, groups: Iterable[str]) -> list[str]:
        """Names of groups as they follow one another in a part."""
        return sorted(groups, key=lambda name: self.group_order(name) or ())

    def layouts(self, group: str, columns: Mapping[str, str]) -> list[ArrayLayout]:
        """Every array of a group: its own, then the declared columns."""
        return [*self.arrays(group), *(number_layout(name, dtype) for name, dtype in columns.items())]

    def declare(self, columns: Iterable[tuple[str, DTypeLike]]) -> dict[str, str]:
        """Plain dtype name of each column; ValueError for one that cannot be."""
        declared = {name: np.dtype(dtype).name for name, dtype in columns}
        for name, dtype in declared.items():
            if not self.is_column(name, dtype):
                raise ValueError(f"there can be no column {name!r} of {dtype}")
        return declared

    def is_column(self, name: str, dtype: Any) -> bool:
        """Whether a writer or a commit record may declare such a column."""
        named = _COLUMN_NAME.fullmatch(name) is not None and name not in self.array_names
        return named and isinstance(dtype, str) and dtype in _COLUMN_DTYPES


def group_document(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Bytes of a group's ``zarr.json``."""
    return _document({"attributes": dict(attributes or {}), "zarr_format": 3, "node_type": "group"})


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
