"""Batches of packed bits from stores, in an order that depends on (seed, step) only.

Samples of one latent grid are shuffled within *windows* of chunk files, which are shuffled themselves: a store that
fits into the buffer is one window, shuffled as a whole and kept in memory; of a larger one, chunk after chunk is read
from end to end and never a sample alone. An epoch visits every sample once; batches may reach over its end.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.datasets.shuffled_windows import BLOCK_BYTES, Numbers, ShuffledWindows
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import Bits
from grncli.runtime.errors import RecipeError, StoreError
from grncli.runtime.overlap import Prefetcher
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import BitStore, Grid, GridView, grid_name
from grncli.store.bits import BITS
from grncli.training.objective import Batch

EXPECTED_BYTES = 1 << 30  # of the next window of a remote store that are fetched while one is used


@dataclass(frozen=True)
class GridSamples:
    """All samples of one latent grid, over several stores."""

    grid: Grid
    views: Sequence[GridView]
    names: Sequence[str]  # of the stores
    labels: NDArray[np.int32]  # into the class names of all stores, -1 for none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.views[0].row_shape))

    def read(self, rows: Numbers) -> NDArray[np.uint8]:
        """Packed bits ``[n, t, h, w, M, bytes]`` of rows that count through the stores, in the order given."""
        if len(self.views) == 1:
            return self.views[0].read(rows)
        which, within = self._places(rows)
        bits = np.empty((len(rows), *self.views[0].row_shape), np.uint8)
        for i in np.unique(which).tolist():
            inside = which == i
            bits[inside] = self.views[i].read(within[inside])
        return bits

    @property
    def is_remote(self) -> bool:
        """Whether any of the stores is behind a URL."""
        return any(view.is_remote for view in self.views)

    def expect(self, rows: Numbers) -> None:
        """Say that ``rows`` are going to be read, so that those of remote stores are fetched from here on."""
        which, within = self._places(rows)
        for i in np.unique(which).tolist():
            self.views[i].expect_rows(BITS, within[which == i])

    def keys(self, rows: Numbers) -> tuple[str, ...]:
        """What to call samples by in a message."""
        grid = grid_name(self.grid)
        places = zip(*(part.tolist() for part in self._places(rows)), strict=True)
        return tuple(f"{self.names[store]} {grid} row {row}" for store, row in places)

    def _places(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Store of each row, and its row there."""
        starts = np.cumsum([0, *(len(view) for view in self.views)])
        which = np.searchsorted(starts, rows, "right") - 1
        return which, rows - starts[which]


def combine_stores(stores: Sequence[BitStore]) -> tuple[Bits, list[GridSamples]]:
    """What the stores hold together: settings for the recipe, and the samples of each grid.

    Raises
    ------
    StoreMismatch
        If they were made by different tokenizers, or with different rounds or channels.
    StoreError
        If there is no sample.
    """
    first = stores[0]
    names = list(dict.fromkeys(name for store in stores for name in store.labels))
    for store in stores[1:]:
        remedy = "train on stores that were made alike"
        require_fit(BitFormat.of_store(store), BitFormat.of_store(first), remedy, alike=True)
    if not any(len(store) for store in stores):
        raise StoreError(f"{', '.join(str(store.path) for store in stores)}: no sample to train on; tokenize more")
    grids = sorted({grid for store in stores for grid in store.grids})
    samples = []
    for grid in grids:
        own = [store for store in stores if grid in store.grids]
        labels = [_renamed(store.grid(grid).labels(), store.labels, names) for store in own]
        views, paths = [store.grid(grid) for store in own], [str(store.path) for store in own]
        samples.append(GridSamples(grid, views, paths, labels[0] if len(labels) == 1 else np.concatenate(labels)))
    rates = {store.fingerprint.preprocessing.get("fps") for store in stores}
    bits = Bits(
        tokenizer=dict(first.fingerprint.tokenizer),
        stride=first.stride,
        labels=tuple(names),
        grids={grid_name(part.grid): len(part) for part in samples},
        stores=tuple(store.digest() for store in stores),
        fps=rates.pop() if len(rates) == 1 else None,
    )
    return bits, samples


