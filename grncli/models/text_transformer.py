"""The text-conditional generator (paper sections 4.3 and 4.4; facts sections 4 and 8).

A pre-norm transformer with SwiGLU, norms on queries and keys, and rotary positions in time, height and width. Visual
tokens, one token of the selection ratio and the text's tokens are one sequence, without adaLN. What is particular:

- two variants share all weights: *text-only* (the release of May), where text attends to text alone, so that its keys
  and values are the same in every step; and *full* (that of June), where all tokens of a sample attend to all;
- the samples of a call lie packed, one behind the other, so that grids and lengths of text may differ;
- input and output are channel-major (channel * K + category), where the class-conditional generator is category-major;
- a clean first frame is no other input than a noisy one: it lies at the same place and time. Only its logits differ.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grncli.models.generator import STEADY_ROWS, Generator, check_range, padded_rows
from grncli.models.packed_attention import packed_attention
from grncli.models.products import Linear, rotate
from grncli.models.text_positions import Positions, grid_rotation, ratio_rotation, text_rotation
from grncli.models.transformer import RatioEmbedding, RMSNorm, SwiGLU
from grncli.tokens import Prediction, TokenCodec

AttentionVariant = Literal["text-only", "full"]

CERTAIN = 1e4  # logit of what is known: the other categories' chance is 0 at any temperature in use, and nothing is NaN


@dataclass(frozen=True, kw_only=True)
class TextTransformerShape:
    """Sizes of the network that do not depend on the bits it learns. The defaults are the released 2B."""

    type: Literal["text_transformer"] = "text_transformer"  # a transformer for texts
    prediction: Prediction = "bit"  # GRN_ind predicts each channel's index of M bits, GRN_bit each bit
    # What text tokens attend to: all tokens of the sample, or text alone (the release of May).
    attention: AttentionVariant = "full"
    depth: int = 28  # transformer blocks
    width: int = 2304  # numbers of a token between blocks; an even number from 6 times heads
    heads: int = 18  # attention heads
    key_value_heads: int = 18  # heads of keys and values, a divisor of heads: each serves heads / key_value_heads
    hidden: int = 8192  # hidden width of the MLP
    text_width: int = 4096  # numbers of a text feature
    # Of rows and columns: spread over an extent that the aspect ratio tells, or one apart, for a few tokens a side.
    positions: Positions = "spread"

    def __post_init__(self) -> None:
        if self.attention not in get_args(AttentionVariant):
            raise ValueError(f"attention is {self.attention!r}, expected text-only or full")
        if self.positions not in get_args(Positions):
            raise ValueError(f"positions is {self.positions!r}, expected {' or '.join(get_args(Positions))}")
        check_range(self, 1, "depth", "width", "heads", "key_value_heads", "hidden", "text_width")
        if self.width % (2 * self.heads) or self.head_width < 6:
            raise ValueError(f"width is {self.width}, expected an even number from 6 times heads={self.heads}")
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads is {self.key_value_heads}, expected a divisor of heads={self.heads}")

    @property
    def head_width(self) -> int:
        """Of queries, keys and values."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(TextTransformerShape):
    """All sizes of the network."""

    rounds: int  # M, bits of a feature
    channels: int  # C, features of a token

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 1, "rounds", "channels")

    @property
    def classes(self) -> int:
        """0, as it is conditioned on texts."""
        return 0

    @property
    def null_class(self) -> int:
        """The label of every sample."""
        return 0

    @property
    def codec(self) -> TokenCodec:
        """What a token holds."""
        return TokenCodec(self.prediction, self.rounds, self.channels)


@dataclass(frozen=True, eq=False)  # tensors have no equality that is true or false
class TextMemory:
    """What a network keeps of a text between steps.

    Attributes
    ----------
    kept : full attention: projected features ``[length, width]``; text-only: keys and values of every block,
        ``[depth, 2, length, key_value_heads, head_width]``
    """

    kept: Tensor

    def to(self, device: str | torch.device) -> "TextMemory":
        """The same on another device."""
        return TextMemory(self.kept.to(device))


