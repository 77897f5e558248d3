"""Labelled pictures and clips drawn from a seed, so that everything can be tried without a download.

A picture shows one shape in one colour (a class such as ``red-circle``); in a clip the shape also moves in one of four
directions (``red-circle-left``). The easy set draws it large, upright and on smooth ground, for networks that train in
minutes; the hard set small, turned at will and on mottled ground.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grncli.demo.figures import Figure, Pixels, gradient, mottled, upright
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.errors import UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.folders import LOCK, make_folder, remove
from grncli.runtime.jsonfiles import read_json

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

MARKER = "shapes.json"
OVERWRITING = ".overwriting"  # from the start of an overwrite until all is drawn
SMALLEST_SIZE = 16
MOST_ENCODERS = 8

Range = tuple[float, float]
Classes = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShapeSet:
    """A way to draw: what a drawing shows, and what it varies in; lengths are shares of the picture's side."""

    drawing: int  # Counts up when the drawing changes, so that a folder is never completed by another hand.
    colours: dict[str, tuple[int, int, int]]
    shapes: tuple[str, ...]
    image_classes: Classes  # in visiting order, as the next
    clip_classes: Classes
    brightness: Range  # a factor of the colour
    tint: float  # added to each of its channels at most, of 255
    radius: Range
    clip_radius: Range
    rotation: Range | None  # from upright; None turns the shape at will
    drift: float  # of a picture's shape from the middle, at most
    shadow: float
    shade: float
    ground: Callable[[np.random.Generator, int], Pixels]


def _easy_classes(colours: Classes, shapes: Classes) -> tuple[Classes, Classes]:
    """Any eight of the classes in a row show every colour, every shape and every direction.

    The first 24 clips tie no direction to a colour or shape. The first 24 pictures show each shape in half of the
    colours, the next 24 in the other half.
    """
    images = [f"{colours[i % 8]}-{shapes[i % 6 ^ i // 24 % 2]}" for i in range(48)]
    clips = [f"{images[i % 48]}-{list(DIRECTIONS)[(i + i // 6 + i // 48) % 4]}" for i in range(4 * 48)]
    return tuple(images), tuple(clips)


def _hard_classes(colours: Classes, shapes: Classes) -> tuple[Classes, Classes]:
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
        clip_radius=(0.23, 0.28),  # A larger one would have no way to go.
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
        rotation=None,
        drift=0.5,  # The edge ends it before.
        shadow=0.35,
        shade=0.14,
        ground=mottled,
    )
    return {"easy": easy, "hard": hard}


SETS = _sets()


