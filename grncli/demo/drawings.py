"""Pictures and clips of shapes, each drawn from a seed and its index.

A picture shows one shape in one colour (a class such as ``red-circle``); in a clip the shape also moves in one of four
directions (``red-circle-left``). The easy set draws it large, upright and on smooth ground, for networks that train in
minutes; the hard set small, turned at will and on mottled ground.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grncli.demo.figures import DrawnFigure, upright
from grncli.demo.shape_sets import DIRECTIONS, SETS, Range, ShapeSet


def draw_image(seed: int, index: int, size: int, set: str = "hard") -> NDArray[np.uint8]:
    """Picture number ``index`` of the set's classes in turn, [size, size, 3] RGB.

    By default of the set that has detail everywhere, which is what metrics are tried on.
    """
    shapes = SETS[set]
    random = np.random.default_rng([seed, 0, index])
    colour, shape = shapes.image_classes[index % len(shapes.image_classes)].split("-")
    figure = _figure(random, shapes, colour, shape, shapes.radius, size)
    least = max(figure.reach, size * (0.5 - shapes.drift))
    x, y = least + random.random(2) * (size - 2 * least)
    return figure.on(shapes.ground(random, size), x, y)


def draw_group(seed: int, index: int, size: int, set: str = "easy", without: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Picture number ``index`` of four small figures, one in each quarter, [size, size, 3] RGB.

    ``without`` names combinations of colour and shape, such as ``red-star``, that none of the four shows.
    """
    shapes = SETS[set]
    random = np.random.default_rng([seed, 2, index])
    names = [name for name in shapes.image_classes if name not in without]
    picture = shapes.ground(random, size)
    for row, column in np.ndindex(2, 2):
        colour, shape = names[random.integers(len(names))].split("-")
        figure = _figure(random, shapes, colour, shape, shapes.group_radius, size)
        free = size / 2 - 2 * figure.reach
        x, y = figure.reach + random.random(2) * free + np.array([column, row]) * size / 2
        picture = figure.on(picture, x, y).astype(np.float64)
    return picture.astype(np.uint8)


def draw_clip(seed: int, index: int, size: int, frames: int, set: str = "hard") -> NDArray[np.uint8]:
    """Clip number ``index`` of the set's classes in turn, [frames, size, size, 3] RGB.

    The shape crosses 75 to 100 % of the way that is free to it at constant speed; nothing else moves.
    """
    shapes = SETS[set]
    random = np.random.default_rng([seed, 1, index])
    colour, shape, direction = shapes.clip_classes[index % len(shapes.clip_classes)].split("-")
    figure = _figure(random, shapes, colour, shape, shapes.clip_radius, size)
    free = size - 2 * figure.reach
    way = free * random.uniform(0.75, 1.0)
    heading = np.array(DIRECTIONS[direction])
    start = figure.reach + random.random(2) * (free - way * abs(heading))
    start += way * (heading < 0)
    background = shapes.ground(random, size)
    places = start + np.linspace(0, way, frames)[:, None] * heading
    return np.stack([figure.on(background, x, y) for x, y in places])


def _figure(
    random: np.random.Generator, shapes: ShapeSet, colour: str, shape: str, radius: Range, size: int
) -> DrawnFigure:
    tinted = np.array(shapes.colours[colour]) * random.uniform(*shapes.brightness)
    tinted = tinted + random.uniform(-shapes.tint, shapes.tint, 3)
    side = size * random.uniform(*radius)
    turn, base = ((0, 2 * math.pi), 0.0) if shapes.rotation is None else (shapes.rotation, upright(shape))
    rotation = base + random.uniform(*turn)
    return DrawnFigure(
        shape=shape,
        radius=side,
        rotation=rotation,
        colour=tinted.clip(0, 255),
        size=size,
        shadow=shapes.shadow,
        shade=shapes.shade,
    )
