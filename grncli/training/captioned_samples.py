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
from grncli.store.text_features import FeatureStore
from grncli.text.prompt_features import StoredPrompts
from grncli.text.templates import final_prompt
from grncli.training.bit_loader import GridSamples
from grncli.training.packing import DROPPED, RATIO_TOKENS, Entries, Numbers, TokenCounts

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
    digests : of each prompt
    counts : tokens of each sample; its first prompt is ``NO_PROMPT`` where it has no caption
    """

    def __init__(
        self,
        parts: Sequence[GridSamples],
        counts: TokenCounts,
        digests: Sequence[str],
        empty: str,
        features: FeatureStore,
    ) -> None:
        self.parts, self.counts, self.features = parts, counts, features
        # The empty prompt last, where the number -1 of a dropped one finds it.
        self._digests = [*digests, empty]
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def captioned(self) -> Numbers:
        """Numbers of the samples that have a caption, ascending."""
        return np.flatnonzero(self.counts.first != NO_PROMPT)

    def read(self, entries: Entries) -> list[CaptionedSample]:
        """The samples of a sequence, in its order."""
        assert DROPPED == -1
        places, rows = self._places(entries["sample"])
        texts = self.features.read([self._digests[prompt] for prompt in entries["prompt"].tolist()])
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


def caption_samples(
    stores: Sequence[BitStore],
    captions: Sequence[Captions],
    parts: Sequence[GridSamples],
    features: FeatureStore,
    text: TextConditioning,
    *,
    first_frame: bool,
    recipe: str | None = None,
) -> CaptionedSamples:
    """Bring the captions of all samples to their final form, and count their tokens.

    Parameters
    ----------
    captions : of each store
    first_frame : whether clips may be trained with a clean first frame, with prompts of their own
    recipe : path of the recipe, for the command that a message gives

    Raises
    ------
    StoreError
        If no sample has a caption.
    UsageError
        If the features of a prompt are lacking, with the first of them and the command that adds them.
    """
    tasks: Mapping[str, Task] = {"image": text.image, "clip": text.clip, "first-frame": text.first_frame}
    table = _PromptTable()
    first, clean, prompts = list[int](), list[int](), list[int]()
    for part in parts:
        own = "image" if part.grid[0] == 1 else "clip"
        for store, spoken in zip(stores, captions, strict=True):
            if part.grid not in store.grids:
                continue
            for line in store.records(store.grid(part.grid).indices.tolist()):
                said = spoken.lines_of_sample(line)
                place, starts = str(store.path), said if first_frame and own == "clip" else ()
                first.append(table.first(place, own, said, tasks[own]))
                clean.append(table.first(place, "first-frame", starts, tasks["first-frame"]))
                prompts.append(sum(len(each.captions) for each in said))
    if not table.prompts:
        paths = ", ".join(str(store.path) for store in stores)
        raise StoreError(f"{paths}: no sample has a caption; add them with: grn captions {stores[0].path} FILE")
    digests = _digests(table, features, recipe)
    empty = final_prompt("")
    (empty_digest,) = StoredPrompts(features, recipe=recipe).digests([empty])
    counts = TokenCounts(
        visual=np.repeat([int(np.prod(part.grid)) for part in parts], [len(part) for part in parts]).astype(np.int32),
        first=np.array(first, np.int32),
        prompts=np.array(prompts, np.int32),
        clean_first=np.array(clean, np.int32),
        lengths=features.lengths(digests).astype(np.int32),
        empty=int(features.lengths([empty_digest])[0]),
    )
    return CaptionedSamples(parts, counts, digests, empty_digest, features)


class _PromptTable:
    """Prompts in their final form; those of one sample lie side by side, and samples of the same ones share them."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.makers: list[tuple[str, str]] = []  # store and task of each, for messages
        self._firsts: dict[tuple[str, tuple[tuple[str, tuple[Caption, ...]], ...]], int] = {}

    def first(self, store: str, task: str, lines: Sequence[CaptionLine], templates: Task) -> int:
        """Number of the first prompt of a sample with the captions of these lines; ``NO_PROMPT`` for none."""
        if not lines:
            return NO_PROMPT
        key = task, tuple((suffix_of(line, templates), line.captions) for line in lines)
        if key not in self._firsts:
            self._firsts[key] = len(self.prompts)
            self.prompts += [prompt for line in lines for prompt in caption_prompts(line, templates)]
            self.makers += [(store, task)] * (len(self.prompts) - self._firsts[key])
        return self._firsts[key]


def _digests(table: _PromptTable, features: FeatureStore, recipe: str | None) -> list[str]:
    """The digest of every prompt; UsageError where the features of one are lacking."""
    digests = [""] * len(table.prompts)
    for store, task in dict.fromkeys(table.makers):
        own = [i for i, maker in enumerate(table.makers) if maker == (store, task)]
        # Which of the two others a caption is of, encode-text sees by itself.
        named = task if task == "first-frame" else "image"
        known = StoredPrompts(features, prompts=store, recipe=recipe, task=named)
        for i, digest in zip(own, known.digests([table.prompts[i] for i in own]), strict=True):
            digests[i] = digest
    return digests


def fitting_rows(samples: CaptionedSamples, tokens: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Numbers of the captioned samples that fit into ``tokens`` with every prompt of theirs, and of those too long."""
    rows = samples.captioned
    fits = samples.counts.most()[rows] <= tokens
    return rows[fits], rows[~fits]


def tokens_needed(samples: CaptionedSamples, number: int) -> str:
    """Of a sample that is too long, in words."""
    visual, most = int(samples.counts.visual[number]), int(samples.counts.most()[number])
    return f"{most} tokens ({visual} of its grid, {RATIO_TOKENS} of the ratio, {most - visual - RATIO_TOKENS} of text)"
