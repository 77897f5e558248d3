"""The samples of bit stores with the prompts that they are trained with, and reading both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.runs.caption_prompts import caption_prompts, suffix_of
from grncli.runs.generator_recipe import Task, TextConditioning
from grncli.runtime.errors import StoreError
from grncli.store import BitStore, Grid
from grncli.store.captions import Caption, CaptionLine, Captions
from grncli.text.templates import final_prompt
from grncli.training.bit_loader import GridSamples
from grncli.training.packing import DROPPED, RATIO_TOKENS, Entries, Numbers, TokenCounts
from grncli.training.training_prompts import PromptTable, TrainingPrompts

NO_PROMPT = -1  # the first prompt of a sample that has none


@dataclass(frozen=True)
class CaptionedSample:
    """One sample of a step.

    Parameters
    ----------
    bits : uint8 ``[t, h, w, M, bytes]``
    text : features ``[length, width]``
    number, epoch : which sample of the run it is and how often it was seen before; random draws depend on both
    """

    bits: Tensor
    text: Tensor
    key: str
    number: int
    epoch: int
    clean_first: bool


class CaptionedSamples:
    """All samples of several stores, numbered grid by grid, and the features of their prompts.

    Parameters
    ----------
    counts : tokens of each sample; its first prompt is ``NO_PROMPT`` where it has no caption
    """

    def __init__(self, parts: Sequence[GridSamples], counts: TokenCounts, prompts: TrainingPrompts) -> None:
        self.parts, self.counts, self._prompts = parts, counts, prompts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def captioned(self) -> Numbers:
        """Numbers of the samples that have a caption, ascending."""
        return np.flatnonzero(self.counts.first != NO_PROMPT)

    def read(self, entries: Entries) -> list[CaptionedSample]:
        """The samples of a sequence, in its order."""
        assert DROPPED == -1  # the last prompt, which is the empty one
        places, rows = self._places(entries["sample"])
        texts = self._prompts.read(entries["prompt"].tolist())
        bits, keys = dict[int, Tensor](), dict[int, str]()
        for place in np.unique(places).tolist():
            inside = np.flatnonzero(places == place)
            own = torch.from_numpy(self.parts[place].read(rows[inside]))
            bits.update(zip(inside.tolist(), own, strict=True))
            keys.update(zip(inside.tolist(), self.parts[place].keys(rows[inside]), strict=True))
        described = zip(
            entries["sample"].tolist(), entries["epoch"].tolist(), entries["clean_first"].tolist(), strict=True
        )
        return [
            CaptionedSample(bits[i], texts[i], keys[i], number, epoch, clean)
            for i, (number, epoch, clean) in enumerate(described)
        ]

    def key(self, number: int) -> str:
        """What to call a sample in a message."""
        (place,), rows = self._places(np.array([number]))
        return self.parts[int(place)].keys(rows)[0]

    def grid(self, number: int) -> Grid:
        """Latent grid of a sample."""
        (place,), _ = self._places(np.array([number]))
        return self.parts[int(place)].grid

    def _places(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Part of each sample, and its row there."""
        places = np.searchsorted(self._starts, numbers, "right") - 1
        return places, numbers - self._starts[places]


@dataclass(frozen=True)
class CaptionCounts:
    """The prompts of all samples: `TokenCounts` before their tokens are counted."""

    table: PromptTable
    first: NDArray[np.int32]
    clean_first: NDArray[np.int32]
    prompts: NDArray[np.int32]


def collect_prompts(
    stores: Sequence[BitStore],
    captions: Sequence[Captions],
    parts: Sequence[GridSamples],
    text: TextConditioning,
    *,
    first_frame: bool,
) -> CaptionCounts:
    """Bring the captions of all samples to their final form.

    Parameters
    ----------
    captions : of each store
    first_frame : whether clips may be trained with a clean first frame, with prompts of their own

    Raises
    ------
    StoreError
        If no sample has a caption.
    """
    tasks: Mapping[str, Task] = {"image": text.image, "clip": text.clip, "first-frame": text.first_frame}
    prompts_of = _SharedPrompts()
    first, clean, prompts = list[int](), list[int](), list[int]()
    for part in parts:
        own = "image" if part.grid[0] == 1 else "clip"
        for store, spoken in zip(stores, captions, strict=True):
            if part.grid not in store.grids:
                continue
            for line in store.records(store.grid(part.grid).indices.tolist()):
                said = spoken.lines_of_sample(line)
                place, starts = str(store.path), said if first_frame and own == "clip" else ()
                first.append(prompts_of.first(place, own, said, tasks[own]))
                clean.append(prompts_of.first(place, "first-frame", starts, tasks["first-frame"]))
                prompts.append(sum(len(each.captions) for each in said))
    table = prompts_of.table
    if not table.prompts:
        paths = ", ".join(str(store.path) for store in stores)
        raise StoreError(f"{paths}: no sample has a caption; add them with: grn captions {stores[0].path} FILE")
    table.add([final_prompt("")], str(stores[0].path), "image")
    return CaptionCounts(table, np.array(first, np.int32), np.array(clean, np.int32), np.array(prompts, np.int32))


def count_tokens(counted: CaptionCounts, parts: Sequence[GridSamples], lengths: NDArray[np.int32]) -> TokenCounts:
    """What each sample counts in a sequence, with the tokens of each prompt, the empty one last."""
    return TokenCounts(
        visual=np.repeat([int(np.prod(part.grid)) for part in parts], [len(part) for part in parts]).astype(np.int32),
        first=counted.first,
        prompts=counted.prompts,
        clean_first=counted.clean_first,
        lengths=lengths,
        empty=int(lengths[-1]),
    )


class _SharedPrompts:
    """A table of prompts in which samples of the same captions share theirs."""

    def __init__(self) -> None:
        self.table = PromptTable()
        self._firsts: dict[tuple[str, tuple[tuple[str, tuple[Caption, ...]], ...]], int] = {}

    def first(self, store: str, task: str, lines: Sequence[CaptionLine], templates: Task) -> int:
        """Number of the first prompt of a sample with the captions of these lines; ``NO_PROMPT`` for none."""
        if not lines:
            return NO_PROMPT
        key = task, tuple((suffix_of(line, templates), line.captions) for line in lines)
        if key not in self._firsts:
            prompts = [prompt for line in lines for prompt in caption_prompts(line, templates)]
            self._firsts[key] = self.table.add(prompts, store, task)
        return self._firsts[key]


def fitting_rows(samples: CaptionedSamples, tokens: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Numbers of the captioned samples that fit into ``tokens`` with every prompt of theirs, and of those too long."""
    rows = samples.captioned
    fits = samples.counts.most()[rows] <= tokens
    return rows[fits], rows[~fits]


def tokens_needed(samples: CaptionedSamples, number: int) -> str:
    """Of a sample that is too long, in words."""
    visual, most = int(samples.counts.visual[number]), int(samples.counts.most()[number])
    return f"{most} tokens ({visual} of its grid, {RATIO_TOKENS} of the ratio, {most - visual - RATIO_TOKENS} of text)"
