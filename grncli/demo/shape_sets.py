"""The two ways to draw that ``grn shapes`` knows: colours, shapes, the order of the classes, and what varies."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from grncli.demo.figures import Pixels, gradient, mottled

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

Range = tuple[float, float]
ClassNames = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShapeSet:
    """A way to draw: what a drawing shows, and what it varies in; lengths are shares of the picture's side."""

    drawing: int  # Counts up when the drawing changes, so that no folder mixes two versions.
    colours: dict[str, tuple[int, int, int]]
    shapes: tuple[str, ...]
    image_classes: ClassNames  # in visiting order, as the next
    clip_classes: ClassNames
    brightness: Range  # a factor of the colour
    tint: float  # added to each of its channels at most, of 255
    radius: Range
    clip_radius: Range
    group_radius: Range  # of each of four figures
    rotation: Range | None  # from upright; None allows any angle
    drift: float  # of a picture's shape from the middle, at most
    shadow: float
    shade: float
    ground: Callable[[np.random.Generator, int], Pixels]


def _easy_classes(colours: ClassNames, shapes: ClassNames) -> tuple[ClassNames, ClassNames]:
    """Any eight of the classes in a row show every colour, every shape and every direction.

    The first 24 clips tie no direction to a colour or shape. The first 24 pictures show each shape in half of the
    colours, the next 24 in the other half.
    """
    images = [f"{colours[i % 8]}-{shapes[i % 6 ^ i // 24 % 2]}" for i in range(48)]
    clips = [f"{images[i % 48]}-{list(DIRECTIONS)[(i + i // 6 + i // 48) % 4]}" for i in range(4 * 48)]
    return tuple(images), tuple(clips)


def _hard_classes(colours: ClassNames, shapes: ClassNames) -> tuple[ClassNames, ClassNames]:
    """Every four of the classes show every colour, every shape and every direction.

    The picture order is a Latin square, the clip order a Graeco-Latin one repeated for each first
    direction, so that even a small set ties no colour or direction to a shape.
    """
    images, clips = [], []
    for first in range(4):
        for block, turn in enumerate((0, 2, 3, 1)):
            for shape in range(4):
                name = f"{colours[shape ^ block]}-{shapes[shape]}"
                clips.append(f"{name}-{list(DIRECTIONS)[shape ^ turn ^ first]}")
                if first == 0:
                    images.append(name)
    return tuple(images), tuple(clips)


def _sets() -> dict[str, ShapeSet]:
    easy_colours = {
        "red": (218, 40, 44),
        "orange": (246, 136, 26),
        "yellow": (250, 224, 54),
        "green": (38, 162, 68),
        "cyan": (72, 208, 222),
        "blue": (34, 92, 232),
        "purple": (146, 48, 180),
        "pink": (252, 156, 204),
    }
    easy_shapes = ("circle", "square", "triangle", "star", "cross", "arrow")
    easy_images, easy_clips = _easy_classes(tuple(easy_colours), easy_shapes)
    hard_colours = {"red": (222, 52, 52), "green": (46, 170, 80), "blue": (52, 104, 226), "yellow": (246, 204, 48)}
    hard_shapes = ("circle", "square", "triangle", "star")
    hard_images, hard_clips = _hard_classes(tuple(hard_colours), hard_shapes)
    easy = ShapeSet(
        drawing=1,
        colours=easy_colours,
        shapes=easy_shapes,
        image_classes=easy_images,
        clip_classes=easy_clips,
        brightness=(0.95, 1.03),
        tint=6,
        radius=(0.33, 0.42),
        clip_radius=(0.23, 0.28),  # A larger one would leave no room to move.
        group_radius=(0.17, 0.21),
        rotation=(-math.pi / 12, math.pi / 12),
        drift=1 / 16,
        shadow=0.0,
        shade=0.08,
        ground=gradient,
    )
    hard = ShapeSet(
        drawing=1,
        colours=hard_colours,
        shapes=hard_shapes,
        image_classes=hard_images,
        clip_classes=hard_clips,
        brightness=(0.88, 1.06),
        tint=8,
        radius=(0.2, 0.3),
        clip_radius=(0.2, 0.3),
        group_radius=(0.13, 0.19),
        rotation=None,
        drift=0.5,  # The edge limits it further.
        shadow=0.35,
        shade=0.14,
        ground=mottled,
    )
    return {"easy": easy, "hard": hard}


SETS = _sets()
