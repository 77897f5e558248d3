"""What every generator is to those that train it or sample from it, whatever it is conditioned on."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from grncli.hbq import MAX_ROUNDS
from grncli.tokens import Prediction, TokenCodec

# A product of fewer rows than this may take its sums in another order: with it, a sample does not depend on its batch.
STEADY_ROWS = 16
# Beyond what anybody trains; larger numbers are mistakes, and building their network would take minutes or all memory.
MOST = {"depth": 1024, "classes": 1 << 24, "rounds": MAX_ROUNDS, "hidden": 1 << 18}
MOST |= dict.fromkeys(("width", "heads", "bottleneck", "channels", "in_context_tokens"), 1 << 16)
MOST |= dict.fromkeys(("key_value_heads", "text_width"), 1 << 16)


class GeneratorConfig(Protocol):
    """The sizes that every generator's network has."""

    @property
    def type(self) -> str:
        """Which network it is, as recipes name it."""

    @property
    def prediction(self) -> Prediction:
        """Whether indices or bits are predicted."""

    @property
    def rounds(self) -> int:
        """M."""

    @property
    def channels(self) -> int:
        """C, of the tokenizer."""

    @property
    def classes(self) -> int:
        """Number of classes that it knows, 0 for none."""

    @property
    def null_class(self) -> int:
        """The label of samples without a class."""

    @property
    def codec(self) -> TokenCodec:
        """What a token holds."""


class Generator(nn.Module):
    """A network that predicts every true category of a token map of which a share is true (Eq. 5).

    Its ``forward`` takes ``state [B, channels, T, h, w]``, the selection ratio ``[B]`` and what it is conditioned on,
    and gives logits ``[B, K, channels, T, h, w]``. The `Condition` that it is sampled with knows how to call it.

    Attributes
    ----------
    config : its sizes
    entries : methods beside ``forward`` that compute with the weights
    """

    config: GeneratorConfig
    entries: tuple[str, ...] = ()

    @property
    def transformer_blocks(self) -> Iterable[nn.Module]:
        """The blocks in order: what is compiled, and whose activations are checkpointed."""
        raise NotImplementedError


def check_range(sizes: object, least: int, *names: str) -> None:
    """ValueError where a size of these names is not ``least`` to its number in ``MOST``; None stands for any value."""
    for name in names:
        value, most = getattr(sizes, name), MOST[name]
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected {least} to {most}")


def padded_rows(rows: Tensor) -> Tensor:
    """``[B, ...]`` with zeros behind, to a multiple of ``STEADY_ROWS``."""
    missing = -len(rows) % STEADY_ROWS
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows
