"""Sources as arrays: the pieces that a tokenizer takes."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from grncli.media import archives
from grncli.media.budgets import parse_budget
from grncli.media.clip_decoding import Alive, unwatched
from grncli.media.clip_spans import read_stretch
from grncli.media.clips import ClipReading, count_frames
from grncli.media.formats import IMAGE_SUFFIXES, open_plain, suffix_of
from grncli.media.framing import MAX_PIXELS, Framing, Stride, budget_framing, frame_array, frame_image, parse_size
from grncli.media.images import ImageDecoder, is_animation
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError, UsageError

if TYPE_CHECKING:  # decoding processes start faster without the store
    from grncli.store.captions import Span

MAX_PIECE = 512 << 20
"""Bytes of pixels in one piece."""
MIN_FPS, MAX_FPS = 0.01, 1000.0
_COPY = 1 << 20

Frame = NDArray[np.uint8]
Pieces = Generator["Piece", None, str | None]


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


def parse_reading(
    stride: Stride,
    *,
    size: str | None = None,
    budget: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    clips: int | None = None,
) -> ReadSettings:
    """How sources become pixels; UsageError that names the option which does not fit a tokenizer of ``stride``.

    Without a size or a budget pictures stay as large as they are.
    """
    framing = parse_size(size or "native") if budget is None else _parse_framing_budget(budget, size, stride)
    for side, step in ((framing.height, stride[1]), (framing.width, stride[2])):
        if side is not None and side % step:
            raise UsageError(
                f"--size {size}: {side} is no multiple of the tokenizer's stride {step}, expected multiples of "
                f"{stride[1]} and {stride[2]}"
            )
    if frames is not None and (frames < 1 or (frames - 1) % stride[0]):
        raise UsageError(f"--frames {frames}: expected 1 + {stride[0]}n, such as {1 + 4 * stride[0]}")
    if fps is not None and not MIN_FPS <= fps <= MAX_FPS:
        raise UsageError(f"--fps {fps:g}: expected {MIN_FPS:g} to {MAX_FPS:g} frames a second")
    if clips is not None and frames is None:
        raise UsageError("--clips needs --frames: without it a source is one clip, taken whole")
    return ReadSettings(framing, stride, frames, fps, clips)


def _parse_framing_budget(budget: str, size: str | None, stride: Stride) -> Framing:
    if size is not None:
        raise UsageError(f"--size {size} with --budget {budget}: expected one of the two")
    if stride[1] != stride[2]:
        raise UsageError(
            f"--budget {budget}: the tokens are {stride[1]}x{stride[2]} pixels, expected square ones; "
            "give --size HEIGHTxWIDTH instead"
        )
    pixels, token = parse_budget(budget).pixels, stride[1] * stride[2]
    if not token <= pixels <= MAX_PIXELS:
        raise UsageError(f"--budget {budget}: is {pixels} pixels, expected {token} (one token) to {MAX_PIXELS}")
    return budget_framing(pixels)


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
    enlarged: bool = False
    """Whether the size or budget asked for scaled it up."""

    @property
    def frames(self) -> int:
        """T."""
        return len(self.pixels)


def read_pieces(source: Source, settings: ReadSettings, *, alive: Alive = unwatched) -> Pieces:
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
        reached: **pieces may come before the error, and the caller must drop them**. With
        ``settings.clips`` = 1 nothing behind the first window is read, and damage there is not found.
    """
    with opened(source) as file:
        if source.kind == "image" and not is_clip_after_all(source, file):
            refuse_span(source)
            picture, note = ImageDecoder(suffix=suffix_of_source(source)).decode(file)
            image = frame_image(picture, settings.framing, settings.stride)
            enlarged = settings.framing.enlarges(picture.height, picture.width, settings.stride)
            yield Piece(np.array(image)[np.newaxis], None, None, None, enlarged)
            return note
        with on_disk(file) as descriptor:
            if settings.frames is None:
                return (yield from _whole(descriptor, source.span, settings, alive))
            return (yield from _windows(descriptor, source.span, settings, settings.frames, alive))


@contextlib.contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """The content of ``source`` as a seekable stream; MediaError if it is no plain file or cannot be read."""
    if source.problem is not None:
        raise MediaError(source.problem)
    try:
        if source.member is None:
            file = open_plain(source.path)
        else:
            file = archives.open_member(source.path, source.offset, source.size)
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


def is_clip_after_all(source: Source, file: BinaryIO) -> bool:
    """Whether a file listed as an image is an animation: a GIF, or a file without a known suffix that holds one."""
    suffix = suffix_of_source(source)
    return (suffix == "gif" or suffix not in IMAGE_SUFFIXES) and is_animation(file)


