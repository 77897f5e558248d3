"""Clips that pass through the causal video network in parts of bounded memory.

A layer that looks back in time keeps the frames it saw last in a ``History`` that belongs to one pass of one clip, so
that the parts give what the whole clip gives, and nothing stays in the network. How a clip is cut depends on sizes
alone, never on the memory at hand: the same input gives the same numbers everywhere.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn


class History:
    """The last frames each time-aware layer saw of a clip that arrives in parts."""

    def __init__(self) -> None:
        self.first = True  # whether the part under way is the clip's first
        self.last = False  # whether it is its last
        self._frames: dict[nn.Module, Tensor] = {}

    def extend(self, layer: nn.Module, x: Tensor, frames: int) -> Tensor:
        """``x`` behind the up to ``frames`` frames that ``layer`` saw before it; remembers the new last ones."""
        past = self._frames.pop(layer, None)
        x = x if past is None else torch.cat([past, x], dim=2)
        del past  # before its successor needs memory
        if not self.last:
            # A clone, because a view would keep the whole part alive.
            self._frames[layer] = x[:, :, -frames:].clone()
        return x


def is_first(history: History | None) -> bool:
    """Whether the input starts with the first frame of a clip."""
    return history is None or history.first


Step = Callable[[Tensor, History], Tensor]  # of the network, on [B, C, T, H, W]


@dataclass(frozen=True)
class Part:
    """Consecutive frames of a clip."""

    x: Tensor  # [B, C, T, H, W]
    first: bool  # starts with the clip's first frame
    last: bool  # ends with its last

    def cut(self, frames: int, unit: int = 1) -> Iterator["Part"]:
        """About equal parts of up to ``frames`` frames, or of the multiple of ``unit`` below it, at least one ``unit``.

        Where units are longer than a frame, the clip's first frame comes on top, as causal networks have it.
        """
        total = self.x.shape[2]
        lone = 1 if self.first and unit > 1 else 0
        units = (total - lone) // unit
        count = max(1, ceil(units / max(1, frames // unit)))
        frames = max(1, ceil(units / count)) * unit
        begin, end = 0, lone + frames
        while begin < total:
            x = self.x[:, :, begin:end]
            yield Part(x, self.first and begin == 0, self.last and end >= total)
            begin, end = end, end + frames


def pieces(x: Tensor, frames: int) -> Iterator[Part]:
    """Cut a clip ``[B, C, T, H, W]`` along time: first ``1 + frames`` frames, then ``frames`` at a time."""
    begin, end = 0, 1 + frames
    while begin < x.shape[2]:
        yield Part(x[:, :, begin:end], begin == 0, end >= x.shape[2])
        begin, end = end, end + frames


def through(step: Step, parts: Iterable[Part], history: History) -> Iterator[Part]:
    """Parts of a clip after a step of the network, each made when it is asked for."""
    for part in parts:
        history.first, history.last = part.first, part.last
        yield Part(step(part.x, history), part.first, part.last)


def frames_within(x: Tensor, widest: int, most: int) -> int:
    """Frames of ``x`` [B, C, T, H, W] of which an activation of ``widest`` channels has at most ``most`` elements."""
    return max(1, most // (x.shape[0] * widest * x.shape[3] * x.shape[4]))


def cut_within(parts: Iterable[Part], widest: int, most: int) -> Iterator[Part]:
    """Cut parts further, to ``frames_within`` them."""
    for part in parts:
        yield from part.cut(frames_within(part.x, widest, most))


def join(parts: Iterable[Tensor]) -> Tensor:
    """Consecutive frames ``[B, C, T, H, W]`` as one clip; a lone part is not copied."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
