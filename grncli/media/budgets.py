"""Pixel budgets: how large pictures and clips of any aspect ratio are (paper section 4.3; facts section 4)."""

import re
from dataclasses import dataclass
from math import sqrt

from grncli.models.aspect_ratios import TEMPLATES, nearest_template
from grncli.runtime.errors import UsageError

# Pixels of a picture by the budget's name; that of a square has sides of 16 times 16, 32, 40, 60, 64 and 90.
BUDGETS = {name: (16 * side) ** 2 for name, side in zip(
    ("0.06M", "0.25M", "0.41M", "0.92M", "1M", "2M"), (16, 32, 40, 60, 64, 90), strict=True
)}  # fmt: skip
MOST_PIXELS = 1 << 28
_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?):([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Budget:
    """An area in pixels that every aspect ratio fills about equally."""

    pixels: int

    def tokens(self, ratio: float, stride: int) -> tuple[int, int]:
        """Tokens down and across of the template nearest to a height over width, for a tokenizer's stride in space.

        The release rounds both from the unrounded width, so that areas differ by a few per cent.
        """
        template = nearest_template(ratio)
        width = sqrt(self.pixels / stride**2 / template)
        return max(1, round(template * width)), max(1, round(width))

    def grids(self, stride: int) -> dict[float, tuple[int, int]]:
        """Tokens down and across of each template."""
        return {template: self.tokens(template, stride) for template in TEMPLATES}


def parse_budget(text: str) -> Budget:
    """A budget by its name, or the area of ``WxH`` pixels; UsageError for anything else."""
    if text in BUDGETS:
        return Budget(BUDGETS[text])
    sides = parse_sides(text)
    if sides is None:
        raise UsageError(f"--budget {text}: expected {', '.join(BUDGETS)}, or pixels as WIDTHxHEIGHT such as 32x32")
    return Budget(sides[0] * sides[1])


def parse_ratio(text: str) -> float:
    """Height over width of ``W:H`` as people write it (16:9 is landscape); UsageError for anything else."""
    match = _RATIO.fullmatch(text)
    width, height = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
    if not width or not height or not 1 / 8 <= height / width <= 8:
        raise UsageError(f"--ratio {text}: expected WIDTH:HEIGHT between 8:1 and 1:8, such as 16:9")
    return height / width


def parse_sides(text: str) -> tuple[int, int] | None:
    """Two sides in pixels written ``AxB``, in that order; None for anything else or too large an area."""
    match = _SIZE.fullmatch(text)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    return sides if 0 < sides[0] * sides[1] <= MOST_PIXELS else None
