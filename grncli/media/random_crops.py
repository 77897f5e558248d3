"""Random crops of sources: what the training of a tokenizer takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.media.clip_decoding import Alive, unwatched
from grncli.media.clip_log import Header
from grncli.media.clips import ClipReading, read_frames, read_header
from grncli.media.images import open_image
from grncli.media.reading import is_clip_after_all, on_disk, opened, refuse_span, suffix_of_source, too_short
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError


@dataclass(frozen=True)
class Crop:
    """A random square of a source for training; everything random in it follows from ``seed``."""

    size: int
    """Side of the result in pixels."""
    frames: int
    """1 for a still image or one frame of a clip."""
    fps: float | None
    """Rate to resample clips to; a clip's own rate if that is lower, or if None."""
    scale: tuple[float, float]
    """Bounds of the square's side as a share of the shorter side of the source."""
    flip: float
    """Probability of mirroring left and right."""
    seed: int


def read_crop(source: Source, crop: Crop, *, alive: Alive = unwatched) -> NDArray[np.uint8]:
    """A random crop of one source; the same source and ``crop`` always give the same pixels.

    Returns
    -------
    uint8 [T, S, S, 3] with T = crop.frames and S = crop.size

    Raises
    ------
    MediaError
        If the source is damaged, too short, or an image where several frames are asked for.
    """
    place = _Place.drawn(crop)
    with opened(source) as file:
        if source.kind == "image":
            if crop.frames == 1:
                refuse_span(source)
                return _image_crop(source, file, crop, place)
            if not is_clip_after_all(source, file):
                raise MediaError(f"is an image, but clips of {crop.frames} frames are asked for")
        with on_disk(file) as descriptor:
            return _clip_crop(source, descriptor, crop, place, alive)


@dataclass(frozen=True)
class _Place:
    """The random numbers of a crop, drawn before anything is known of the source."""

    share: float
    across: float
    down: float
    flipped: bool
    when: float

    @staticmethod
    def drawn(crop: Crop) -> _Place:
        share, across, down, flip, when = np.random.default_rng(crop.seed).random(5).tolist()
        low, high = crop.scale
        return _Place(low + (high - low) * share, across, down, flip < crop.flip, when)


def _image_crop(source: Source, file: BinaryIO, crop: Crop, place: _Place) -> NDArray[np.uint8]:
    image = open_image(file, at_least=math.ceil(crop.size / place.share), suffix=suffix_of_source(source))
    side = max(1, round(place.share * min(image.size)))
    left = int(place.across * (image.width - side + 1))
    top = int(place.down * (image.height - side + 1))
    box = (left, top, left + side, top + side)
    square = image.resize((crop.size, crop.size), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    if place.flipped:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(square)[np.newaxis]


def _clip_crop(source: Source, file: int, crop: Crop, place: _Place, alive: Alive) -> NDArray[np.uint8]:
    header = _header(source, file)
    fps = min(crop.fps, header.fps or crop.fps) if crop.fps else None
    rate = fps or header.fps
    earliest, end = source.span or (0.0, math.inf)
    if rate and (end - earliest) * rate < crop.frames - 0.5:
        raise too_short(max(1, math.floor((end - earliest) * rate)), crop.frames, fps)
    latest = max(earliest, min(end, header.duration or 0.0) - crop.frames / rate) if rate else earliest
    start = earliest + place.when * (latest - earliest)
    # From the first picture on: sound may begin before it, and seeking counts from the first of all.
    start += header.first if start > 0 else 0.0
    while True:
        frames = _crop_window(file, crop, place, fps, start, alive)
        if len(frames) == crop.frames:
            return np.stack(frames)
        if start <= earliest:
            raise too_short(len(frames), crop.frames, fps)
        # Durations are rounded, and sound may outlast the picture: go back by what was missing.
        back = (crop.frames - len(frames) + 1) / rate if rate and frames else start
        start = max(earliest, start - back)


def _crop_window(
    file: int, crop: Crop, place: _Place, fps: float | None, start: float, alive: Alive
) -> list[NDArray[np.uint8]]:
    """Up to crop.frames frames from ``start``; ffmpeg crops and scales, so little is passed on."""
    share, across, down = place.share, place.across, place.down
    cropped = f"crop=w='max(2,round({share:.6f}*min(iw,ih)))':h=ow:x='(iw-ow)*{across:.6f}':y='(ih-oh)*{down:.6f}'"
    scaled = f"scale={crop.size}:{crop.size}:flags=bicubic"
    flipped = ["hflip"] if place.flipped else []
    reading = ClipReading(alive)
    frames = _some_frames(file, crop, fps, start, [cropped, scaled, *flipped], reading)
    if not reading.transparent:
        return frames
    # A transparent pixel must be white before it is mixed with its neighbours.
    frames = _some_frames(file, crop, fps, start, [cropped, *flipped], ClipReading(alive))
    size = (crop.size, crop.size)
    return [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]


def _some_frames(
    file: int,
    crop: Crop,
    fps: float | None,
    start: float,
    filters: list[str],
    reading: ClipReading,
) -> list[NDArray[np.uint8]]:
    """Up to crop.frames frames from ``start``; none where a seek has gone beyond the end."""
    frames: list[NDArray[np.uint8]] = []
    try:
        for frame in read_frames(file, fps=fps, start=start, frames=crop.frames, filters=filters, reading=reading):
            frames.append(frame)
    except MediaError:
        # Seeking to the very end finds no frame; the same from the start is a real failure.
        if frames or start <= 0:
            raise
    return frames


_headers: dict[tuple[str, str | None, int], Header] = {}


def _header(source: Source, file: int) -> Header:
    """Header of a clip, remembered: training comes back to each clip in every epoch."""
    key = (source.path, source.member, source.offset)
    if key not in _headers:
        if len(_headers) >= 10_000:
            _headers.clear()
        _headers[key] = read_header(file)
    return _headers[key]