@dataclass(frozen=True, kw_only=True)
class ShapesSettings:
    """What a folder of shapes was drawn from; the same settings give the same bytes."""

    set: str = "easy"
    images: int = 512
    clips: int = 64
    size: int = 32
    frames: int = 17
    fps: float = 8.0
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError on a setting that cannot be drawn."""
        if self.set not in SETS:
            raise UsageError(f"The set of shapes is {self.set!r}, expected {' or '.join(SETS)}.")
        if min(self.images, self.clips, self.seed) < 0:
            raise UsageError("The number of images, the number of clips and the seed cannot be negative.")
        if self.size < SMALLEST_SIZE:
            raise UsageError(f"Shapes need pictures of at least {SMALLEST_SIZE} pixels, not {self.size}.")
        if self.frames < 2:
            raise UsageError(f"A clip needs at least 2 frames to show a direction, not {self.frames}.")
        if not (math.isfinite(self.fps) and 0.01 <= self.fps <= 1000):
            raise UsageError(f"A clip's frame rate must lie between 0.01 and 1000, not be {self.fps}.")


@dataclass(frozen=True)
class ShapesSummary:
    """How many files a call wrote and how many it found already there."""

    written: int
    present: int


@dataclass(frozen=True)
class _Sample:
    path: Path
    kind: str
    index: int


def write_shapes(
    folder: Path,
    *,
    images: int = 512,
    clips: int = 64,
    size: int = 32,
    frames: int = 17,
    fps: float = 8.0,
    seed: int = 0,
    set: str = "easy",
    overwrite: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> ShapesSummary:
    """Fill ``folder`` with ``images/CLASS/00000.png`` and ``clips/CLASS/00000.mp4``.

    Parameters
    ----------
    folder : new, empty, or begun by an earlier call with the same settings, which this call completes
    images, clips : how many of each; classes take turns, so that their counts differ by one at most
    size : width and height in pixels, at least 16
    frames, fps : length and frame rate of each clip
    seed : a sample depends on the set, the seed, its kind and its index only, not on the counts
    set : what to draw, a name out of ``SETS``
    overwrite : draw everything anew in a folder that an earlier call made, whatever its settings; but go on with
        what such a call began with the same settings and did not complete
    report : called with (samples done, samples in all) at the start and after each sample

    Raises
    ------
    UsageError
        If a setting cannot be drawn, the folder holds anything else (even with ``overwrite``), or it was
        drawn with other settings.
    """
    settings = ShapesSettings(set=set, images=images, clips=clips, size=size, frames=frames, fps=float(fps), seed=seed)
    settings.check()
    _claim_folder(folder, settings, overwrite=overwrite)
    samples = list(_samples(folder, settings))
    missing = [sample for sample in samples if not sample.path.exists()]
    for parent in sorted({sample.path.parent for sample in missing}):
        make_folder(parent.parent)
        make_folder(parent)
    present = len(samples) - len(missing)
    tell = report or (lambda done, total: None)
    tell(present, len(samples))
    # Threads suffice: the encoders are processes of their own.
    pool = ThreadPoolExecutor(min(MOST_ENCODERS, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(_write_sample, sample, settings) for sample in missing]
        for done, job in enumerate(as_completed(jobs), start=present + 1):
            job.result()
            tell(done, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)
    remove(folder / OVERWRITING)
    return ShapesSummary(written=len(missing), present=present)


def _samples(folder: Path, settings: ShapesSettings) -> Iterator[_Sample]:
    drawn = SETS[settings.set]
    plan = (
        ("images", drawn.image_classes, settings.images, "png"),
        ("clips", drawn.clip_classes, settings.clips, "mp4"),
    )
    for kind, classes, count, ending in plan:
        for index in range(count):
            turn, member = divmod(index, len(classes))
            yield _Sample(folder / kind / classes[member] / f"{turn:05d}.{ending}", kind, index)


def _write_sample(sample: _Sample, settings: ShapesSettings) -> None:
    if sample.kind == "images":
        write_png(sample.path, draw_image(settings.seed, sample.index, settings.size, settings.set))
    else:
        frames = draw_clip(settings.seed, sample.index, settings.size, settings.frames, settings.set)
        write_mp4(sample.path, frames, settings.fps)


def _claim_folder(folder: Path, settings: ShapesSettings, *, overwrite: bool) -> None:
    """Make ``folder`` ours with a marker of ``settings``, or raise UsageError.

    The marker is the first thing written and never missing later, so that a half-filled or half-deleted
    folder is still known as ours.
    """
    wanted = {"made_by": "grn shapes", "drawing": SETS[settings.set].drawing, **asdict(settings)}
    marker = folder / MARKER
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a folder for the shapes.")
    found = _read_marker(marker)
    entries = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    # A run killed while it wrote the marker leaves only the marker's temporary name behind.
    if found is None and not set(entries) <= {f".{MARKER}.tmp", LOCK}:
        raise UsageError(f"{folder} holds something other than shapes; choose a new or empty folder.")
    if found == wanted and (not overwrite or (folder / OVERWRITING).exists()):
        return
    if found is not None and not overwrite:
        changes = ", ".join(f"{key}={found.get(key)}" for key in wanted if found.get(key) != wanted[key])
        raise UsageError(f"{folder} was drawn with other settings ({changes}); choose another folder, or overwrite it.")
    if found is not None:
        for kind in ("images", "clips"):
            remove(folder / kind)  # of a link only itself: what it leads to is not ours to delete
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(marker) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    if overwrite:
        with whole_file(folder / OVERWRITING) as temporary:
            temporary.touch()


def _read_marker(marker: Path) -> dict[str, object] | None:
    try:
        found = read_json(marker, error=UsageError, remedy="choose another folder")
    except (FileNotFoundError, NotADirectoryError, UsageError):
        return None
    if not isinstance(found, dict) or found.get("made_by") != "grn shapes":
        return None
    return {"set": "hard", **found}  # Before there were two, it was the only one.


def draw_image(seed: int, index: int, size: int, set: str = "hard") -> NDArray[np.uint8]:
    """Picture number ``index`` of the set's classes in turn, [size, size, 3] RGB.

    By default of the set that has detail everywhere, which is what metrics are tried on.
    """
    drawn = SETS[set]
    random = np.random.default_rng([seed, 0, index])
    colour, shape = drawn.image_classes[index % len(drawn.image_classes)].split("-")
    figure = _figure(random, drawn, colour, shape, drawn.radius, size)
    least = max(figure.reach, size * (0.5 - drawn.drift))
    x, y = least + random.random(2) * (size - 2 * least)
    return figure.on(drawn.ground(random, size), x, y)


def draw_clip(seed: int, index: int, size: int, frames: int, set: str = "hard") -> NDArray[np.uint8]:
    """Clip number ``index`` of the set's classes in turn, [frames, size, size, 3] RGB.

    The shape crosses 75 to 100 % of the way that is free to it at constant speed; nothing else moves.
    """
    drawn = SETS[set]
    random = np.random.default_rng([seed, 1, index])
    colour, shape, direction = drawn.clip_classes[index % len(drawn.clip_classes)].split("-")
    figure = _figure(random, drawn, colour, shape, drawn.clip_radius, size)
    free = size - 2 * figure.reach
    way = free * random.uniform(0.75, 1.0)
    heading = np.array(DIRECTIONS[direction])
    start = figure.reach + random.random(2) * (free - way * abs(heading))
    start += way * (heading < 0)
    background = drawn.ground(random, size)
    places = start + np.linspace(0, way, frames)[:, None] * heading
    return np.stack([figure.on(background, x, y) for x, y in places])


def _figure(random: np.random.Generator, drawn: ShapeSet, colour: str, shape: str, radius: Range, size: int) -> Figure:
    shown = np.array(drawn.colours[colour]) * random.uniform(*drawn.brightness) + random.uniform(
        -drawn.tint, drawn.tint, 3
    )
    return Figure(
        shape=shape,
        radius=size * random.uniform(*radius),
        rotation=random.uniform(0, 2 * math.pi)
        if drawn.rotation is None
        else upright(shape) + random.uniform(*drawn.rotation),
        colour=shown.clip(0, 255),
        size=size,
        shadow=drawn.shadow,
        shade=drawn.shade,
    )
