"""Folders of labelled pictures and clips, so that everything can be tried without a download."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from grncli.demo.drawings import draw_clip, draw_group, draw_image
from grncli.demo.shape_sets import SETS
from grncli.demo.wordings import GROUP, captions_of
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.differences import describe_differences
from grncli.runtime.errors import UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.folders import FolderMarker, make_folder, remove
from grncli.runtime.monitor import Monitor

MARKER = "shapes.json"
OVERWRITING = ".overwriting"  # from the start of an overwrite until all is drawn
SMALLEST_SIZE = 16
MOST_ENCODERS = 8


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
    captions: bool = False  # a text file beside each drawing
    groups: int = 0  # pictures of four small figures
    without: tuple[str, ...] = ()  # COLOUR-SHAPE combinations that no drawing shows

    def check(self) -> None:
        """Raise UsageError on a setting that cannot be drawn."""
        if self.set not in SETS:
            raise UsageError(f"The set of shapes is {self.set!r}, expected {' or '.join(SETS)}.")
        for name in ("images", "clips", "size", "frames", "seed", "groups"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"The number {name} is {getattr(self, name)!r}, expected a whole number.")
        without: Any = self.without  # a caller may not heed the type
        if isinstance(without, str):
            raise UsageError(f"What is left out is {without!r}, expected a list of names.")
        if min(self.images, self.clips, self.groups, self.seed) < 0:
            raise UsageError("The numbers of images, clips and groups and the seed cannot be negative.")
        if self.size < SMALLEST_SIZE:
            raise UsageError(f"Shapes need pictures of at least {SMALLEST_SIZE} pixels, not {self.size}.")
        if self.frames < 2:
            raise UsageError(f"A clip needs at least 2 frames to show a direction, not {self.frames}.")
        if not (math.isfinite(self.fps) and 0.01 <= self.fps <= 1000):
            raise UsageError(f"A clip's frame rate must lie between 0.01 and 1000, not be {self.fps}.")
        drawn = SETS[self.set]
        unknown = [name for name in self.without if name not in drawn.image_classes]
        if unknown:
            raise UsageError(
                f"There is no {' and no '.join(unknown)} to leave out, expected a colour and a shape of "
                f"{', '.join(drawn.colours)} and {', '.join(drawn.shapes)}, such as {drawn.image_classes[0]}."
            )
        if len(set(self.without)) == len(drawn.image_classes):
            raise UsageError(f"All {len(drawn.image_classes)} combinations are left out, expected some to be drawn.")

    def record(self) -> dict[str, Any]:
        """As the folder's marker has them; what is not asked for is no part of it, as it was before there was such."""
        record = {**asdict(self), "without": sorted(set(self.without))}
        return {name: value for name, value in record.items() if value or name not in ("captions", "groups", "without")}


@dataclass(frozen=True)
class ShapesSummary:
    """How many files a call wrote and how many were already there."""

    written: int
    present: int


@dataclass(frozen=True)
class _ShapeSample:
    path: Path
    kind: str
    index: int
    caption: Path | None

    def is_there(self) -> bool:
        return self.path.exists() and (self.caption is None or self.caption.exists())


