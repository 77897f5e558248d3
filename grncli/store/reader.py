"""Reading a bit store: many parts and grids as one sequence of samples.

Samples are numbered part by part, in a part by grid in ascending (t, h, w), in a grid by row. What is read is a
snapshot of what was committed at opening; in a store that is written further, later openings may number otherwise.
"""

import hashlib
import operator
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grncli.runtime.errors import StoreError
from grncli.store.fingerprint import Fingerprint, read_fingerprint
from grncli.store.layout import COMPLETE, FAILURES, SAMPLES, Grid, grid_name, parse_part, part_name
from grncli.store.record import PartRecord, read_record, require_consistent
from grncli.store.samplelines import SampleLines
from grncli.store.segments import ChunkFiles, Segment, stored_arrays
from grncli.store.textlog import read_failures, unresolved

Bits = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Sample:
    """One sample; ``bits`` [t, h, w, M, ceil(C / 8)] is the caller's own, ``label`` -1 when it has none."""

    index: int
    grid: Grid
    bits: Bits
    label: int


@dataclass(frozen=True)
class PartSummary:
    """What one part holds: ``position`` of its ``sources`` (None = unknown) are processed, ``failed`` unread."""

    part: int
    samples: int
    position: int
    sources: int | None
    failed: int
    complete: bool


def open_store(path: str | Path) -> "BitStore":
    """Open a bit store for reading, also while other processes write it; StoreError when it cannot be."""
    return BitStore(Path(path))