class BitLoader:
    """Reads the batches of steps ahead of the network; of several processes each its share.

    Parameters
    ----------
    batch : samples of all processes together
    buffer : bytes that are shuffled together
    validation : samples of the most frequent grid that are held out
    """

    def __init__(
        self,
        samples: Sequence[GridSamples],
        *,
        batch: int,
        buffer: float,
        validation: int = 0,
        seed: int = 0,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self.batch = batch
        self.processes = processes
        self._held_out = (most_frequent(samples), np.empty(0, np.int64))
        check_validation(samples, validation)
        total = sum(len(part) for part in samples)
        orders = []
        for number, part in enumerate(samples):
            rows = np.arange(len(part))
            if validation and part is self._held_out[0]:
                drawn = np.random.default_rng([seed, number]).permutation(rows)
                self._held_out = part, np.sort(drawn[:validation])
                rows = np.sort(drawn[validation:])
            orders.append(Order(part, rows, seed=seed, number=number, buffer=buffer * len(part) / total))
        self._orders = orders
        self.epoch_samples = sum(len(order) for order in orders)

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on, uint8 ``[B, t, h, w, M, bytes]``; a thread reads ahead of the network."""
        with Prefetcher(self._read(first_step), depth=4) as ahead:
            yield from ahead

    def held_out(self) -> Iterator[Batch]:
        """What is held out, in batches of this process's size."""
        samples, rows = self._held_out
        size = self.batch // self.processes.count
        for start in range(0, len(rows), size):
            yield _batch(samples, rows[start : start + size], np.arange(start, min(start + size, len(rows))))

    def _read(self, first_step: int) -> Iterator[Batch]:
        # A step has one grid. They take turns by their share of the samples, from the first step on.
        shares = np.array([len(order) for order in self._orders]) / self.epoch_samples
        taken = np.zeros(len(shares), np.int64)
        for step in count():
            turn = int(np.argmax(shares * (step + 1) - taken))
            if step >= first_step:
                places = taken[turn] * self.batch + np.arange(self.batch)
                numbers = step * self.batch + np.arange(self.batch)
                mine = slice(self.processes.rank, None, self.processes.count)
                yield self._orders[turn].read(places[mine], numbers[mine])
            taken[turn] += 1


class Order:
    """The endless sequence of one grid's samples: every epoch all ``rows``, shuffled anew."""

    def __init__(self, samples: GridSamples, rows: Numbers, *, seed: int, number: int, buffer: float) -> None:
        self.samples = samples
        block = max(1, BLOCK_BYTES // samples.row_bytes)
        together = max(1, int(buffer // (block * samples.row_bytes)))
        self._windows = ShuffledWindows(rows, block=block, together=together, entropy=[seed, number])
        self._loaded: tuple[tuple[int, int], Numbers, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self._windows.rows)

    def read(self, places: Numbers, numbers: Numbers) -> Batch:
        """The samples at ascending ``places`` of the sequence, as a batch whose samples are called ``numbers``."""
        epochs, offsets = np.divmod(places, len(self))
        parts = []
        for epoch in np.unique(epochs).tolist():
            inside = offsets[epochs == epoch]
            ends = self._windows.ends(epoch)
            which = np.searchsorted(ends, inside, "right")
            for window in np.unique(which).tolist():
                start = ends[window - 1] if window else 0
                rows, bits = self._window(epoch, window)
                order = self._windows.order(epoch, window, len(rows))[inside[which == window] - start]
                parts.append((rows[order], bits[order]))
        rows, bits = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _batch(self.samples, rows, numbers, bits)

    def _window(self, epoch: int, window: int) -> tuple[Numbers, NDArray[np.uint8]]:
        """Rows of a window and their bits; the last one asked for is kept."""
        key = (0, 0) if self._windows.whole else (epoch, window)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # two would not fit
            rows = self._windows.stored(epoch, window)
            self._loaded = key, rows, self.samples.read(rows)
            if self.samples.is_remote and not self._windows.whole:
                self._expect_window_after(epoch, window)
        return self._loaded[1:]

    def _expect_window_after(self, epoch: int, window: int) -> None:
        last = window + 1 == len(self._windows.ends(epoch))
        rows = self._windows.stored(epoch + 1, 0) if last else self._windows.stored(epoch, window + 1)
        self.samples.expect(rows[: EXPECTED_BYTES // self.samples.row_bytes])


def most_frequent(samples: Sequence[GridSamples]) -> GridSamples:
    """Those of the grid that has most samples."""
    return max(samples, key=len)


def check_validation(samples: Sequence[GridSamples], validation: int) -> None:
    """Raise RecipeError if nothing would be left to train on."""
    available = len(most_frequent(samples))
    if validation >= available:
        raise RecipeError(f"data.validation is {validation}, expected less than the {available} samples")


def _batch(samples: GridSamples, rows: Numbers, numbers: Numbers, bits: NDArray[np.uint8] | None = None) -> Batch:
    bits = samples.read(rows) if bits is None else bits
    labels = samples.labels[rows].astype(np.int64)
    return Batch(torch.from_numpy(bits), samples.keys(rows), torch.from_numpy(labels), torch.from_numpy(numbers))


def _renamed(labels: NDArray[np.int32], own: Sequence[str], names: Sequence[str]) -> NDArray[np.int32]:
    """Labels of one store in the class names of all."""
    if tuple(own) == tuple(names):
        return labels
    numbers = {name: number for number, name in enumerate(names)}
    table = np.array([*(numbers[name] for name in own), -1], np.int32)  # -1 picks the last
    return table[labels]
