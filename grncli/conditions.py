"""What a sample is generated for: a value that the sampler and the training loop hand on without looking inside.

A condition has a row for each sample. Its kind alone knows what lies in a row, and how a network is called with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Tensors that have a row for each sample, and are indexed and joined together; other fields belong to all rows."""

    def __len__(self) -> int:
        return len(next(iter(self._parts().values())))

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """The rows of a slice, of a mask ``[B]``, or of indices in the order given."""
        return self._each(lambda part: part[rows])

    def joined(self, *others: Self) -> Self:
        """These rows, and those of others behind them."""
        parts = {name: [part, *(getattr(other, name) for other in others)] for name, part in self._parts().items()}
        return replace(self, **{name: _join(several) for name, several in parts.items()})

    def padded(self, rows: int) -> Self:
        """These rows, and the last one so many times more."""
        return self._each(lambda part: torch.cat([part, part[-1:].expand(rows, *part.shape[1:])])) if rows else self

    def to(self, device: torch.device | str) -> Self:
        """The same rows on a device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts = self._parts().items()
        return replace(self, **{name: change(p) if isinstance(p, Tensor) else p._each(change) for name, p in parts})

    def _parts(self) -> "dict[str, Tensor | Rows]":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor | Rows)}


@dataclass(frozen=True)
class Condition(Rows, ABC):
    """What a batch of samples is generated for, a row each."""

    @property
    @abstractmethod
    def guides(self) -> bool:
        """Whether a prediction with it differs from one without it."""

    @abstractmethod
    def dropped(self, rows: Tensor) -> Self:
        """The same, but unconditional where ``rows``, bool ``[B]``, is true."""

    @abstractmethod
    def predict(self, network: Callable[..., Tensor], state: Tensor, ratio: Tensor) -> Tensor:
        """Logits ``[B, K, ...]`` of a network for the state ``[B, ...]`` at the selection ratio ``[B]`` (Eq. 5)."""

    def unconditional(self) -> Self:
        """As many rows without a condition."""
        return self.dropped(torch.ones(len(self), dtype=torch.bool))


@dataclass(frozen=True)
class ClassCondition(Condition):
    """A class for each sample.

    Parameters
    ----------
    labels : int64 ``[B]``, 0 to ``null_class``
    null_class : the label of samples without a class, which is the number of classes
    """

    labels: Tensor
    null_class: int

    @classmethod
    def of(cls, labels: Tensor, null_class: int) -> Self:
        """From labels as bit stores have them, below 0 for none."""
        return cls(torch.where(labels < 0, null_class, labels), null_class)

    @property
    def guides(self) -> bool:
        """Whether there is any class."""
        return self.null_class > 0

    def dropped(self, rows: Tensor) -> Self:
        """The same, but of the null class where ``rows`` is true."""
        return replace(self, labels=torch.where(rows.to(self.labels.device), self.null_class, self.labels))

    def predict(self, network: Callable[..., Tensor], state: Tensor, ratio: Tensor) -> Tensor:
        """Logits of ``network(state, ratio, label)``."""
        return network(state, ratio, self.labels)


def _join(parts: list[Any]) -> Any:
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0].joined(*parts[1:])
