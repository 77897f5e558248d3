"""Names, sizes and Zarr v3 documents of the bit store.

The documents are written here as plain JSON: they are small and fixed by the Zarr v3 specification, and importing
zarr-python takes three times as long as opening a store. The tests read them with zarr-python and xarray.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
CHUNK_BYTES = 4 << 20
NUMBER_CHUNK_ROWS = 65536

METADATA = "zarr.json"
COMMIT = "commit.json"
SAMPLES = "samples.jsonl"
FAILURES = "failures.jsonl"
COMPLETE = "COMPLETE"
LOCK = ".lock"
OVERWRITING = ".overwriting"  # in a part that --overwrite began, until it is complete

BITS = "bits"
LABEL = "label"

Grid = tuple[int, int, int]

_GRID_NAME = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)x([1-9][0-9]*)")
_PART_NAME = re.compile(r"part-([0-9]{5,})")
_CHUNK_NAME = re.compile(r"c\.([0-9]+)[.0]*")
_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN_KINDS = "iuf"
_COLUMN_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_COLUMN_DTYPES |= {"float16", "float32", "float64"}


def part_name(part: int) -> str:
    """Directory of part number ``part``."""
    return f"part-{part:05d}"


def parse_part(name: str) -> int | None:
    """Part number of a directory name, None when it is not a part."""
    match = _PART_NAME.fullmatch(name)
    return int(match[1]) if match else None


def grid_name(grid: Grid) -> str:
    """Directory of a latent grid, ``TxHxW``."""
    return "x".join(str(n) for n in grid)


def parse_grid(name: str) -> Grid | None:
    """Latent grid of a directory name, None when it is not one."""
    match = _GRID_NAME.fullmatch(name)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True)
class RowLayout:
    """How one array, a row per sample, lies in raw chunk files."""

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

    def chunk_path(self, array: Path, chunk: int) -> Path:
        """File of one chunk: Zarr's default key with dots, as slashes make six directories for each chunk."""
        return array / ".".join(["c", str(chunk), *("0" for _ in self.row_shape)])

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


def bits_layout(grid: Grid, rounds: int, channels: int) -> RowLayout:
    """Layout of ``bits`` [sample, time, height, width, round, byte] in chunks of about 4 MiB."""
    row_shape = (*grid, rounds, bytes_per_round(channels))
    chunk_rows = max(1, CHUNK_BYTES // math.prod(row_shape))
    dimensions = ("time", "height", "width", "round", "byte")
    return RowLayout(BITS, np.dtype(np.uint8), row_shape, dimensions, chunk_rows)


def number_layout(name: str, dtype: str) -> RowLayout:
    """Layout of one number per sample: the label, or a declared column."""
    return RowLayout(name, np.dtype(dtype).newbyteorder("<"), (), (), NUMBER_CHUNK_ROWS)


def grid_layouts(grid: Grid, rounds: int, channels: int, columns: Mapping[str, str]) -> list[RowLayout]:
    """Every array of a grid group: bits, label, then the declared columns."""
    numbers = [number_layout(name, dtype) for name, dtype in columns.items()]
    return [bits_layout(grid, rounds, channels), number_layout(LABEL, "int32"), *numbers]


def bytes_per_round(channels: int) -> int:
    """Bytes that one round's plane of one token takes."""
    return -(-channels // 8)


def check_column(name: str, dtype: Any) -> tuple[str, str]:
    """Name and plain dtype name of a declared column; ValueError when it cannot be one."""
    if not _COLUMN_NAME.fullmatch(name) or name in (BITS, LABEL):
        raise ValueError(f"{name!r} cannot be a column name")
    plain = np.dtype(dtype)
    if plain.kind not in _COLUMN_KINDS or plain.itemsize > 8:
        raise ValueError(f"column {name!r} cannot hold {plain.name}")
    return name, plain.name


def is_stored_column(name: str, dtype: Any) -> bool:
    """Whether a commit record may declare such a column."""
    named = _COLUMN_NAME.fullmatch(name) is not None and name not in (BITS, LABEL)
    return named and isinstance(dtype, str) and dtype in _COLUMN_DTYPES


def group_document(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Bytes of a group's ``zarr.json``."""
    return _document({"attributes": dict(attributes or {}), "zarr_format": 3, "node_type": "group"})


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
