"""What a sample is generated for: a value that the sampler and the training loop hand on without looking inside.

A condition has a row for each sample. Its kind alone knows what lies in a row, and how a network is called with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Tensors and other rows, one for each sample, indexed and joined together; other fields belong to all rows."""

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
        return self.joined(self[torch.full((rows,), len(self) - 1)]) if rows else self

    def to(self, device: torch.device | str) -> Self:
        """The same rows on a device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Any], Any]) -> Self:
        return replace(self, **{name: change(part) for name, part in self._parts().items()})

    def _parts(self) -> "dict[str, Tensor | Rows]":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor | Rows)}


class Movable(Protocol):
    """What can be moved to a device: a tensor, or a value made of some."""

    def to(self, device: torch.device | str) -> Any:
        """The same on a device."""


@dataclass(frozen=True)
class Ragged(Rows):
    """Rows of several shapes: an item for each sample. Samples may share one."""

    items: tuple[Movable, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Tensor | slice) -> "Ragged":
        places = torch.arange(len(self.items))[rows.cpu() if isinstance(rows, Tensor) else rows]
        return Ragged(tuple(self.items[place] for place in places.tolist()))

    def joined(self, *others: "Ragged") -> "Ragged":
        """These items, and those of others behind them."""
        return Ragged(tuple(item for part in (self, *others) for item in part.items))

    def to(self, device: torch.device | str) -> "Ragged":
        """The same items on a device; what is shared is moved once."""
        distinct = {id(item): item for item in self.items}
        return self.exchanged({key: item.to(device) for key, item in distinct.items()})

    def exchanged(self, others: Mapping[int, Movable]) -> "Ragged":
        """With others in the place of items, by their ``id``."""
        return Ragged(tuple(others.get(id(item), item) for item in self.items))


class TextReader(Protocol):
    """A network that is conditioned on text, or what stands for one."""

    def remember(self, text: Sequence[Tensor]) -> Sequence[Movable]:
        """What of each text ``[length, width]`` does not depend on the state."""


@dataclass(frozen=True)
class Condition(Rows, ABC):
    """What a batch of samples is generated for, a row each."""

    # Whether networks are told the measured share of the selection, or the nominal one (facts section 8).
    measured: ClassVar[bool] = False

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

    def prepared(self, network: TextReader) -> Self:
        """With all that a network can compute of it before it sees a state."""
        return self

    def predicted(self, maps: Tensor) -> Tensor:
        """What of maps or logits ``[B, ..., T, h, w]`` a network predicts: all of it."""
        return maps


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


@dataclass(frozen=True)
class TextCondition(Condition):
    """A text for each sample, see `of`.

    Parameters
    ----------
    text : the encoder's features ``[length, width]``, or what a network remembers of them
    negative : that of the unconditional rows, which guidance leads away from: most often one for all samples
    clean_first : the first frame of every state is the true one, and only later frames are predicted
    """

    text: Ragged
    negative: Ragged
    clean_first: bool = False
    measured: ClassVar[bool] = True

    @classmethod
    def of(cls, text: Sequence[Tensor], negative: Tensor, *, clean_first: bool = False) -> Self:
        """A condition of features ``[length, width]``, a tensor for each sample, and one ``negative`` for all.

        A tensor that samples share, also those of another condition, is read by the network once (see `prepared`).
        """
        return cls(Ragged(tuple(text)), Ragged((negative,) * len(text)), clean_first)

    @property
    def guides(self) -> bool:
        """Always."""
        return True

    def dropped(self, rows: Tensor) -> Self:
        """The same, but with the negative text where ``rows`` is true."""
        pairs = zip(self.text.items, self.negative.items, rows.tolist(), strict=True)
        return replace(self, text=Ragged(tuple(negative if drop else text for text, negative, drop in pairs)))

    def predict(self, network: Callable[..., Tensor], state: Tensor, ratio: Tensor) -> Tensor:
        """Logits of ``network(state, ratio, text, clean_first=...)``."""
        return network(state, ratio, list(self.text.items), clean_first=self.clean_first)

    def prepared(self, network: TextReader) -> Self:
        """With what the network remembers in the place of features."""
        items = (*self.text.items, *self.negative.items)
        features = {id(item): item for item in items if isinstance(item, Tensor)}
        memories = dict(zip(features, network.remember(list(features.values())), strict=True))
        return replace(self, text=self.text.exchanged(memories), negative=self.negative.exchanged(memories))

    def predicted(self, maps: Tensor) -> Tensor:
        """Without the first frame where that is clean: it is no part of what networks learned to complete."""
        return maps[..., 1:, :, :] if self.clean_first else maps


def _join(parts: list[Any]) -> Any:
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0].joined(*parts[1:])
