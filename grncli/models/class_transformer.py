"""The class-conditional generator, GRN_ind and GRN_bit (paper section 3.2 and Appendix D; facts section 3).

A transformer after JiT: SwiGLU, RMSNorm, rotary positions, norms on queries and keys, adaLN-zero, and in-context class
tokens. It reads a half-true, half-random token map and predicts every true token at once. What is particular about it:

- it takes the selection ratio of its input, which the paper does not mention;
- *ind* predicts each channel's index of M bits (K = 2**M categories), *bit* each bit (K = 2);
- a map of h x w tokens at one time is the released case; clips add time to both kinds of positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grncli.models.generator import Generator, check_range, padded_rows
from grncli.models.products import Linear, silu
from grncli.models.transformer import Attention, Grid, RatioEmbedding, RMSNorm, SwiGLU, position_embedding, rotary
from grncli.tokens import Prediction, TokenCodec


@dataclass(frozen=True, kw_only=True)
class ClassTransformerShape:
    """Sizes of the network that do not depend on the bits it learns. The defaults are the released GRN-B."""

    type: Literal["class_transformer"] = "class_transformer"  # a transformer for classes
    prediction: Prediction = "ind"  # GRN_ind predicts each channel's index of M bits, GRN_bit each bit
    depth: int = 12  # transformer blocks
    width: int = 768  # numbers of a token between blocks; a multiple of 4 times heads
    heads: int = 12  # attention heads
    bottleneck: int = 128  # width of the input between the one-hot categories and the blocks
    in_context_tokens: int = 32  # copies of the class embedding that join the sequence
    in_context_start: int = 4  # the block before which they join, counted from 0

    def __post_init__(self) -> None:
        check_range(self, 1, "depth", "width", "heads", "bottleneck")
        check_range(self, 0, "in_context_tokens")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ValueError(f"width is {self.width}, expected a multiple of 4 times heads={self.heads}")
        if not 0 <= self.in_context_start < self.depth:
            raise ValueError(f"in_context_start is {self.in_context_start}, expected 0 to {self.depth - 1}, a block")


@dataclass(frozen=True, kw_only=True)
class ClassTransformerConfig(ClassTransformerShape):
    """All sizes of the network."""

    rounds: int  # M, bits of a feature
    channels: int  # C, features of a token
    classes: int  # classes; 0 is an unconditional network

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bit_sizes(self)

    @property
    def codec(self) -> TokenCodec:
        """What a token holds."""
        return TokenCodec(self.prediction, self.rounds, self.channels)

    @property
    def null_class(self) -> int:
        """The label of samples without one, and of the unconditional pass."""
        return self.classes


def check_bit_sizes(sizes: object) -> None:
    """ValueError where ``rounds``, ``channels`` or ``classes`` is out of range; None stands for any value."""
    check_range(sizes, 1, "rounds", "channels")
    check_range(sizes, 0, "classes")


class ClassTransformer(Generator):
    """GRN_ind or GRN_bit for classes."""

    config: ClassTransformerConfig

    def __init__(self, config: ClassTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, codec = config.width, config.codec
        self.embedding = TokenEmbedding(codec.categories, codec.token_channels, config.bottleneck, width)
        self.ratio = RatioEmbedding(width)
        self.classes = nn.Parameter(torch.empty(config.classes + 1, width))
        self.context = nn.Parameter(torch.empty(config.in_context_tokens, width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.head = Head(width, codec.categories * codec.token_channels)
        self._places: dict[tuple[Grid, torch.device], tuple[Tensor, Tensor]] = {}
        self.init_weights()

    def forward(self, state: Tensor, ratio: Tensor, label: Tensor) -> Tensor:
        """Logits of the true category of every channel of every token, given a map of which a share is true (Eq. 5).

        Parameters
        ----------
        state : integers ``[B, channels, T, h, w]``, categories 0 to K - 1
        ratio : float ``[B]``, the share of true ones, 0 to 1
        label : int64 ``[B]``, 0 to the number of classes, which is the null class

        Returns
        -------
        ``[B, K, channels, T, h, w]``
        """
        grid = (state.shape[2], state.shape[3], state.shape[4])
        places, rotation = self._placed(grid, state.device)
        classes = F.embedding(label, self.classes)
        condition = silu(self.ratio(padded_rows(ratio)) + padded_rows(classes))
        x = self.embedding(state)
        x = x + places.to(x.dtype)
        context = self.config.in_context_tokens
        for number, block in enumerate(self.blocks):
            if number == self.config.in_context_start:
                x = torch.cat([(classes[:, None] + self.context).to(x.dtype), x], dim=1)
            turned = rotation[:, context:] if number < self.config.in_context_start else rotation
            x = block(x, condition, turned)
        logits = self.head(x[:, context:], condition)
        return logits.unflatten(2, (self.config.codec.categories, -1)).permute(0, 2, 3, 1).unflatten(3, grid)

    @property
    def transformer_blocks(self) -> Iterable[nn.Module]:
        """The blocks in order."""
        return self.blocks

    def init_weights(self) -> None:
        """Initialize the weights (facts section 3): every block starts as the identity, every prediction even."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embedding.table)
        for weight in (self.classes, self.context, self.ratio.first.weight, self.ratio.second.weight):
            nn.init.normal_(weight, std=0.02)
        for owner in (*self.blocks, self.head):
            nn.init.zeros_(owner.modulation.weight)
        nn.init.zeros_(self.head.linear.weight)

    def _placed(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """Position embedding and rotation of a grid, computed once."""
        if (grid, device) not in self._places:
            config = self.config
            with torch.inference_mode(False):  # or training could not use them after sampling
                embedding = position_embedding(grid, config.width)
                turns = rotary(grid, config.width // config.heads, config.in_context_tokens)
                self._places[grid, device] = embedding.to(device), turns.to(device)
        return self._places[grid, device]


class TokenEmbedding(nn.Module):
    """One-hot categories times a matrix, through a bottleneck; the rows of the matrix are summed up instead.

    The one-hot map would be larger than what it is turned into.
    """

    def __init__(self, categories: int, channels: int, bottleneck: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.table = nn.Parameter(torch.empty(categories * channels, bottleneck))  # category-major
        self.expand = Linear(bottleneck, width)

    def forward(self, state: Tensor) -> Tensor:
        """Categories ``[B, channels, T, h, w]`` to ``[B, T h w, width]``."""
        channel = torch.arange(self.channels, device=state.device)
        rows = state.flatten(2).transpose(1, 2).long() * self.channels + channel
        summed = F.embedding_bag(rows.flatten(0, 1), self.table, mode="sum")
        return self.expand(summed).unflatten(0, rows.shape[:2])


class Block(nn.Module):
    """Attention and MLP, both shifted, scaled and gated by the condition (adaLN-zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, int(4 * width * 2 / 3))
        self.modulation = Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor) -> Tensor:
        """``x [B, N, width]``, ``condition [B or more, width]`` to ``[B, N, width]``."""
        shift1, scale1, gate1, shift2, scale2, gate2 = _modulation(self.modulation, condition, x, 6)
        x = x + gate1 * self.attention(_modulated(self.norm1(x), shift1, scale1), rotation)
        return x + gate2 * self.mlp(_modulated(self.norm2(x), shift2, scale2))


class Head(nn.Module):
    """From the last block to logits, shifted and scaled by the condition."""

    def __init__(self, width: int, logits: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.linear = Linear(width, logits)
        self.modulation = Linear(width, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``[B, N, width]`` to ``[B, N, K * channels]``, category-major."""
        shift, scale = _modulation(self.modulation, condition, x, 2)
        return self.linear(_modulated(self.norm(x), shift, scale))


def _modulation(layer: nn.Linear, condition: Tensor, x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The parts of a modulation for the rows of ``x``, ``[B, 1, width]`` each."""
    return layer(condition)[: len(x), None].chunk(parts, dim=2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)
