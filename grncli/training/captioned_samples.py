"""The samples of bit stores with the prompts that they are trained with, and reading both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.store import Grid
from grncli.training.bit_loader import GridSamples
from grncli.training.packing import DROPPED, NO_PROMPT, RATIO_TOKENS, Entries, Numbers, TokenCounts
from grncli.training.training_prompts import TrainingPrompts


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

    @property
    def is_remote(self) -> bool:
        """Whether any of the stores is behind a URL."""
        return any(part.is_remote for part in self.parts)

    def expect(self, entries: Entries) -> None:
        """Say that samples are going to be read, so that those of remote stores are fetched from here on."""
        places, rows = self._places(entries["sample"])
        for place in np.unique(places).tolist():
            self.parts[place].expect(rows[places == place])

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


def fitting_rows(samples: CaptionedSamples, tokens: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Numbers of the captioned samples that fit into ``tokens`` with every prompt of theirs, and of those too long."""
    rows = samples.captioned
    fits = samples.counts.most()[rows] <= tokens
    return rows[fits], rows[~fits]


def tokens_needed(samples: CaptionedSamples, number: int) -> str:
    """Of a sample that is too long, in words."""
    visual, most = int(samples.counts.visual[number]), int(samples.counts.most()[number])
    return f"{most} tokens ({visual} of its grid, {RATIO_TOKENS} of the ratio, {most - visual - RATIO_TOKENS} of text)"
