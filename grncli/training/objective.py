"""What a training consists of: batches, networks with their losses, and the objective that brings both."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from grncli.runs.tokenizer_recipe import Optimization
from grncli.training.sharding import Sharding


class StepBatch(Protocol):
    """What one step trains on, as far as the loop knows it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of its sources, for messages."""

    def pieces(self, count: int) -> "Sequence[StepBatch]":
        """The batch in ``count`` equal pieces."""


@dataclass(frozen=True)
class Average:
    """What the moving averages of a network begin with, rather than with its first weights.

    Parameters
    ----------
    weights : None where another process has them
    steps : how many they count as having seen
    """

    weights: Mapping[str, Tensor] | None
    steps: int


@dataclass(frozen=True)
class Batch:
    """What one step trains on: pixels or packed bits, and the names of their sources.

    Parameters
    ----------
    labels : of samples of bits, int64 ``[B]``
    numbers : int64 ``[B]``, what random draws for a sample depend on: samples of bits are counted through the run,
        crops of media through their step
    """

    data: Tensor
    keys: tuple[str, ...]
    labels: Tensor | None = None
    numbers: Tensor | None = None

    def pieces(self, count: int) -> list["Batch"]:
        """The batch in ``count`` equal pieces."""
        size = len(self.data) // count
        return [self._piece(slice(start, start + size)) for start in range(0, len(self.data), size)]

    def _piece(self, rows: slice) -> "Batch":
        labels, numbers = (None if part is None else part[rows] for part in (self.labels, self.numbers))
        return Batch(self.data[rows], self.keys[rows], labels, numbers)


@dataclass(frozen=True)
class Trainable:
    """A network that is trained, and by which loss. The first of several is the one that a run is about.

    Parameters
    ----------
    name : prefix of its files and numbers; empty for the first
    losses : for (batch, step counted from 0) the loss to minimize, and named numbers for the log; called for each
        piece of a batch of the objective, in the order of the trainables
    average : what its moving averages begin with; None for its weights
    shard : shards the weights of the module, or of a copy of it, for passes in a number format; None keeps them whole
    """

    name: str
    module: nn.Module
    losses: Callable[[Any, int], tuple[Tensor, dict[str, Tensor]]]
    optimization: Optimization
    average: Average | None = None
    shard: Callable[[Any, Sharding, torch.dtype], None] | None = None


class Objective(Protocol):
    """What differs between trainings."""

    def trainables(self) -> Sequence[Trainable]:
        """The networks to train."""

    def batches(self, first_step: int) -> Generator[StepBatch]:
        """This process's share of the batches from ``first_step`` on, each depending on (seed, step) only."""

    def preview(self, module: nn.Module, folder: Path | None, step: int) -> None:
        """Leave a picture of what the module can do; ``folder`` is None where another process writes it."""

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Numbers on what the module is not trained on; empty where nothing is held out."""
