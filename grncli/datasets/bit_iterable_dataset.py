"""``grncli.BitIterableDataset``: a bit store as a shuffled stream for many ranks and worker processes."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from grncli.datasets.sample_items import Field, Form, Item, SampleItems
from grncli.datasets.shuffled_windows import BLOCK_BYTES, Numbers, ShuffledWindows
from grncli.runtime.errors import UsageError
from grncli.store import BitStore, Grid

_TOGETHER = 64  # samples that are unpacked at once
_OBJECT_BYTES = 400  # that a sample takes in memory besides its bits


class BitIterableDataset(IterableDataset[Item]):
    """The samples of a bit store for a `torch.utils.data.DataLoader`, shuffled, each once an epoch.

    The order of an epoch depends on the seed and the epoch only. Ranks take its samples in turn, and the workers of a
    rank its runs of ``batch`` samples, so that a DataLoader with this batch size makes the same batches with any number
    of workers. A store that is larger than the buffer is shuffled in windows of that size, and read from end to end
    once an epoch.

    Parameters
    ----------
    store, fields, form, rounds, grid : as `BitDataset` takes them
    batch : samples that a worker takes in turn: the batch size of the DataLoader
    seed : of the order
    buffer : bytes of samples that are shuffled together; workers and ranks together keep them in memory, packed
    rank, ranks : this process among those that share an epoch; None for what `torch.distributed` says, where it is
        initialized, else one alone
    drop_last : leave out the last samples of an epoch which do not fill a batch on every rank

    Attributes
    ----------
    store : the opened bit store
    labels : names of the classes
    batch : as it was given

    Raises
    ------
    UsageError
        If an option is out of range, or not among what there is.
    StoreError
        If there is no store, or no sample of ``grid`` in it.
    """

    def __init__(
        self,
        store: str | Path | BitStore,
        *,
        fields: Collection[Field] = ("bits", "label"),
        form: Form = "bits",
        rounds: int | None = None,
        grid: Grid | None = None,
        batch: int = 1,
        seed: int = 0,
        buffer: float = 256 << 20,
        rank: int | None = None,
        ranks: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self._samples = SampleItems(store, fields=fields, form=form, rounds=rounds, grid=grid)
        self.store = self._samples.store
        self.labels = self.store.labels
        together = dist.is_available() and dist.is_initialized()
        self._ranks = ranks if ranks is not None else dist.get_world_size() if together else 1
        self._rank = rank if rank is not None else dist.get_rank() if together else 0
        if (rank is None) != (ranks is None):
            raise UsageError(f"rank {rank} with ranks {ranks}: each process needs both; give both, or neither")
        if batch < 1 or seed < 0 or not 0 <= self._rank < self._ranks:
            raise UsageError(
                f"batch {batch}, seed {seed}, rank {self._rank} of {self._ranks}: expected a batch of 1 or more, a "
                "seed of 0 or more, and a rank from 0 to ranks - 1"
            )
        self.batch, self._seed, self._buffer = batch, seed, buffer
        count = len(self._samples)
        self._count = count - count % (batch * self._ranks) if drop_last else count
        # In memory that workers share with this process: some live for many epochs.
        self._epoch_and_start = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that iterations begun from here on go through.

        Parameters
        ----------
        epoch : 0 or more
        start : samples of it that all ranks together have had already, to resume: a multiple of ``batch`` times the
            number of ranks gives the batches of an epoch that was not interrupted

        Raises
        ------
        UsageError
            If ``epoch`` or ``start`` is negative, or there are fewer samples than ``start``.
        """
        if epoch < 0 or not 0 <= start <= self._count:
            raise UsageError(
                f"epoch {epoch} from sample {start} on: expected an epoch of 0 or more, and a start from 0 to "
                f"{self._count}, the samples of an epoch"
            )
        self._epoch_and_start[0], self._epoch_and_start[1] = epoch, start

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        return len(range(self._rank, self._count, self._ranks))

    def __iter__(self) -> Iterator[Item]:
        """The samples of this rank and worker, from the start that was set."""
        for places in self._shares():
            samples = self._samples.fetch(places)
            for first in range(0, len(samples), _TOGETHER):
                yield from self._samples.items(samples[first : first + _TOGETHER])

    def _shares(self) -> Iterator[Numbers]:
        """What of each window is this worker's, in its order."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch, start = self._epoch_and_start.tolist()
        windows = self._windows()
        first = 0
        for window, end in enumerate(windows.ends(epoch).tolist()):
            turns = np.arange(max(first, start), min(end, self._count)) - start
            batches = turns // self._ranks // self.batch
            mine = turns[(turns % self._ranks == self._rank) & (batches % workers == worker)] + start - first
            if len(mine):
                rows = windows.stored(epoch, window)
                yield rows[windows.order(epoch, window, len(rows))[mine]]
            first = end

    def _windows(self) -> ShuffledWindows:
        block = max(1, BLOCK_BYTES // self._samples.row_bytes)
        together = max(1, int(self._buffer // (block * (self._samples.row_bytes + _OBJECT_BYTES))))
        rows = np.arange(len(self._samples))
        return ShuffledWindows(rows, block=block, together=together, entropy=[self._seed])

    def __repr__(self) -> str:
        return f"<BitIterableDataset {self.store.path}: {len(self)} samples a rank and epoch>"