def write_shapes(
    folder: Path, settings: ShapesSettings, *, overwrite: bool = False, monitor: Monitor | None = None
) -> ShapesSummary:
    """Fill ``folder`` with ``images/CLASS/00000.png`` and ``clips/CLASS/00000.mp4``, and ``00000.txt`` beside each.

    Parameters
    ----------
    folder : new, empty, or begun by an earlier call with the same settings, which this call completes
    overwrite : draw everything again in a folder that an earlier call made, whatever its settings; but resume an
        overwrite with the same settings that is not complete
    monitor : its progress is called at the start and after each sample

    Raises
    ------
    UsageError
        If a setting cannot be drawn, the folder holds anything else (even with ``overwrite``), or it was
        drawn with other settings.
    """
    monitor = monitor or Monitor()
    settings.check()
    _claim_folder(folder, settings, overwrite=overwrite)
    samples = list(_samples(folder, settings))
    missing = [sample for sample in samples if not sample.is_there()]
    for parent in sorted({sample.path.parent for sample in missing}):
        make_folder(parent.parent)
        make_folder(parent)
    present = len(samples) - len(missing)
    monitor.progress(present, len(samples), "")
    # Threads suffice: the encoders are processes of their own.
    pool = ThreadPoolExecutor(min(MOST_ENCODERS, os.cpu_count() or 1))
    try:
        writes = [pool.submit(_write_sample, sample, settings) for sample in missing]
        for done, write in enumerate(as_completed(writes), start=present + 1):
            write.result()
            monitor.progress(done, len(samples), "")
    finally:
        pool.shutdown(cancel_futures=True)
    remove(folder / OVERWRITING)
    return ShapesSummary(written=len(missing), present=present)


def _samples(folder: Path, settings: ShapesSettings) -> Iterator[_ShapeSample]:
    shapes = SETS[settings.set]
    plan = (
        ("images", shapes.image_classes, settings.images, "png"),
        ("clips", shapes.clip_classes, settings.clips, "mp4"),
    )
    for kind, classes, wanted, ending in plan:
        # A drawing is what its number says, whatever is left out.
        for index in islice((index for index in count() if _is_drawn(classes, index, settings)), wanted):
            turn, member = divmod(index, len(classes))
            path = folder / kind / classes[member] / f"{turn:05d}.{ending}"
            yield _ShapeSample(path, kind, index, path.with_suffix(".txt") if settings.captions else None)
    for index in range(settings.groups):
        path = folder / "images" / GROUP / f"{index:05d}.png"
        yield _ShapeSample(path, "groups", index, path.with_suffix(".txt") if settings.captions else None)


def _is_drawn(classes: Sequence[str], index: int, settings: ShapesSettings) -> bool:
    return "-".join(classes[index % len(classes)].split("-")[:2]) not in settings.without


def _write_sample(sample: _ShapeSample, settings: ShapesSettings) -> None:
    if sample.caption is not None:
        with whole_file(sample.caption) as temporary:
            temporary.write_text(
                "".join(f"{text}\n" for text in captions_of(sample.path.parent.name)), encoding="utf-8"
            )
    if sample.kind == "images":
        write_png(sample.path, draw_image(settings.seed, sample.index, settings.size, settings.set))
    elif sample.kind == "groups":
        write_png(sample.path, draw_group(settings.seed, sample.index, settings.size, settings.set, settings.without))
    else:
        frames = draw_clip(settings.seed, sample.index, settings.size, settings.frames, settings.set)
        write_mp4(sample.path, frames, settings.fps)


def _claim_folder(folder: Path, settings: ShapesSettings, *, overwrite: bool) -> None:
    """Mark ``folder`` with the settings, or raise UsageError.

    The marker is the first thing written and never missing later, so that a half-filled or half-deleted
    folder is still known as ours.
    """
    marker = FolderMarker(
        folder=folder,
        file=folder / MARKER,
        command="grn shapes",
        purpose="a folder for the shapes",
        remedy="choose a new or empty folder",
    )
    wanted = {"made_by": "grn shapes", "drawing": SETS[settings.set].drawing, **settings.record()}
    there = marker.read()
    if there is not None:
        there = {"set": "hard", **there}  # before there were two, it was the only one
        if there == wanted and (not overwrite or (folder / OVERWRITING).exists()):
            return
        if there.get("made_by") != "grn shapes" or not overwrite:
            changes = describe_differences(there, wanted)
            raise UsageError(f"{folder} was drawn with other settings ({changes}); {marker.remedy}, or --overwrite it")
        for kind in ("images", "clips"):
            remove(folder / kind)  # of a link only the link itself
    folder.mkdir(parents=True, exist_ok=True)
    marker.write(wanted)
    if overwrite:
        with whole_file(folder / OVERWRITING) as temporary:
            temporary.touch()