class TextTransformer(Generator):
    """GRN_bit or GRN_ind for text."""

    config: TextTransformerConfig
    entries = ("predict", "remember")

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        self.config = config
        codec = config.codec
        self.embedding = ChannelEmbedding(codec.token_channels, codec.categories, config.width)
        self.text_projection = Linear(config.text_width, config.width)
        self.ratio = RatioEmbedding(config.width)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.head = ChannelHead(config.width, codec.token_channels, codec.categories)
        self.init_weights()

    def remember(self, text: Sequence[Tensor]) -> list[TextMemory]:
        """What of each text does not depend on the state, to be computed once.

        Parameters
        ----------
        text : features ``[length, text_width]`` of each

        Raises
        ------
        ValueError
            If features have another shape.
        """
        return self._memories(text)

    def _memories(self, text: Sequence[Tensor]) -> list[TextMemory]:
        if not text:
            return []
        lengths = [len(features) for features in text]
        rows = self._projected(text)
        if self.config.attention == "full":
            return [TextMemory(kept.clone()) for kept in rows.split_with_sizes(lengths)]
        turns = [text_rotation(n, self.config.head_width, rows.device) for n in lengths]
        x, rotation, packed_lengths = _steady(rows, torch.cat(turns, dim=1), lengths)
        blocks = []
        for block in self.blocks:
            x, key, value = block(x, rotation, packed_lengths)
            blocks.append(torch.stack([key, value])[:, : len(rows)])
        # Clones, because a view would keep the texts of the whole batch alive.
        return [TextMemory(kept.clone()) for kept in torch.stack(blocks).split_with_sizes(lengths, dim=2)]

    def forward(
        self, state: Tensor, ratio: Tensor, text: Sequence[Tensor | TextMemory], *, clean_first: bool = False
    ) -> Tensor:
        """Logits of the true category of every channel of every token, given a map of which a share is true (Eq. 5).

        Parameters
        ----------
        state : integers ``[B, channels, T, h, w]``, categories 0 to K - 1
        ratio : float ``[B]``, the share of true ones, 0 to 1
        text : for each sample the encoder's features ``[length, text_width]``, or what `remember` made of them
        clean_first : the first frame of the state is true: only the later ones are predicted, and its own logits are
            certain of it

        Returns
        -------
        ``[B, K, channels, T, h, w]``

        Raises
        ------
        ValueError
            If there is not one text for each sample, or features have another shape.
        """
        batch, _, *grid = state.shape
        logits = self._logits(list(state), ratio, text)
        logits = logits.view(batch, *grid, *logits.shape[1:]).permute(0, 5, 4, 1, 2, 3)
        if clean_first:
            first = F.one_hot(state[:, :, 0].long(), self.config.codec.categories)
            logits[:, :, :, 0] = first.movedim(-1, 1).to(logits.dtype) * CERTAIN
        return logits

    def predict(self, states: Sequence[Tensor], ratio: Tensor, text: Sequence[Tensor | TextMemory]) -> list[Tensor]:
        """As ``forward`` for samples of different grids in one pass.

        Parameters
        ----------
        states : integers ``[channels, T, h, w]`` of each sample
        ratio, text : as of ``forward``

        Returns
        -------
        ``[K, channels, T, h, w]`` of each sample
        """
        logits = self._logits(states, ratio, text).split_with_sizes([state[0].numel() for state in states])
        return [
            sample.view(*state.shape[1:], *sample.shape[1:]).permute(4, 3, 0, 1, 2)
            for sample, state in zip(logits, states, strict=True)
        ]

    @property
    def transformer_blocks(self) -> Iterable[nn.Module]:
        """The blocks in order."""
        return self.blocks

    def init_weights(self) -> None:
        """Initialize the weights as the release of June does (facts section 8): small, and smaller on the way back."""
        std = (3 * self.config.width) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("attention.projection.weight", "mlp.down.weight")):
                nn.init.normal_(parameter, std=std * (2 * self.config.depth) ** -0.5)
            elif not name.endswith("gain"):
                nn.init.normal_(parameter, std=std)

    def _logits(self, states: Sequence[Tensor], ratio: Tensor, text: Sequence[Tensor | TextMemory]) -> Tensor:
        """``[sum of T h w, channels, K]``."""
        if len(text) != len(states):
            raise ValueError(f"there are {len(text)} texts for {len(states)} samples, expected one for each")
        full, head_width = self.config.attention == "full", self.config.head_width
        memories = self._remembered(text)
        visual = self.embedding(states).split_with_sizes([state[0].numel() for state in states])
        ratios = self.ratio(padded_rows(ratio))[: len(states), None].to(visual[0].dtype)
        parts, turns, lengths = [], [], []
        for state, tokens, told, memory in zip(states, visual, ratios, memories, strict=True):
            words = memory.kept if full else told[:0]  # text-only: blocks take the keys and values that are kept
            grid = (state.shape[1], state.shape[2], state.shape[3])
            parts += [tokens, told, words]
            turns.append(grid_rotation(grid, head_width, state.device, self.config.positions))
            turns.append(ratio_rotation(head_width, state.device))
            turns.append(text_rotation(len(words), head_width, state.device))
            lengths.append(len(tokens) + len(told) + len(words))
        x, rotation, steady_lengths = _steady(torch.cat(parts), torch.cat(turns, dim=1), lengths)
        for number, block in enumerate(self.blocks):
            past = None if full else [memory.kept[number] for memory in memories]
            x, *_ = block(x, rotation, steady_lengths, past)
        rows = torch.cat(x[: sum(lengths)].split_with_sizes([len(part) for part in parts])[::3])  # the visual ones
        return self.head(padded_rows(rows))[: len(rows)]

    def _remembered(self, text: Sequence[Tensor | TextMemory]) -> list[TextMemory]:
        fresh = iter(self._memories([one for one in text if isinstance(one, Tensor)]))
        return [one if isinstance(one, TextMemory) else next(fresh) for one in text]

    def _projected(self, text: Sequence[Tensor]) -> Tensor:
        """All texts' features, one behind the other, ``[sum of lengths, width]``."""
        for features in text:
            if features.ndim != 2 or features.shape[1] != self.config.text_width:
                found, expected = list(features.shape), f"[length, {self.config.text_width}]"
                raise ValueError(
                    f"the features of a text have shape {found}, this generator's encoder gives {expected}"
                )
        rows = torch.cat(list(text)).to(self.text_projection.weight.dtype)
        with _own_format(rows):
            return self.text_projection(padded_rows(rows))[: len(rows)]