class BitStore:
    """The committed samples of a store, as they were when it was opened.

    Holds no lock and, once pickled to a worker process, nothing but the commit records.

    Attributes
    ----------
    fingerprint : what the store was made with
    complete : whether every part was finished
    parts : a summary of each part
    grids : samples of each latent grid
    columns : dtype of each further number per sample, by name
    """

    def __init__(self, path: Path) -> None:
        """Use ``open_store``."""
        self.path = path
        self.fingerprint: Fingerprint = read_fingerprint(path)
        # The marker first: a writer that goes on takes it away before it touches its record.
        marked = (path / COMPLETE).exists()
        there = {parse_part(name) for name in os.listdir(path)}
        parts = range(self.fingerprint.parts)
        records = [read_record(path / part_name(part)) if part in there else None for part in parts]
        self.parts = [_summary(part, record or PartRecord()) for part, record in enumerate(records)]
        self.complete = marked and all(part.complete for part in self.parts)
        self.columns = next((dict(record.columns) for record in records if record is not None), {})
        self._segments: list[Segment] = []
        self._lines: dict[Path, SampleLines] = {}
        self._failures: list[tuple[Path, int]] = []
        self._length = 0
        files = ChunkFiles()
        for part, record in enumerate(records):
            if record is not None:
                self._add_part(path / part_name(part), record, files)
        self._starts = [segment.start for segment in self._segments]
        found = sorted({segment.grid for segment in self._segments})
        self._views = {g: GridView([s for s in self._segments if s.grid == g]) for g in found}
        self.grids = {grid: len(view) for grid, view in self._views.items()}

    @property
    def rounds(self) -> int:
        """Number of rounds M."""
        return self.fingerprint.rounds

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.fingerprint.channels

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels (frames, height, width) per latent token."""
        return self.fingerprint.stride

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; a sample's label is an index into them."""
        return self.fingerprint.labels

    @property
    def nbytes(self) -> int:
        """Bytes of all bits."""
        return sum(segment.bits.nbytes for segment in self._segments)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        segment, row = self._locate(index)
        return Sample(segment.start + row, segment.grid, segment.read_row(row), segment.labels().item(row))

    def read(self, indices: ArrayLike, rounds: int | None = None) -> Bits:
        """Bits [n, t, h, w, m, bytes] of samples of one grid, in the order given.

        Raises
        ------
        ValueError
            If the samples are of several grids, or ``rounds`` is not 1 to M.
        """
        wanted = _checked(indices, self._length)
        if not wanted.size:
            raise ValueError("no samples asked for, so the grid is not known; use store.grid(...).read")
        which = np.searchsorted(self._starts, wanted, "right") - 1
        rows, grids = np.empty_like(wanted), set()
        for i in np.unique(which).tolist():
            segment = self._segments[i]
            grids.add(segment.grid)
            inside = which == i
            rows[inside] = wanted[inside] - segment.start + self._views[segment.grid].start_of(segment)
        if len(grids) > 1:
            raise ValueError(f"the samples are of several grids: {_listed(grids)}")
        return self._views[grids.pop()].read(rows, rounds)

    def grid_of(self, index: int) -> Grid:
        """Latent grid of one sample, without reading it."""
        return self._locate(index)[0].grid

    def grid(self, grid: Grid) -> "GridView":
        """The samples of one grid; StoreError when there are none."""
        if grid not in self._views:
            held = _listed(self._views) or "none at all"
            raise StoreError(
                f"{self.path} has no samples of grid {grid_name(grid)}, it has {held}; choose one of these."
            )
        return self._views[grid]

    def record(self, index: int) -> dict[str, Any]:
        """The line of one sample in ``samples.jsonl``; the first call reads through its part's file."""
        segment, row = self._locate(index)
        return self._lines[segment.part].record(segment.grid, row)

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of all samples, in the order of the store."""
        for lines in self._lines.values():
            yield from lines.records()

    def failures(self) -> Iterator[dict[str, Any]]:
        """Sources that could not be read, and were not since: ``source``, ``position``, ``error``."""
        for path, size in self._failures:
            yield from unresolved(read_failures(path, size)).values()

    def digest(self) -> str:
        """Hash of the commit records, hence of the checksums of all bits: a store made anew has another."""
        digest = hashlib.sha256()
        for record in sorted(self.path.glob("part-*/commit.json")):
            digest.update(record.read_bytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<BitStore {self.path}: {self._length} samples, M={self.rounds}, C={self.channels}, {state}>"

    def _add_part(self, directory: Path, record: PartRecord, files: ChunkFiles) -> None:
        require_consistent(record, directory, self.rounds, self.channels)
        for grid, committed in record.grids.items():
            arrays = stored_arrays(directory, record, grid, self.rounds, self.channels)
            self._segments.append(Segment(directory, grid, self._length, arrays, files))
            self._length += committed.rows
        rows = {grid: committed.rows for grid, committed in record.grids.items()}
        self._lines[directory] = SampleLines(directory / SAMPLES, record.samples_bytes, rows)
        self._failures.append((directory / FAILURES, record.failures_bytes))

    def _locate(self, index: int) -> tuple[Segment, int]:
        """Segment and its row of one sample; negative numbers count from the end."""
        position = operator.index(index)
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        segment = self._segments[bisect_right(self._starts, position) - 1]
        return segment, position - segment.start


class GridView:
    """All samples of one grid; its rows count through the parts.

    Attributes
    ----------
    grid : latent (t, h, w)
    row_shape : (t, h, w, M, bytes) of one sample
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Use ``BitStore.grid``."""
        self.grid = segments[0].grid
        self.row_shape = segments[0].row_shape
        self._layout = segments[0].bits.layout
        self._segments = segments
        # First row of each segment, and the number of rows after the last.
        self._starts = np.cumsum([0, *(segment.rows for segment in segments)])
        self._labels: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def indices(self) -> NDArray[np.int64]:
        """The store's index of each row, ascending."""
        return np.concatenate([np.arange(s.start, s.start + s.rows, dtype=np.int64) for s in self._segments])

    def read(self, rows: ArrayLike, rounds: int | None = None) -> Bits:
        """Bits [n, t, h, w, m, bytes] of ``rows`` in the order given; the first ``rounds`` rounds, or all."""
        places = _checked(rows, len(self))
        kept = self._kept(rounds)
        bits = np.empty((len(places), *self.row_shape), np.uint8)
        target, size = bits.reshape(-1).data, self._layout.row_bytes
        for segment, chunk, first, place, count in self._runs(places):
            segment.read_into(target[place * size : (place + count) * size], chunk, first)
        return _first_rounds(bits, kept)

    def labels(self, rows: ArrayLike | None = None) -> NDArray[np.int32]:
        """Labels [n] of ``rows``, or of all."""
        if self._labels is None:
            self._labels = np.concatenate([segment.labels() for segment in self._segments])
        return self._labels.copy() if rows is None else self._labels[_checked(rows, len(self))]

    def chunks(self, rounds: int | None = None) -> Iterator[tuple[int, Bits]]:
        """First row and bits of one chunk file after the other: the fastest way through a whole store."""
        kept = self._kept(rounds)
        for start, segment in zip(self._starts.tolist(), self._segments, strict=False):
            for first, bits in segment.chunks():
                yield start + first, _first_rounds(bits, kept)

    def column(self, name: str) -> NDArray[Any]:
        """A declared number of every row."""
        return np.concatenate([segment.column(name) for segment in self._segments])

    def start_of(self, segment: Segment) -> int:
        """Row of this view at which a segment starts."""
        return int(self._starts[self._segments.index(segment)])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_labels": None}

    def _kept(self, rounds: int | None) -> int:
        available = self.row_shape[3]
        if rounds is not None and not 1 <= rounds <= available:
            raise ValueError(f"{rounds} rounds asked for, there are 1 to {available}")
        return rounds or available

    def _runs(self, places: NDArray[np.int64]) -> Iterator[tuple[Segment, int, int, int, int]]:
        """(segment, chunk, row in chunk, place in the result, count) of stretches that one read can fetch.

        In the order of the files, which disks and the kernel's read-ahead like best.
        """
        order = np.argsort(places, kind="stable")
        rows = places[order]
        which = np.searchsorted(self._starts, rows, "right") - 1
        chunks, firsts = np.divmod(rows - self._starts[which], self._layout.chunk_rows)
        breaks = (np.diff(rows) != 1) | (np.diff(order) != 1) | (firsts[1:] == 0)
        heads = np.flatnonzero(np.concatenate([[True], breaks])[: len(rows)])
        counts = np.diff(heads, append=len(rows))
        columns = (which[heads], chunks[heads], firsts[heads], order[heads], counts)
        for segment, *run in zip(*(column.tolist() for column in columns), strict=True):
            yield (self._segments[segment], *run)


def _summary(part: int, record: PartRecord) -> PartSummary:
    return PartSummary(part, record.samples, record.position, record.sources, record.failed, record.complete)


def _checked(numbers: ArrayLike, length: int) -> NDArray[np.int64]:
    """Row or sample numbers as an array; negative ones do not count from the end."""
    given = np.asarray(numbers)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"expected a sequence of integers, got {given.dtype} {given.shape}")
    if given.size and not 0 <= given.min() <= given.max() < length:
        raise IndexError(f"{given.min()} to {given.max()} asked for, there are {length}")
    return given.astype(np.int64, copy=False)


def _first_rounds(bits: Bits, rounds: int) -> Bits:
    return bits if rounds == bits.shape[-2] else np.ascontiguousarray(bits[..., :rounds, :])


def _listed(grids: Any) -> str:
    return ", ".join(grid_name(grid) for grid in sorted(set(grids)))