def suffix_of_source(source: Source) -> str:
    """Suffix of a file or of a member of an archive, in lower case."""
    return suffix_of(source.member or source.path)


def refuse_span(source: Source) -> None:
    """MediaError where a stretch of an image is asked for."""
    if source.span is not None:
        raise MediaError("is an image, expected a clip where begin and end are given")


def _whole(file: int, span: Span | None, settings: ReadSettings, alive: Alive) -> Pieces:
    """The whole clip, cut to whole tokens."""
    reading = ClipReading(alive)
    frames: list[Frame] = []
    enlarged = False
    for frame in read_stretch(file, span, fps=settings.fps, reading=reading):
        enlarged = settings.framing.enlarges(frame.shape[0], frame.shape[1], settings.stride)
        # A copy where framing gave a view, which would keep the whole frame alive.
        frames.append(np.ascontiguousarray(frame_array(frame, settings.framing, settings.stride)))
        _check_size(frames, reading.header.expected(settings.fps))
    step = settings.stride[0]
    dropped = (len(frames) - 1) % step
    del frames[len(frames) - dropped :]
    pixels = _stacked(frames)
    _, fps = reading.timing(0, len(pixels), settings.fps)
    yield Piece(pixels, None, reading.origin, fps, enlarged)
    return reading.note(f"{dropped} frames at the end left out to fit 1+{step}n" if dropped else None)


def _check_size(frames: list[Frame], expected: float | None) -> None:
    """Raise MediaError as soon as it is clear that a whole clip is too large."""
    count = max(len(frames), math.floor(0.9 * (expected or 0)))
    if count * frames[-1].nbytes > MAX_PIECE:
        raise MediaError(
            f"is too long to be read whole: {count} frames of {frames[-1].nbytes:,} bytes are more than "
            f"{MAX_PIECE >> 20} MiB; use --frames to read it in windows"
        )


def _stacked(frames: list[Frame]) -> NDArray[np.uint8]:
    """``np.stack`` that frees each frame once it is copied; empties ``frames``."""
    pixels = np.empty((len(frames), *frames[0].shape), np.uint8)
    while frames:
        pixels[len(frames) - 1] = frames[-1]
        frames.pop()
    return pixels


def _windows(file: int, span: Span | None, settings: ReadSettings, length: int, alive: Alive) -> Pieces:
    """Consecutive windows of ``length`` frames; those of them that the settings ask for."""
    chosen, limit = _chosen_windows(file, span, settings, length, alive)
    reading = ClipReading(alive)
    window: NDArray[np.uint8] | None = None
    count = 0
    for frame in read_stretch(file, span, fps=settings.fps, frames=limit, reading=reading):
        number, place = divmod(count, length)
        count += 1
        if chosen is not None and number not in chosen:
            continue
        framed = frame_array(frame, settings.framing, settings.stride)
        if window is None:
            window = np.empty((length, *framed.shape), np.uint8)
        window[place] = framed
        if place == length - 1:
            start, fps = reading.timing(number * length, length, settings.fps)
            enlarged = settings.framing.enlarges(frame.shape[0], frame.shape[1], settings.stride)
            yield Piece(window, number, start, fps, enlarged)
            window = None
    if count < length:
        raise too_short(count, length, settings.fps)
    left = count % length
    return reading.note(f"{left} frames at the end left out: no whole clip of {length}" if left else None)


def _chosen_windows(
    file: int, span: Span | None, settings: ReadSettings, length: int, alive: Alive
) -> tuple[set[int] | None, int | None]:
    """Numbers of the windows wanted (None: all) and after how many frames reading may stop."""
    if settings.clips is None:
        return None, None
    if settings.clips == 1:
        return {0}, length
    # Even spacing needs the exact number of frames; no header has it for every kind of clip.
    if span is None:
        count = count_frames(file, settings.fps, alive)
    else:
        count = sum(1 for _ in read_stretch(file, span, fps=settings.fps, reading=ClipReading(alive)))
    if count < length:
        raise too_short(count, length, settings.fps)
    last = count // length - 1
    wanted = min(settings.clips, last + 1)
    chosen = {round(i * last / max(1, wanted - 1)) for i in range(wanted)}
    return chosen, (max(chosen) + 1) * length


def too_short(count: int, length: int, fps: float | None) -> MediaError:
    """For a clip of ``count`` frames of which ``length`` are needed."""
    rate = f" at {fps:g} fps" if fps else ""
    return MediaError(f"has {count} frames{rate}, shorter than one clip of {length} frames; use fewer --frames")
