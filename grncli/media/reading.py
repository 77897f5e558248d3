"""Sources as arrays: what a tokenizer takes (pieces) and what its training takes (crops)."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.media import archives, clips
from grncli.media.formats import IMAGE_SUFFIXES, open_plain, suffix_of
from grncli.media.framing import Framing, Stride, frame_array, frame_image
from grncli.media.images import decode_image, is_animation, open_image
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError

MAX_PIECE = 512 << 20
"""Bytes of pixels in one piece."""
_COPY = 1 << 20
_MILLISECOND = 0.0011
"""And what is lost in rounding."""

Alive = Callable[[], None]


@dataclass(frozen=True)
class ReadSettings:
    """How sources are turned into pieces."""

    framing: Framing
    stride: Stride
    """(frames, rows, columns) of one token."""
    frames: int | None = None
    """Frames of one window, 1 + stride[0] * n; None takes each clip whole."""
    fps: float | None = None
    """Resample clips in time; None keeps every coded frame."""
    clips: int | None = None
    """Windows of each clip: None all of them, 1 the first, K that many, evenly spread."""


@dataclass(frozen=True)
class Piece:
    """Pixels that go through the tokenizer together."""

    pixels: NDArray[np.uint8]
    """[T, H, W, 3]; T is 1 for images."""
    clip: int | None
    """Number of the window in its clip; None for images and whole clips."""
    start: float | None
    """When its first frame is shown, in seconds from the first frame of the clip; None for images and where unknown."""
    fps: float | None
    """Rate of ``pixels``, the mean rate if it varies; None for images and where unknown."""
    frames: int
    """T."""


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


def read_pieces(
    source: Source, settings: ReadSettings, *, alive: Alive | None = None
) -> Generator[Piece, None, str | None]:
    """Pieces of one source, in order, never more than one of them in memory.

    Parameters
    ----------
    source : an image gives one piece of one frame; a GIF of five or more frames counts as a clip
    settings : framing and windows; ``frames`` must be 1 + stride[0] * n
    alive : called for every frame decoded, so that a watcher can tell slow from stuck

    Yields
    ------
    Piece

    Returns
    -------
    A note on what was left out (frames that fill no window or token, or that cannot be decoded because the clip
    starts behind those they are predicted from) or is missing (an end marker), or None.

    Raises
    ------
    MediaError
        With a reason that does not name the source. Damage at the end of a clip is found only when it is
        reached: **pieces may have been given before the error, and the caller must drop them**. With
        ``settings.clips`` = 1 nothing behind the first window is read, and damage there is not found.
    """
    with opened(source) as file:
        if source.kind == "image" and not _is_clip_after_all(source, file):
            picture, note = decode_image(file, suffix=_suffix(source))
            image = frame_image(picture, settings.framing, settings.stride)
            yield Piece(np.array(image)[np.newaxis], None, None, None, 1)
            return note
        with on_disk(file) as descriptor:
            if settings.frames is None:
                return (yield from _whole(descriptor, settings, alive))
            return (yield from _windows(descriptor, settings, settings.frames, alive))


def read_crop(source: Source, crop: Crop, *, alive: Alive | None = None) -> NDArray[np.uint8]:
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
                return _image_crop(source, file, crop, place)
            if not _is_clip_after_all(source, file):
                raise MediaError(f"is an image, but clips of {crop.frames} frames are asked for")
        with on_disk(file) as descriptor:
            return _clip_crop(source, descriptor, crop, place, alive)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """The content of ``source`` as a seekable stream; MediaError if it is no plain file or cannot be read."""
    if source.problem is not None:
        raise MediaError(source.problem)
    try:
        if source.member is not None:
            file = archives.open_member(source.path, source.member, source.offset, source.size)
        else:
            file = open_plain(source.path)
    except OSError as error:
        raise MediaError(f"cannot be opened: {error.strerror or error}") from None
    with file:
        yield file


@contextlib.contextmanager
def on_disk(file: BinaryIO) -> Iterator[int]:
    """Descriptor of a regular file with the content of ``file``: ffmpeg must be able to seek in it."""
    try:
        yield file.fileno()
        return
    except OSError as error:
        # BytesIO: the member of an archive. Anything else is the caller's own error.
        if file.__class__.__name__ != "BytesIO":
            raise MediaError(f"cannot be read: {error.strerror or error}") from None
    with tempfile.TemporaryFile() as copy:
        while part := file.read(_COPY):
            copy.write(part)
        copy.flush()
        yield copy.fileno()


def _is_clip_after_all(source: Source, file: BinaryIO) -> bool:
    # A suffix of another image is believed; without a known one the content decides.
    suffix = _suffix(source)
    return (suffix == "gif" or suffix not in IMAGE_SUFFIXES) and is_animation(file)


def _suffix(source: Source) -> str:
    return suffix_of(source.member or source.path)


def _whole(file: int, settings: ReadSettings, alive: Alive | None) -> Generator[Piece, None, str | None]:
    """The whole clip, cut to whole tokens."""
    reading = clips.Reading(alive)
    frames: list[NDArray[np.uint8]] = []
    for frame in clips.read_frames(file, fps=settings.fps, reading=reading):
        # A copy where framing gave a view, which would keep the whole frame alive.
        frames.append(np.ascontiguousarray(frame_array(frame, settings.framing, settings.stride)))
        _check_size(frames, _header_of(reading).expected(settings.fps))
        if alive is not None:
            alive()
    step = settings.stride[0]
    dropped = (len(frames) - 1) % step
    del frames[len(frames) - dropped :]
    pixels = _stacked(frames)
    _, fps = _when(reading, 0, len(pixels), settings.fps)
    yield Piece(pixels, None, 0.0, fps, len(pixels))
    return _note(reading, f"{dropped} frames at the end left out to fit 1+{step}n" if dropped else None)


def _header_of(reading: clips.Reading) -> clips.Header:
    assert reading.header is not None
    return reading.header


def _when(
    reading: clips.Reading, first: int, length: int, resampled: float | None
) -> tuple[float | None, float | None]:
    """Start in seconds and rate of ``length`` frames from number ``first`` on; None where unknown.

    A clip of a constant rate is held to that rate: its times are rounded to the clip's ticks. Where the times do not
    follow it, they are the truth, and the rate is the mean over these frames.
    """
    fps = resampled or _header_of(reading).fps
    times = reading.times[first : first + length]
    if resampled is not None or None in times:
        return (first / fps if fps else None), fps
    true = np.array(times, np.float64)
    if fps is not None:
        steady = np.arange(first, first + length) / fps
        # ffmpeg tells the rate in hundredths, and some writers round to milliseconds whatever the clip's ticks are.
        tolerance = max(_MILLISECOND, 0.99 * min(reading.tick, 0.01)) + steady * 0.005 / fps
        if (abs(true - steady) <= tolerance).all():
            return first / fps, fps
    lasts = true[-1] - true[0]
    return round(float(true[0]), 6), round(float((length - 1) / lasts), 6) if lasts > 0 else fps


def _note(reading: clips.Reading, *more: str | None) -> str | None:
    """What was left out, in one sentence; None if nothing was."""
    lost = reading.left_out
    start = f"{lost} frames at the start left out: what they are predicted from is missing" if lost else None
    return "; ".join(filter(None, [start, *more])) or None


def _check_size(frames: list[NDArray[np.uint8]], expected: float | None) -> None:
    """Raise MediaError as soon as it is clear that a whole clip is too large."""
    count = max(len(frames), math.floor(0.9 * (expected or 0)))
    if count * frames[-1].nbytes > MAX_PIECE:
        raise MediaError(
            f"is too long to be read whole: {count} frames of {frames[-1].nbytes:,} bytes are more than "
            f"{MAX_PIECE >> 20} MiB; use --frames to read it in windows"
        )


def _stacked(frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """``np.stack`` that lets go of each frame as it is copied; empties ``frames``."""
    pixels = np.empty((len(frames), *frames[0].shape), np.uint8)
    while frames:
        pixels[len(frames) - 1] = frames[-1]
        frames.pop()
    return pixels


def _windows(file: int, settings: ReadSettings, length: int, alive: Alive | None) -> Generator[Piece, None, str | None]:
    """Consecutive windows of ``length`` frames; those of them that the settings ask for."""
    chosen, limit = _chosen_windows(file, settings, length, alive)
    reading = clips.Reading(alive)
    window: NDArray[np.uint8] | None = None
    count = 0
    for frame in clips.read_frames(file, fps=settings.fps, frames=limit, reading=reading):
        if alive is not None:
            alive()
        number, place = divmod(count, length)
        count += 1
        if chosen is not None and number not in chosen:
            continue
        framed = frame_array(frame, settings.framing, settings.stride)
        if window is None:
            window = np.empty((length, *framed.shape), np.uint8)
        window[place] = framed
        if place == length - 1:
            start, fps = _when(reading, number * length, length, settings.fps)
            yield Piece(window, number, start, fps, length)
            window = None
    if count < length:
        raise _too_short(count, length, settings.fps)
    left = count % length
    return _note(reading, f"{left} frames at the end left out: no whole clip of {length}" if left else None)


def _chosen_windows(
    file: int, settings: ReadSettings, length: int, alive: Alive | None
) -> tuple[set[int] | None, int | None]:
    """Numbers of the windows wanted (None: all) and after how many frames reading may stop."""
    if settings.clips is None:
        return None, None
    if settings.clips == 1:
        return {0}, length
    # Even spacing needs the exact number of frames; no header has it for every kind of clip.
    count = clips.count_frames(file, settings.fps, alive)
    if count < length:
        raise _too_short(count, length, settings.fps)
    last = count // length - 1
    wanted = min(settings.clips, last + 1)
    chosen = {round(i * last / max(1, wanted - 1)) for i in range(wanted)}
    return chosen, (max(chosen) + 1) * length


def _too_short(count: int, length: int, fps: float | None) -> MediaError:
    rate = f" at {fps:g} fps" if fps else ""
    return MediaError(f"has {count} frames{rate}, shorter than one clip of {length} frames; use fewer --frames")


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
    image = open_image(file, at_least=math.ceil(crop.size / place.share), suffix=_suffix(source))
    side = max(1, round(place.share * min(image.size)))
    left = int(place.across * (image.width - side + 1))
    top = int(place.down * (image.height - side + 1))
    box = (left, top, left + side, top + side)
    square = image.resize((crop.size, crop.size), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    if place.flipped:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(square)[np.newaxis]


def _clip_crop(source: Source, file: int, crop: Crop, place: _Place, alive: Alive | None) -> NDArray[np.uint8]:
    header = _header(source, file)
    fps = min(crop.fps, header.fps or crop.fps) if crop.fps else None
    rate = fps or header.fps
    latest = max(0.0, (header.duration or 0.0) - crop.frames / rate) if rate else 0.0
    start = place.when * latest
    # From the first picture on: sound may begin before it, and seeking counts from the first of all.
    start += header.first if start > 0 else 0.0
    while True:
        frames = _crop_window(file, crop, place, fps, start, alive)
        if len(frames) == crop.frames:
            return np.stack(frames)
        if start <= 0:
            raise _too_short(len(frames), crop.frames, fps)
        # Durations are rounded, and sound may outlast the picture: go back by what was missing.
        back = (crop.frames - len(frames) + 1) / rate if rate and frames else start
        start = max(0.0, start - back)


def _crop_window(
    file: int, crop: Crop, place: _Place, fps: float | None, start: float, alive: Alive | None
) -> list[NDArray[np.uint8]]:
    """Up to crop.frames frames from ``start``; ffmpeg crops and scales, so little is passed on."""
    share, across, down = place.share, place.across, place.down
    cropped = f"crop=w='max(2,round({share:.6f}*min(iw,ih)))':h=ow:x='(iw-ow)*{across:.6f}':y='(ih-oh)*{down:.6f}'"
    scaled = f"scale={crop.size}:{crop.size}:flags=bicubic"
    flipped = ["hflip"] if place.flipped else []
    reading = clips.Reading(alive)
    frames = _some_frames(file, crop, fps, start, [cropped, scaled, *flipped], reading)
    if not reading.transparent:
        return frames
    # A transparent pixel must be white before it is mixed with its neighbours.
    frames = _some_frames(file, crop, fps, start, [cropped, *flipped], clips.Reading(alive))
    size = (crop.size, crop.size)
    return [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]


def _some_frames(
    file: int,
    crop: Crop,
    fps: float | None,
    start: float,
    filters: list[str],
    reading: clips.Reading,
) -> list[NDArray[np.uint8]]:
    """Up to crop.frames frames from ``start``; none where a seek has gone beyond the end."""
    frames: list[NDArray[np.uint8]] = []
    try:
        for frame in clips.read_frames(
            file, fps=fps, start=start, frames=crop.frames, filters=filters, reading=reading
        ):
            frames.append(frame)
            if reading.alive is not None:
                reading.alive()
    except MediaError:
        # Seeking to the very end finds no frame; the same from the start is a real failure.
        if frames or start <= 0:
            raise
    return frames


_headers: dict[tuple[str, str | None, int], clips.Header] = {}


def _header(source: Source, file: int) -> clips.Header:
    """Header of a clip, remembered: training comes back to each clip in every epoch."""
    key = (source.path, source.member, source.offset)
    if key not in _headers:
        if len(_headers) >= 10_000:
            _headers.clear()
        _headers[key] = clips.read_header(file)
    return _headers[key]
