"""Reading a bit store: the bits of many parts and grids as one sequence of samples."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import located
from grncli.store.bits import BITS, LABEL, BitSchema, Grid, grid_name, grid_of
from grncli.store.fingerprint import read_fingerprint
from grncli.store.rows.byte_source import ByteSource
from grncli.store.rows.row_reader import GroupView, RowStore, checked
from grncli.store.rows.store_places import files_of
from grncli.store.rows.stored import Segment
from grncli.store.rows.verifying import verify_rows

Bits = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Sample:
    """One sample; ``bits`` [t, h, w, M, ceil(C / 8)] is the caller's own, ``label`` -1 when it has none."""

    index: int
    grid: Grid
    bits: Bits
    label: int


def open_store(path: str | Path) -> "BitStore":
    """Open a bit store for reading, also while other processes write it; StoreError when it cannot be.

    Parameters
    ----------
    path : folder, or URL of any scheme that fsspec knows; of a URL, RemoteError where the server cannot be read
    """
    return BitStore(located(path))


def verify_store(path: str | Path, monitor: Monitor | None = None) -> list[str]:
    """Check every committed byte of a store; the problems found, one sentence each, none when it is sound.

    Parameters
    ----------
    path : folder or URL of a store; it may be incomplete, or be written meanwhile
    monitor : gets the bytes of arrays checked, and those in all

    Raises
    ------
    StoreError
        If there is no store at ``path``.
    Unfinished
        If the monitor asked to stop.
    """
    source = files_of(path, cached=False)
    return verify_rows(source, BitSchema(read_fingerprint(source)), monitor or Monitor())


class BitStore(RowStore["GridView"]):
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

    def __init__(self, path: Path, source: ByteSource | None = None) -> None:
        """Use ``open_store``."""
        self.path = path
        source = source or files_of(path)
        self.fingerprint = read_fingerprint(source)
        super().__init__(source, BitSchema(self.fingerprint), GridView)
        self._grids = {name: grid_of(name) for name in self.groups}
        self.grids = {self._grids[name]: count for name, count in self.groups.items()}

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
        return sum(len(view) * view.layouts[BITS].row_bytes for view in self._views.values())

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """One sample, or those of a slice; negative numbers count from the end."""
        if isinstance(index, slice):
            return self.samples(range(len(self))[index])
        segment, row = self._locate(index)
        bits = segment.readers[BITS].read_row(segment.stored(row))
        return Sample(segment.start + row, self._grids[segment.group], bits, segment.kept_column(LABEL).item(row))

    def samples(self, indices: Iterable[int], rounds: int | None = None) -> list[Sample]:
        """Samples of any grids, in the order given; those of one grid are read together, and share memory.

        Parameters
        ----------
        rounds : only the first so many rounds of each

        Raises
        ------
        IndexError
            If there is no such sample.
        ValueError
            If ``rounds`` is not 1 to M.
        """
        samples: dict[int, Sample] = {}
        numbers = list(indices)
        by_grid: dict[Grid, list[int]] = defaultdict(list)
        for place, index in enumerate(numbers):
            by_grid[self.grid_of(index)].append(place)
        for grid, places in by_grid.items():
            view, own = self.grid(grid), [numbers[place] for place in places]
            _, rows = self._locate_all(own)
            for place, index, bits, label in zip(
                places, own, view.read(rows, rounds), view.labels(rows).tolist(), strict=True
            ):
                samples[place] = Sample(index, grid, bits, label)
        return [samples[place] for place in range(len(numbers))]

    def read(self, indices: ArrayLike, rounds: int | None = None) -> Bits:
        """Bits [n, t, h, w, m, bytes] of samples of one grid, in the order given.

        Raises
        ------
        ValueError
            If the samples are of several grids, or ``rounds`` is not 1 to M.
        """
        grids, rows = self._locate_all(indices)
        if not grids:
            raise ValueError("no samples asked for, so the grid is not known; use store.grid(...).read")
        if len(grids) > 1:
            raise ValueError(f"the samples are of several grids: {', '.join(grids)}")
        return self.group(grids[0]).read(rows, rounds)

    def grid_of(self, index: int) -> Grid:
        """Latent grid of one sample, without reading it."""
        return self._grids[self._locate(index)[0].group]

    def sources(self) -> dict[str, int]:
        """Every source that has samples, with the first part that has some; reads through every ``samples.jsonl``."""
        first: dict[str, int] = {}
        for number, part in self._parts.items():
            for line in part.lines.records():
                first.setdefault(line["source"], number)
        return first

    def grid(self, grid: Grid) -> "GridView":
        """The samples of one grid; StoreError when there are none."""
        return self.group(grid_name(grid))

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<BitStore {self.path}: {len(self)} samples, M={self.rounds}, C={self.channels}, {state}>"


class GridView(GroupView):
    """All samples of one grid; its rows count through the parts.

    Attributes
    ----------
    grid : latent (t, h, w)
    row_shape : (t, h, w, M, bytes) of one sample
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Use ``BitStore.grid``."""
        super().__init__(segments)
        self.grid = grid_of(self.name)
        self.row_shape = self.layouts[BITS].row_shape
        self._labels: NDArray[np.int32] | None = None

    def read(self, rows: ArrayLike, rounds: int | None = None) -> Bits:
        """Bits [n, t, h, w, m, bytes] of ``rows`` in the order given; the first ``rounds`` rounds, or all."""
        available = self.row_shape[3]
        if rounds is not None and not 1 <= rounds <= available:
            raise ValueError(f"{rounds} rounds asked for, there are 1 to {available}")
        bits = self.read_rows(BITS, rows)
        return bits if rounds in (None, available) else np.ascontiguousarray(bits[..., :rounds, :])

    def labels(self, rows: ArrayLike | None = None) -> NDArray[np.int32]:
        """Labels [n] of ``rows`` in the order given, or of all."""
        if self._labels is None:
            self._labels = self.column(LABEL)
        return self._labels.copy() if rows is None else self._labels[checked(rows, len(self))]

    def chunks(self) -> Iterator[tuple[int, Bits]]:
        """First row and bits of one chunk file after the other: the fastest way through a whole store."""
        return self.chunks_of(BITS)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_labels": None}
