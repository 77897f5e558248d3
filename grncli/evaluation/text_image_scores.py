"""The text-image score of samples: each against its own prompt; of a clip the mean over all its frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.evaluation.measuring import Pictures
from grncli.evaluation.observing import Observer
from grncli.evaluation.recorded_prompts import paired_prompts
from grncli.metrics.text_image import TextImageNetwork, load_text_image_network
from grncli.runtime.processes import SINGLE_PROCESS, Processes


@dataclass(frozen=True, kw_only=True)
class TextImageOptions:
    """Which network compares pictures and texts, and where the texts are."""

    image: Path
    text: Path
    tokenizer: Path | None = None  # tokenizer.json of a text encoder that takes ids
    prompts: Path | None = None  # of pictures that record none

    def open(self, device: str) -> TextImageNetwork:
        """The network; see `load_text_image_network`."""
        return load_text_image_network(self.image, self.text, self.tokenizer, device=device)


@dataclass(frozen=True)
class TextImageScore:
    """Mean and standard deviation over samples of 100 * max(cos, 0)."""

    mean: float
    deviation: float
    samples: int
    prompts: int
    """How many distinct ones there are."""


class TextImageScorer(Observer[Tensor]):
    """Scores each sample against its prompt.

    Parameters
    ----------
    prompts : of each source, by its place
    """

    def __init__(self, network: TextImageNetwork, prompts: Sequence[str]) -> None:
        self._network = network
        self._distinct = list(dict.fromkeys(prompts))
        rows = {prompt: row for row, prompt in enumerate(self._distinct)}
        self._rows = [rows[prompt] for prompt in prompts]
        self._texts = network.texts(self._distinct)
        self._scored: list[tuple[int, float]] = []

    @classmethod
    def open(cls, pictures: Pictures, options: TextImageOptions, device: str) -> "TextImageScorer":
        """A scorer of pictures by the prompts they record, or those of a file.

        Raises
        ------
        UsageError, CheckpointError
            Where prompts or network do not fit; see `paired_prompts` and `load_text_image_network`.
        """
        prompts = paired_prompts(pictures, options.prompts)
        return cls(options.open(device), prompts)

    def compute(self, frames: Tensor) -> Sequence[Tensor]:
        """Directions ``[T, D]`` of the frames of each sample."""
        directions = self._network.images(frames.flatten(0, 1))
        return torch.split(directions, frames.shape[1])

    def add(self, place: int, directions: Tensor, label: str | None = None) -> None:
        """Score one sample."""
        scores = self._network.score(directions, self._texts[self._rows[place]])
        self._scored.append((place, float(scores.mean())))

    def score(self, processes: Processes = SINGLE_PROCESS) -> TextImageScore:
        """Over the samples of all processes; NaN for none."""
        scored = self.scored(processes)
        scores, rows = scored[:, 1], {self._rows[place] for place in scored[:, 0].astype(int).tolist()}
        if not len(scores):
            return TextImageScore(math.nan, math.nan, 0, 0)
        return TextImageScore(float(scores.mean()), float(scores.std()), len(scores), len(rows))

    def scored(self, processes: Processes = SINGLE_PROCESS) -> NDArray[np.float64]:
        """Place and score ``[n, 2]`` of the samples of all processes, in the order of their places."""
        own = np.array(self._scored, np.float64).reshape(-1, 2)
        scored = np.concatenate([part.reshape(-1, 2) for part in processes.gather(own.ravel())])
        return scored[np.argsort(scored[:, 0], kind="stable")]  # the same sums, whoever has measured which sample

    def prompt(self, place: int) -> str:
        """The prompt of a sample."""
        return self._distinct[self._rows[place]]

    def about(self) -> dict[str, Any]:
        """The protocol, for reports."""
        return protocol(self._network)


def protocol(network: TextImageNetwork) -> dict[str, Any]:
    """What is compared by a network, and how, for reports."""
    return {**network.about(), "prompt": "as the user gave it", "clip": "mean over all frames"}
