"""Layers of the transformers: norm, rotary attention over a grid, SwiGLU, and embeddings of positions and ratios."""

import torch
from torch import Tensor, nn

from grncli.models.products import Linear, attention, gated, rms_norm, rotate, silu

Grid = tuple[int, int, int]

PERIOD = 10000.0  # longest wavelength of every sinusoid, over 2 pi
RATIO_WAVES = 128
EPSILON = 1e-6  # of the norm


class RMSNorm(nn.Module):
    """Scale vectors to root mean square 1, then by a learned gain; in the number format of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to the same shape."""
        return rms_norm(x, self.gain, EPSILON)


class Attention(nn.Module):
    """Full self-attention, with norms on queries and keys and rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.projection = Linear(width, width)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """``x [B, N, width]`` and ``rotation [2, N, width / heads / 2]`` (see ``rotary``) to ``[B, N, width]``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        q = rotate(self.query_norm(q), rotation)
        k = rotate(self.key_norm(k), rotation)
        mixed = attention(q, k, v.to(q.dtype))
        return self.projection(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated MLP."""

    def __init__(self, width: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.gate_and_up = Linear(width, 2 * hidden, bias)
        self.down = Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to the same shape."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(gated(gate, up))


class RatioEmbedding(nn.Module):
    """The selection ratio as a vector: sinusoids through a small MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Linear(2 * RATIO_WAVES, width)
        self.second = Linear(width, width)

    def forward(self, ratio: Tensor) -> Tensor:
        """``[B]`` in [0, 1] to ``[B, width]``."""
        waves = torch.arange(RATIO_WAVES, device=ratio.device) / RATIO_WAVES
        angles = ratio.float()[:, None] * PERIOD**-waves
        embedded = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.first.weight.dtype)
        return self.second(silu(self.first(embedded)))


def rotary(grid: Grid, head_width: int, context: int = 0) -> Tensor:
    """Cosines and sines ``[2, context + N, head_width / 2]`` of the rotary positions of a latent grid.

    The first half of a head turns with the row, the second with the column (facts section 3). Time, which the released
    networks do not have, turns every pair too, slowly where space turns it fast: at frame 0 that is no turn at all, so
    a lone frame is the released case, and no two directions in space and time look the same to all pairs.
    ``context`` tokens in front are not turned.
    """
    waves = head_width // 4
    turns = frequencies(waves)
    frame, row, column = _positions(grid)
    angles = torch.cat([row[:, None] * turns, column[:, None] * turns], dim=1)
    angles = angles + frame[:, None] * turns.flip(0).repeat(2)
    angles = torch.cat([angles.new_zeros(context, 2 * waves), angles])
    return torch.stack([angles.cos(), angles.sin()]).float()


def position_embedding(grid: Grid, width: int) -> Tensor:
    """Fixed sinusoids ``[N, width]`` of row and column, as in the released networks; sines of time are added.

    Sines vanish at frame 0, so that a lone frame is the released case.
    """
    frame, row, column = _positions(grid)
    waves = frequencies(width // 4)
    across, down = column[:, None] * waves, row[:, None] * waves
    space = torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1)
    return (space + (frame[:, None] * frequencies(width)).sin()).float()


def _positions(grid: Grid) -> tuple[Tensor, ...]:
    """Frame, row and column of each token of a grid, in its order; float64."""
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    return tuple(axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))


def frequencies(count: int) -> Tensor:
    """``PERIOD ** (-i / count)``, i below count; float64, as large positions times rounded frequencies would drift."""
    return PERIOD ** (-torch.arange(count, dtype=torch.float64) / count)