def _own_format(rows: Tensor) -> AbstractContextManager[object]:
    """A block that computes in the number format of its operands; there is no autocast to keep off meta tensors."""
    return nullcontext() if rows.is_meta else torch.autocast(rows.device.type, enabled=False)


class ChannelEmbedding(nn.Module):
    """One-hot categories, channel-major, times a matrix; the rows of the matrix are summed up instead."""

    def __init__(self, channels: int, categories: int, width: int) -> None:
        super().__init__()
        self.channels, self.categories = channels, categories
        self.table = nn.Parameter(torch.empty(channels * categories, width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Categories ``[channels, T, h, w]`` of each sample to ``[sum of T h w, width]``."""
        first = torch.arange(self.channels, device=self.table.device) * self.categories
        rows = torch.cat([state.flatten(1).T for state in states]).long() + first
        return F.embedding_bag(rows, self.table, mode="sum") + self.bias


class ChannelHead(nn.Module):
    """From the last block to logits; normed in float32 at least, and never in a lower format than its weights."""

    def __init__(self, width: int, channels: int, categories: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.linear = Linear(width, channels * categories)
        self.categories = categories

    def forward(self, x: Tensor) -> Tensor:
        """``[N, width]`` to ``[N, channels, K]``."""
        with _own_format(x):
            x = self.norm(x.to(torch.promote_types(x.dtype, torch.float32)))
            logits = self.linear(x.to(self.linear.weight.dtype))
        return logits.unflatten(1, (-1, self.categories))


class TextBlock(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, shape: TextTransformerShape) -> None:
        super().__init__()
        self.norm1 = RMSNorm(shape.width)
        self.attention = GroupedAttention(shape.width, shape.heads, shape.key_value_heads)
        self.norm2 = RMSNorm(shape.width)
        self.mlp = SwiGLU(shape.width, shape.hidden, bias=False)

    def forward(
        self, x: Tensor, rotation: Tensor, lengths: list[int], past: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``x [N, width]`` to the same, with its keys and values; the arguments are those of its attention."""
        mixed, key, value = self.attention(self.norm1(x), rotation, lengths, past)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), key, value


class GroupedAttention(nn.Module):
    """Attention within each of the packed samples, several heads to one of keys and values."""

    def __init__(self, width: int, heads: int, key_value_heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.heads = [heads, key_value_heads, key_value_heads]
        self.qkv = Linear(width, sum(self.heads) * self.head_width, bias=False)
        self.query_norm = RMSNorm(self.head_width)
        self.key_norm = RMSNorm(self.head_width)
        self.projection = Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, rotation: Tensor, lengths: list[int], past: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention to the tokens of the same sample, and to its past.

        Parameters
        ----------
        x : ``[N, width]``
        rotation : ``[2, N, head_width / 2]``
        lengths : tokens of each sample
        past : for each sample (for none, where the last ones have none) keys and values of further tokens,
            ``[2, length, key_value_heads, head_width]``

        Returns
        -------
        ``[N, width]``, and the keys and values ``[N, key_value_heads, head_width]`` of ``x``
        """
        q, k, v = self.qkv(x).unflatten(1, (-1, self.head_width)).split(self.heads, dim=1)
        turn = rotation[:, :, None]
        # Under autocast norms may give float32.
        q, k = (rotate(norm(part), turn).to(v.dtype) for norm, part in ((self.query_norm, q), (self.key_norm, k)))
        keys, values, key_lengths = k, v, lengths
        if past is not None:
            own = list(zip(k.split_with_sizes(lengths), v.split_with_sizes(lengths), strict=True))
            kept = list(zip_longest(own, past, fillvalue=past[0][:, :0]))
            keys, values = (torch.cat([part[i] for pair in kept for part in pair]) for i in (0, 1))
            key_lengths = [len(new[0]) + old.shape[1] for new, old in kept]
        mixed = packed_attention(q, keys, values, lengths, key_lengths)
        return self.projection(mixed.flatten(1)), k, v


def _steady(x: Tensor, rotation: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Packed samples, with one of zeros behind them where there are fewer rows than ``STEADY_ROWS``."""
    missing = STEADY_ROWS - len(x)
    if missing <= 0:
        return x, rotation, lengths
    return F.pad(x, (0, 0, 0, missing)), F.pad(rotation, (0, 0, 0, missing)), [*lengths, missing]
