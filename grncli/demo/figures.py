"""Figures, and the grounds they stand on: what the pictures and clips of ``grn shapes`` are put together from."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

# Pillow's polygons lie on whole pixels; drawn this much larger, a slow shape still glides.
SUPERSAMPLING = 8

Pixels = NDArray[np.float64]
Corners = list[tuple[float, float]]


def _ring(*radii: float) -> Corners:
    return [(radius, 2 * math.pi * step / len(radii)) for step, radius in enumerate(radii)]


def _mirrored(*half: tuple[float, float]) -> Corners:
    """The corners (x, y) on one side of the x axis and, in reverse, those on the other, as (radius, angle)."""
    outline = [*half, *((x, -y) for x, y in reversed(half) if y)]
    return [(math.hypot(x, y), math.atan2(y, x)) for x, y in outline]


_ARM = 0.3  # half as wide as a bar of the cross
_END = math.sqrt(1 - _ARM**2)

# Corners as (radius, angle) within a circle of radius 1; angles count from the right downwards.
# A circle is drawn a little smaller, so that it covers about as much as the others.
OUTLINES = {
    "circle": _ring(*[0.84] * 96),
    "square": _ring(*[1.0] * 4),
    "triangle": _ring(*[1.0] * 3),
    "star": _ring(*[1.0, 0.46] * 5),
    "cross": _mirrored((_END, _ARM), (_ARM, _ARM), (_ARM, _END), (-_ARM, _END), (-_ARM, _ARM), (-_END, _ARM)),
    "arrow": _mirrored((1.0, 0.0), (0.05, 0.85), (0.05, 0.27), (-0.95, 0.27)),
}
# The rotation that stands each on its base; those above that are not named here point to the right.
UPRIGHT = {"circle": 0.0, "square": math.pi / 4, "cross": 0.0}


def upright(shape: str) -> float:
    """The rotation in which a shape stands on its base, or points up."""
    return UPRIGHT.get(shape, -math.pi / 2)


@dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A shape with everything but its place."""

    shape: str
    radius: float
    rotation: float
    colour: Pixels
    size: int  # of the picture, in pixels
    shadow: float = 0.0  # how much darker it makes the ground
    shade: float  # how much darker it gets towards the lower right

    @property
    def reach(self) -> float:
        """How near its centre may come to an edge of the picture: the radius and the antialiased rim."""
        return self.radius + 0.5

    def on(self, background: Pixels, x: float, y: float) -> NDArray[np.uint8]:
        """The picture [size, size, 3] of the figure at (x, y): a soft shadow, then the lit shape."""
        picture = background
        if self.shadow:
            below = self.mask(x + self.size / 64, y + self.size / 32)
            shadow = np.asarray(below.filter(ImageFilter.GaussianBlur(self.size / 24)))[..., None] / 255
            picture = background * (1 - self.shadow * shadow)
        alpha = np.asarray(self.mask(x, y))[..., None] / 255
        rows, columns = np.mgrid[: self.size, : self.size] + 0.5
        light = 1 - self.shade * ((columns - x) + (rows - y)) / (2 * self.radius)
        picture = picture * (1 - alpha) + self.colour * light[..., None] * alpha
        return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)

    def mask(self, x: float, y: float) -> Image.Image:
        """How much of each pixel the shape covers when it stands at (x, y), 0 to 255."""
        large = Image.new("L", (self.size * SUPERSAMPLING,) * 2)
        outline = [((x + dx) * SUPERSAMPLING, (y + dy) * SUPERSAMPLING) for dx, dy in self._corners()]
        ImageDraw.Draw(large).polygon(outline, fill=255)
        return large.reduce(SUPERSAMPLING)

    def _corners(self) -> Corners:
        outline = [(part, self.rotation + angle) for part, angle in OUTLINES[self.shape]]
        return [(self.radius * part * math.cos(angle), self.radius * part * math.sin(angle)) for part, angle in outline]


def gradient(random: np.random.Generator, size: int) -> Pixels:
    """A muted gradient from edge to edge, [size, size, 3], 0 to 255."""
    grey = random.uniform(70, 185)
    ends = grey + random.uniform(-22, 22, (2, 1)) + random.uniform(-14, 14, (2, 3))
    angle = random.uniform(0, 2 * math.pi)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    ramp = 0.5 + (columns * math.cos(angle) + rows * math.sin(angle)) / math.sqrt(2)
    return np.asarray(ends[0] + (ends[1] - ends[0]) * ramp[..., None])


def mottled(random: np.random.Generator, size: int) -> Pixels:
    """A gradient with soft mottling and a fine grain."""
    smooth = gradient(random, size)
    coarse = Image.fromarray(random.normal(0, 7, (6, 6)).astype(np.float32))
    mottling = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    grain = random.normal(0, 1.5, (size, size))
    return np.asarray(smooth + (mottling + grain)[..., None])
