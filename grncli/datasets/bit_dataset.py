"""``grncli.BitDataset``: a bit store as a dataset of PyTorch whose samples are read by number."""

import operator
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import overload

from torch.utils.data import Dataset

from grncli.datasets.sample_items import Field, Form, Item, SampleItems
from grncli.store import BitStore, Grid


class BitDataset(Dataset[Item]):
    """The samples of a bit store for a `torch.utils.data.DataLoader`, by number.

    A sample is a dictionary of the ``fields`` asked for, in their order; PyTorch's own collation makes batches of them
    where all are of one grid. It holds no lock, can be pickled, and works in worker processes however they are started;
    what was committed when it was made is what it reads.

    Parameters
    ----------
    store : bit store, as a path or opened
    fields : of ``bits``; ``label``, a number into ``labels``, -1 for none; ``index``, the number in the store; ``key``;
        ``source``; ``caption``, the first one, empty where there is none; ``captions``, the list of all, which batches
        need a ``collate_fn`` for. All but the first three read a line of text for each sample
    form : of the bits, uint8: ``bits``, 0 or 1, [m, C, t, h, w], the coarsest round first; ``index``, 0 to 2**m - 1,
        [C, t, h, w], as `grncli.hbq.dequantize` takes them; ``packed`` as they are stored, [t, h, w, m, bytes]
    rounds : only the first m rounds; None for all
    grid : only samples of this latent (t, h, w); None for all

    Attributes
    ----------
    store : the opened bit store
    labels : names of the classes

    Raises
    ------
    UsageError
        If ``fields``, ``form`` or ``rounds`` is not among what there is.
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
    ) -> None:
        self._samples = SampleItems(store, fields=fields, form=form, rounds=rounds, grid=grid)
        self.store = self._samples.store
        self.labels = self.store.labels

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        """One sample, or those of a slice; negative numbers count from the end, IndexError beyond it."""
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Samples in the order given, which are read together: what a DataLoader asks for."""
        return self._samples.items(self._samples.fetch([self._place(index) for index in indices]))

    def _place(self, index: int) -> int:
        place, length = operator.index(index), len(self)
        if not -length <= place < length:
            span = f"expected {-length} to {length - 1}" if length else "it is empty"
            raise IndexError(f"sample {place} of {length} in {self.store.path}: {span}")
        return place % length

    def __repr__(self) -> str:
        return f"<BitDataset {self.store.path}: {len(self)} samples>"
