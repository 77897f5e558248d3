"""Which samples a step of a text-conditional generator trains on: sequences of a fixed budget of tokens.

The plan is a pure function of (seed, epoch) and the numbers of tokens: whatever processes there are, and wherever a run
is resumed, the same samples are in the same steps, and nothing but numbers is computed to find them. An epoch is a
permutation of all samples, cut into *windows*. Caption, dropout and clean first frame are drawn before tokens are
counted, as a dropped prompt is shorter than a caption. Each window is packed by first-fit decreasing; its last sequence
stays open for the next window, also for the first one of the next epoch, so that no sample waits for long.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.rng import Purpose, uniform
from grncli.runs.generator_recipe import PackedData

Numbers = NDArray[np.int64]
Entries = NDArray[np.void]

RATIO_TOKENS = 1  # of each sample
NO_PROMPT = -1  # the first prompt of a sample that has no caption
DROPPED = -1  # the prompt of an entry that is trained without one
FEW_ITEMS = 4  # are placed one by one, which is quicker

ENTRY = np.dtype([("sample", "i8"), ("epoch", "i4"), ("prompt", "i4"), ("clean_first", "?"), ("tokens", "i4")])
"""A sample of a sequence: its number and that of its prompt, and whether its first frame is clean."""


@dataclass(frozen=True)
class TokenCounts:
    """How many tokens each sample has, by what is drawn for it.

    Parameters
    ----------
    visual : int32 ``[n]``
    first, prompts : int32 ``[n]``, the first of the sample's prompts and how many there are, 1 or more
    clean_first : int32 ``[n]``, the first of as many prompts for the sample with a clean first frame; -1 for none
    lengths : int32 ``[number of prompts]``, tokens of each
    empty : tokens of the empty prompt
    """

    visual: NDArray[np.int32]
    first: NDArray[np.int32]
    prompts: NDArray[np.int32]
    clean_first: NDArray[np.int32]
    lengths: NDArray[np.int32]
    empty: int

    def __len__(self) -> int:
        return len(self.visual)

    def most(self) -> Numbers:
        """The most tokens that each sample can have, ``[n]``."""
        longest = np.full(len(self), self.empty, np.int64)
        for firsts in (self.first, self.clean_first):
            for choice in range(int(self.prompts.max(initial=0))):
                known = (firsts >= 0) & (choice < self.prompts)
                longest[known] = np.maximum(longest[known], self.lengths[firsts[known] + choice])
        return longest + self.visual + RATIO_TOKENS


class PackingPlan:
    """The endless stream of sequences, and the steps that they make.

    Parameters
    ----------
    counts : of all samples; none of ``rows`` has more than ``data.tokens`` tokens
    rows : numbers of the samples to train on, ascending
    dropout, first_frame : shares of samples without their prompt, and of those with such prompts with a clean first
        frame
    """

    def __init__(
        self,
        counts: TokenCounts,
        rows: Numbers,
        data: PackedData,
        *,
        seed: int,
        dropout: float = 0.0,
        first_frame: float = 0.0,
    ) -> None:
        self.counts, self.rows, self.data, self.seed = counts, rows, data, seed
        self.dropout, self.first_frame = dropout, first_frame

    def steps(self, first_step: int) -> Iterator[list[Entries]]:
        """The sequences of each step from ``first_step`` on, those of all processes together."""
        each = self.data.sequences
        sequences = islice(self.sequences(), first_step * each, None)
        while True:
            yield list(islice(sequences, each))

    def sequences(self) -> Iterator[Entries]:
        """Sequences of at most ``data.tokens`` tokens, each an array of `ENTRY`."""
        opened = np.empty(0, ENTRY)
        for epoch, number, entries in self._windows():
            left = self.data.tokens - int(opened["tokens"].sum())
            bins = first_fit_decreasing(entries["tokens"], self.data.tokens, left)
            order = np.argsort(bins, kind="stable")
            ends = np.searchsorted(bins[order], np.arange(1, int(bins.max()) + 1))
            packed = np.split(entries[order], ends)
            packed[0] = np.concatenate([opened, packed[0]])
            opened = packed.pop()
            for place in np.random.default_rng([self.seed, epoch, number, 1]).permutation(len(packed)).tolist():
                yield packed[place]

    def drawn(self, epoch: int, samples: Numbers) -> Entries:
        """Entries of samples, with all that is drawn for them in an epoch."""
        counts, numbers = self.counts, torch.from_numpy(samples)

        def draws(purpose: Purpose) -> NDArray[np.float32]:
            return uniform(self.seed, numbers, epoch, purpose, ()).numpy()

        entries = np.empty(len(samples), ENTRY)
        entries["sample"], entries["epoch"] = samples, epoch
        clean = (draws(Purpose.FIRST_FRAME) < self.first_frame) & (counts.clean_first[samples] >= 0)
        first = np.where(clean, counts.clean_first[samples], counts.first[samples])
        # In double precision, as the product with a number below 1 must stay below the count.
        choice = (draws(Purpose.CAPTION).astype(np.float64) * counts.prompts[samples]).astype(np.int32)
        dropped = draws(Purpose.CONDITION_DROPOUT) < self.dropout
        prompt = np.where(dropped, DROPPED, first + choice)
        words = np.where(dropped, counts.empty, counts.lengths[first + choice])
        entries["prompt"], entries["clean_first"] = prompt, clean
        entries["tokens"] = counts.visual[samples] + RATIO_TOKENS + words
        return entries

    def _windows(self) -> Iterator[tuple[int, int, Entries]]:
        """Epoch, number in the epoch, and entries of each window."""
        for epoch in count():
            order = self.rows[np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))]
            for number, start in enumerate(range(0, len(order), self.data.window)):
                yield epoch, number, self.drawn(epoch, order[start : start + self.data.window])


def first_fit_decreasing(lengths: NDArray[np.int32], capacity: int, left: int) -> Numbers:
    """The bin that each item falls into: the longest items first, each into the first bin with room for it.

    Parameters
    ----------
    lengths : ``[n]``, 1 to ``capacity``
    left : room in bin 0; all others are empty

    Returns
    -------
    ``[n]``; every bin from 1 to the largest has an item.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    values, starts, counts = np.unique(-lengths[order], return_index=True, return_counts=True)
    room = np.full(len(lengths) + 1, capacity, np.int32)
    room[0] = left
    bins = np.empty(len(lengths), np.int64)
    used = 1
    # Items of one length fill bin after bin, so that they are placed together; most lengths of a mixed store are lone.
    for length, start, items in zip((-values).tolist(), starts.tolist(), counts.tolist(), strict=True):
        if items <= FEW_ITEMS:
            for item in range(start, start + items):
                place = int((room[: used + 1] >= length).argmax())
                bins[item] = place
                room[place] -= length
                used = max(used, place + 1)
            continue
        ends = np.minimum((room[: used + items] // length).cumsum(), items)
        taken = ends.copy()
        taken[1:] -= ends[:-1]
        bins[start : start + items] = np.repeat(np.arange(len(taken)), taken)
        room[: len(taken)] -= taken * length
        used = max(used, int(np.searchsorted(ends, items)) + 1)
    placed = np.empty_like(bins)
    placed[order] = bins
    return placed
