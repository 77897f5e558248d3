"""Rotary positions in time, height and width of text, selection ratio and pictures (facts section 4).

A third of a head's pairs turns with each of the three; what three does not divide goes to width. Text token j lies at
time j, the token of the selection ratio at 512, frame f at 600 + f. Rows and columns are spread over an extent that the
aspect ratio alone tells, so that a picture keeps its positions whatever its number of tokens; or they lie one apart,
where a network only ever sees a few tokens a side, which would lie 20 and more apart.
"""

from functools import lru_cache
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from grncli.models.aspect_ratios import nearest_template
from grncli.models.transformer import Grid, frequencies

Positions = Literal["spread", "per-token"]

RATIO_TIME = 512
FRAME_TIME = 600  # of the first frame
EXTENT = 225  # positions along the longer side of the most extreme aspect ratio, which is 3
TEXT_STEP = 512  # text tables come in multiples of so many tokens


@lru_cache(maxsize=16)  # up to 40 MB for a long clip
def grid_rotation(grid: Grid, head_width: int, device: torch.device, positions: Positions = "spread") -> Tensor:
    """Cosines and sines float32 ``[2, T h w, head_width / 2]`` of a latent grid ``(T, h, w)``."""
    frames, *sides = grid
    times = torch.arange(frames, dtype=torch.float64) + FRAME_TIME
    rows_and_columns = _spread(*sides) if positions == "spread" else [torch.arange(n).double() for n in sides]
    axes = torch.meshgrid(times, *rows_and_columns, indexing="ij")
    return _rotation([axis.flatten() for axis in axes], head_width, device)


def text_rotation(length: int, head_width: int, device: torch.device) -> Tensor:
    """Cosines and sines ``[2, length, head_width / 2]`` of a text's tokens."""
    return _times(-(-length // TEXT_STEP) * TEXT_STEP, head_width, device)[:, :length]


def ratio_rotation(head_width: int, device: torch.device) -> Tensor:
    """Cosines and sines ``[2, 1, head_width / 2]`` of the token of the selection ratio."""
    return _times(2 * RATIO_TIME, head_width, device)[:, RATIO_TIME : RATIO_TIME + 1]


@lru_cache(maxsize=16)
def _times(count: int, head_width: int, device: torch.device) -> Tensor:
    """Of the times 0 to count - 1, at row 0 and column 0."""
    times = torch.arange(count, dtype=torch.float64)
    return _rotation([times, torch.zeros_like(times), torch.zeros_like(times)], head_width, device)


def _rotation(positions: list[Tensor], head_width: int, device: torch.device) -> Tensor:
    third = head_width // 6
    waves = (third, third, head_width // 2 - 2 * third)
    angles = torch.cat([p[:, None] * frequencies(n) for p, n in zip(positions, waves, strict=True)], dim=1)
    with torch.inference_mode(False):  # or training could not use them after sampling
        return torch.stack([angles.cos(), angles.sin()]).float().to(device)


def _spread(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions of rows ``[height]`` and columns ``[width]``, float64 whole numbers."""
    ratio = nearest_template(height / width)
    across = sqrt(EXTENT * EXTENT / 3 / ratio)
    extents = (height, int(ratio * across)), (width, int(across))
    rows, columns = ([round(i * extent / n) for i in range(n)] for n, extent in extents)
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(columns, dtype=torch.float64)
