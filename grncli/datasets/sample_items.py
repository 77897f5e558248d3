"""Samples of a bit store as dictionaries: what each holds, and in which form the bits are."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from grncli.datasets.shuffled_windows import Numbers
from grncli.hbq import index_to_bits, unpack
from grncli.runtime.errors import UsageError
from grncli.store import BitStore, Grid, Sample, open_store
from grncli.store.caption_index import CaptionIndex

Field = Literal["bits", "label", "index", "key", "source", "caption", "captions"]
Form = Literal["bits", "index", "packed"]
Item = dict[str, Any]

_OF_LINES = {"key", "source", "caption", "captions"}  # what takes the sample's line in samples.jsonl


class SampleItems:
    """Samples of a store, or of one grid of it, as dictionaries of what was asked for; see `BitDataset`.

    Attributes
    ----------
    store : the opened bit store
    row_bytes : packed bytes of an average sample

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
        fields: Collection[Field],
        form: Form,
        rounds: int | None,
        grid: Grid | None,
    ) -> None:
        self.store = store if isinstance(store, BitStore) else open_store(store)
        self._fields = _checked(fields, get_args(Field))
        (self._form,) = _checked([form], get_args(Form))
        if rounds is not None and not 1 <= rounds <= self.store.rounds:
            raise UsageError(f"rounds is {rounds}, {self.store.path} holds {self.store.rounds}; expected 1 to that")
        self._rounds = rounds or self.store.rounds
        views = [self.store.grid(each) for each in (self.store.grids if grid is None else [grid])]
        self._numbers = None if grid is None else views[0].indices
        total = sum(len(view) * int(np.prod(view.row_shape)) for view in views)
        self.row_bytes = max(1, total // max(1, len(self)))
        self._wants_captions = bool({"caption", "captions"}.intersection(self._fields))
        self._captions = CaptionIndex(self.store)

    def __len__(self) -> int:
        return len(self.store) if self._numbers is None else len(self._numbers)

    def fetch(self, places: Numbers | Sequence[int]) -> list[Sample]:
        """Packed bits and labels of samples, by their place among all of them, in the order given."""
        wanted = np.asarray(places, np.int64)
        return self.store.samples((wanted if self._numbers is None else self._numbers[wanted]).tolist(), self._rounds)

    def items(self, samples: Sequence[Sample]) -> list[Item]:
        """What was asked for of samples that were fetched, those that follow each other in one grid at a time."""
        items: list[Item] = []
        for _, alike in groupby(samples, key=lambda sample: sample.grid):
            items += self._of_one_grid(list(alike))
        return items

    def _of_one_grid(self, samples: Sequence[Sample]) -> list[Item]:
        columns: dict[str, Iterable[Any]] = {}
        if "bits" in self._fields:
            columns["bits"] = self._formed(torch.from_numpy(np.stack([sample.bits for sample in samples])))
        if _OF_LINES.intersection(self._fields):
            lines = list(self.store.records(sample.index for sample in samples))
            columns |= {name: [line[name] for line in lines] for name in ("key", "source")}
            if self._wants_captions:
                places = [self.store.place_of(sample.index)[0] for sample in samples]
                said = map(self._captions.of_sample, places, lines)
                texts = [[caption.text for caption in some] for some in said]
                columns |= {"captions": texts, "caption": [some[0] if some else "" for some in texts]}
        columns["label"] = [sample.label for sample in samples]
        columns["index"] = [sample.index for sample in samples]
        rows = zip(*(columns[name] for name in self._fields), strict=True)
        return [dict(zip(self._fields, row, strict=True)) for row in rows]

    def _formed(self, packed: Tensor) -> Tensor:
        """``[n, t, h, w, m, bytes]`` in the form asked for, ``[n, ...]``."""
        if self._form == "packed":
            return packed
        index = unpack(packed, self.store.channels)
        if self._form == "index":
            return index
        return index_to_bits(index, self._rounds).view(len(index), self._rounds, *index.shape[1:])


def _checked(names: Collection[Any], known: Sequence[str]) -> tuple[Any, ...]:
    if not names:
        raise UsageError(f"fields is empty, expected some of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} is none of what a sample can be given as, expected of {', '.join(known)}")
    return tuple(names)
