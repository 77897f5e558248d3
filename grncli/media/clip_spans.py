"""One stretch of a clip: the frames that a reading of all of it shows there, found by a seek to some time before."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grncli.media.clips import ClipReading, read_frames
from grncli.runtime.errors import MediaError

if TYPE_CHECKING:  # decoding processes start faster without the store
    from grncli.store.captions import Span

_LEAD = 2.0
"""Seconds before the stretch that are decoded as well: a frame shown for long may have come there."""
_ROUNDED = 0.0015
"""Seconds by which times in manifests and in clips, both of them often in milliseconds, may be off."""


def read_stretch(
    file: int,
    span: Span | None,
    *,
    fps: float | None = None,
    frames: int | None = None,
    reading: ClipReading,
) -> Iterator[NDArray[np.uint8]]:
    """Frames of a clip, as `read_frames` gives them; with ``span`` those shown from its begin on and before its end.

    Parameters
    ----------
    file, fps, frames : as of `read_frames`
    span : seconds from the first frame of the clip
    reading : filled in while frames are yielded, as if the stretch was the clip

    Raises
    ------
    MediaError
        As `read_frames`; or if the clip does not say when its frames are shown, or ends more than a tenth of the
        stretch, and two frames, before it does.
    """
    if span is None:
        yield from read_frames(file, fps=fps, frames=frames, reading=reading)
        return
    lead = _LEAD
    while not (yield from _read_from(file, span, max(0.0, span[0] - lead), fps, frames, reading)):
        lead *= 4


def _read_from(
    file: int, span: Span, start: float, fps: float | None, frames: int | None, reading: ClipReading
) -> Generator[NDArray[np.uint8], None, bool]:
    """The stretch by a reading from ``start`` on; returns False, with none read, if that may miss frames of it."""
    inner, last = ClipReading(reading.alive), 0.0
    with closing(read_frames(file, fps=fps, start=start, reading=inner)) as found:
        while True:
            try:
                frame = next(found, None)
            except MediaError:
                if start > 0 and not inner.times:  # the seek has gone beyond the end
                    return False
                raise
            if frame is None:
                break
            if start > 0 and inner.first is None:
                return False
            last = _time(inner, start, fps, last)
            if start > 0 and len(inner.times) == 1 and last > span[0] - _ROUNDED:
                return False
            if last < span[0] - _ROUNDED:
                continue
            if last >= span[1] - _ROUNDED:
                return True
            _fill(reading, inner, last, span, fps)
            yield frame
            if len(reading.times) == frames:
                return True
    _require_end(len(reading.times), last, span, fps or inner.header.fps)
    return True


def _time(inner: ClipReading, start: float, fps: float | None, before: float) -> float:
    """Seconds from the first frame of the clip to the latest of a reading; that ``before`` it has such a time too."""
    since, rate = inner.times[-1], fps or inner.header.fps
    if since is None and rate and inner.first is not None:
        return before + 1 / rate  # MPEG leaves out the times of some frames in between
    if since is None or inner.first is None:
        raise MediaError("does not say when its frames are shown; leave begin and end out")
    if start <= 0:
        return since
    first = inner.header.first if fps is None else round(inner.header.first * fps) / fps
    return inner.first + since - first


def _fill(reading: ClipReading, inner: ClipReading, time: float, span: Span, fps: float | None) -> None:
    """Note a frame of the stretch, shown at ``time``."""
    if not reading.times:
        header, length = inner.header, span[1] - span[0]
        rate = fps or header.fps
        reading.header = replace(header, duration=min(length, header.duration or length))
        # As a reading of the whole clip says it: numbers of frames of a constant rate, not its ticks.
        steady = round(time * rate) / rate if rate else time
        reading.origin = steady if abs(steady - time) <= _ROUNDED else time
        reading.left_out = 0 if span[0] > 0 else inner.left_out
    reading.tick, reading.transparent = inner.tick, inner.transparent
    reading.times.append(time - reading.origin if reading.times else 0.0)


def _require_end(count: int, last: float, span: Span, rate: float | None) -> None:
    """MediaError where a clip whose last frame is shown at ``last`` ends long before the stretch does."""
    ends = last + (1 / rate if rate else 0.0)
    missing = span[1] - ends
    if not count or (missing > 0.1 * (span[1] - span[0]) and missing > 2 / (rate or 1.0)):
        raise MediaError(
            f"ends after {ends:.2f} s, expected a stretch from {span[0]:g} to {span[1]:g} s; correct begin and end"
        )
