"""Labelled pictures and clips drawn from a seed, so that everything can be tried without a download.

A picture shows one of four shapes in one of four colours (16 classes such as ``red-circle``); in a clip the
shape also moves in one of four directions (64 classes such as ``red-circle-left``).
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
from PIL import Image, ImageDraw, ImageFilter

from grncli.errors import UsageError
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.files import whole_file
from grncli.runtime.folders import LOCK, make_folder, remove
from grncli.runtime.jsonfiles import read_json

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {"red": (222, 52, 52), "green": (46, 170, 80), "blue": (52, 104, 226), "yellow": (246, 204, 48)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

MARKER = "shapes.json"
OVERWRITING = ".overwriting"  # from the start of an overwrite until all is drawn
# Counts up when the drawing changes, so that a folder is never completed by another hand.
DRAWING = 1
SMALLEST_SIZE = 16
# Pillow's polygons lie on whole pixels; drawn this much larger, a slow shape still glides.
SUPERSAMPLING = 8
MOST_ENCODERS = 8


def _classes() -> tuple[list[str], list[str]]:
    """The classes in visiting order: any four in a row show every colour, every shape and every direction.

    The picture order is a Latin square, the clip order a Graeco-Latin one repeated for each first
    direction, so that even a small set ties no colour or direction to a shape.
    """
    images, clips = [], []
    for first in range(4):
        for block, turn in enumerate((0, 2, 3, 1)):
            for shape in range(4):
                name = f"{list(COLOURS)[shape ^ block]}-{SHAPES[shape]}"
                clips.append(f"{name}-{list(DIRECTIONS)[shape ^ turn ^ first]}")
                if first == 0:
                    images.append(name)
    return images, clips


IMAGE_CLASSES, CLIP_CLASSES = map(tuple, _classes())


@dataclass(frozen=True, kw_only=True)
class ShapesSettings:
    """What a folder of shapes was drawn from; the same settings give the same bytes."""

    images: int = 512
    clips: int = 64
    size: int = 32
    frames: int = 17
    fps: float = 8.0
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError on a setting that cannot be drawn."""
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
    seed : a sample depends on the seed, its kind and its index only, not on the counts
    overwrite : draw everything anew in a folder that an earlier call made, whatever its settings; but go on with
        what such a call began with the same settings and did not complete
    report : called with (samples done, samples in all) at the start and after each sample

    Raises
    ------
    UsageError
        If a setting cannot be drawn, the folder holds anything else (even with ``overwrite``), or it was
        drawn with other settings.
    """
    settings = ShapesSettings(images=images, clips=clips, size=size, frames=frames, fps=float(fps), seed=seed)
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
    plan = (("images", IMAGE_CLASSES, settings.images, "png"), ("clips", CLIP_CLASSES, settings.clips, "mp4"))
    for kind, classes, count, ending in plan:
        for index in range(count):
            turn, member = divmod(index, len(classes))
            yield _Sample(folder / kind / classes[member] / f"{turn:05d}.{ending}", kind, index)


def _write_sample(sample: _Sample, settings: ShapesSettings) -> None:
    if sample.kind == "images":
        write_png(sample.path, draw_image(settings.seed, sample.index, settings.size))
    else:
        frames = draw_clip(settings.seed, sample.index, settings.size, settings.frames)
        write_mp4(sample.path, frames, settings.fps)


def _claim_folder(folder: Path, settings: ShapesSettings, *, overwrite: bool) -> None:
    """Make ``folder`` ours with a marker of ``settings``, or raise UsageError.

    The marker is the first thing written and never missing later, so that a half-filled or half-deleted
    folder is still known as ours.
    """
    wanted = {"made_by": "grn shapes", "drawing": DRAWING, **asdict(settings)}
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
    return found if isinstance(found, dict) and found.get("made_by") == "grn shapes" else None


def draw_image(seed: int, index: int, size: int) -> NDArray[np.uint8]:
    """Picture number ``index`` of ``IMAGE_CLASSES`` in turn, [size, size, 3] RGB."""
    random = np.random.default_rng([seed, 0, index])
    colour, shape = IMAGE_CLASSES[index % len(IMAGE_CLASSES)].split("-")
    figure = _Figure.drawn(random, colour, shape, size)
    x, y = figure.reach + random.random(2) * (size - 2 * figure.reach)
    return figure.on(_background(random, size), x, y)


def draw_clip(seed: int, index: int, size: int, frames: int) -> NDArray[np.uint8]:
    """Clip number ``index`` of ``CLIP_CLASSES`` in turn, [frames, size, size, 3] RGB.

    The shape crosses 75 to 100 % of the way that is free to it at constant speed; nothing else moves.
    """
    random = np.random.default_rng([seed, 1, index])
    colour, shape, direction = CLIP_CLASSES[index % len(CLIP_CLASSES)].split("-")
    figure = _Figure.drawn(random, colour, shape, size)
    free = size - 2 * figure.reach
    way = free * random.uniform(0.75, 1.0)
    heading = np.array(DIRECTIONS[direction])
    start = figure.reach + random.random(2) * (free - way * abs(heading))
    start += way * (heading < 0)
    background = _background(random, size)
    places = start + np.linspace(0, way, frames)[:, None] * heading
    return np.stack([figure.on(background, x, y) for x, y in places])


@dataclass(frozen=True)
class _Figure:
    """A shape with everything but its place."""

    shape: str
    radius: float
    rotation: float
    colour: NDArray[np.float64]
    size: int

    @classmethod
    def drawn(cls, random: np.random.Generator, colour: str, shape: str, size: int) -> "_Figure":
        shade = np.array(COLOURS[colour]) * random.uniform(0.88, 1.06) + random.uniform(-8, 8, 3)
        radius = size * random.uniform(0.2, 0.3)
        return cls(shape, radius, random.uniform(0, 2 * math.pi), shade.clip(0, 255), size)

    @property
    def reach(self) -> float:
        """How near its centre may come to an edge of the picture: the radius and the antialiased rim."""
        return self.radius + 0.5

    def on(self, background: NDArray[np.float64], x: float, y: float) -> NDArray[np.uint8]:
        """The picture [size, size, 3] of the figure at (x, y): a soft shadow, then the lit shape."""
        mask = self._mask(x, y)
        below = self._mask(x + self.size / 64, y + self.size / 32)
        shadow = np.asarray(below.filter(ImageFilter.GaussianBlur(self.size / 24)))[..., None] / 255
        picture = background * (1 - 0.35 * shadow)
        alpha = np.asarray(mask)[..., None] / 255
        rows, columns = np.mgrid[: self.size, : self.size] + 0.5
        light = 1 - 0.14 * ((columns - x) + (rows - y)) / (2 * self.radius)
        picture = picture * (1 - alpha) + self.colour * light[..., None] * alpha
        return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)

    def _mask(self, x: float, y: float) -> Image.Image:
        large = Image.new("L", (self.size * SUPERSAMPLING,) * 2)
        outline = [((x + dx) * SUPERSAMPLING, (y + dy) * SUPERSAMPLING) for dx, dy in self._corners()]
        ImageDraw.Draw(large).polygon(outline, fill=255)
        return large.reduce(SUPERSAMPLING)

    def _corners(self) -> list[tuple[float, float]]:
        # A circle is drawn a little smaller, so that it covers about as much as the others.
        radii = {"circle": [0.84] * 96, "square": [1.0] * 4, "triangle": [1.0] * 3, "star": [1.0, 0.46] * 5}
        ring = radii[self.shape]
        angles = [self.rotation + 2 * math.pi * step / len(ring) for step in range(len(ring))]
        return [
            (self.radius * part * math.cos(angle), self.radius * part * math.sin(angle))
            for part, angle in zip(ring, angles, strict=True)
        ]


def _background(random: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A muted gradient with soft mottling and a fine grain, [size, size, 3], 0 to 255."""
    grey = random.uniform(70, 185)
    ends = grey + random.uniform(-22, 22, (2, 1)) + random.uniform(-14, 14, (2, 3))
    angle = random.uniform(0, 2 * math.pi)
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    ramp = 0.5 + (columns * math.cos(angle) + rows * math.sin(angle)) / math.sqrt(2)
    gradient = ends[0] + (ends[1] - ends[0]) * ramp[..., None]
    coarse = Image.fromarray(random.normal(0, 7, (6, 6)).astype(np.float32))
    mottling = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    grain = random.normal(0, 1.5, (size, size))
    return np.asarray(gradient + (mottling + grain)[..., None])
