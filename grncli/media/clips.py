"""Frames of a clip: decoded, timed, over white, and checked for damage."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from grncli.media.clip_decoding import CODED, ONLY_LEADING, PICTURE, RESAMPLED, Alive, Decoding, Way, unwatched
from grncli.media.clip_log import Header
from grncli.media.endings import ends_inside_packet
from grncli.runtime.errors import MediaError
from grncli.runtime.system import read_at

# Complaints that say themselves that something is missing.
_MISSING = ("ended prematurely", "partial file", "CRC mismatch")
# What may lie behind the last packet of a clip that does not say how long it is; a few seconds at the most.
_MAX_JUNK = 64 << 10
_MILLISECOND = 0.0011  # and what is lost in rounding
# How far ffmpeg looks for the next packet of a transport stream.
_RESYNC, _TS_PACKET = 65536, 188


@dataclass
class ClipReading:
    """What becomes known of a clip while its frames are read."""

    alive: Alive = unwatched
    header: Header = field(default_factory=lambda: Header(None, None))
    """Known before the first frame."""
    times: list[float | None] = field(default_factory=list)
    """When each frame is shown, in seconds from the first; None where the clip does not say."""
    first: float | None = None
    """When the first of these is shown, on the clock of the clip."""
    origin: float = 0.0
    """Seconds from the first frame of the clip to the first of these."""
    tick: float = 0.0
    """Seconds to which the clip rounds its times."""
    transparent: bool = False
    """Whether a frame so far had a pixel that is not opaque."""
    left_out: int = 0
    """Frames at the start that cannot be decoded: those they are predicted from are not in the clip."""

    def timing(self, first: int, length: int, resampled: float | None) -> tuple[float | None, float | None]:
        """Start in seconds in the clip, and rate, of ``length`` frames from number ``first`` on; None where unknown.

        The times of a clip of constant rate are rounded to its ticks: such a clip keeps its nominal rate. Where the
        times do not follow it, the rate is the mean over these frames.
        """
        fps = resampled or self.header.fps
        times = self.times[first : first + length]
        if resampled is not None or None in times:
            return (self.origin + first / fps if fps else None), fps
        true = np.array(times, np.float64)
        if fps is not None:
            steady = np.arange(first, first + length) / fps
            # ffmpeg prints the rate in hundredths, and some writers round to milliseconds whatever the ticks are.
            tolerance = max(_MILLISECOND, 0.99 * min(self.tick, 0.01)) + steady * 0.005 / fps
            if (abs(true - steady) <= tolerance).all():
                return self.origin + first / fps, fps
        lasts = true[-1] - true[0]
        return round(self.origin + float(true[0]), 6), round(float((length - 1) / lasts), 6) if lasts > 0 else fps

    def note(self, at_the_end: str | None) -> str | None:
        """What was left out, in one sentence; None if nothing was."""
        lost = self.left_out
        start = f"{lost} frames at the start left out: what they are predicted from is missing" if lost else None
        return "; ".join(filter(None, [start, at_the_end])) or None


def read_header(file: int) -> Header:
    """Duration and rate of the clip in ``file``; MediaError if it is no clip."""
    with Decoding(file, None) as decoding:
        header = decoding.log.header()
        if header.fps is None and header.duration is None:
            raise MediaError(_no_frames(decoding.problem()))
        return header


def read_frames(
    file: int,
    *,
    fps: float | None = None,
    start: float = 0.0,
    frames: int | None = None,
    filters: Sequence[str] = (),
    reading: ClipReading | None = None,
) -> Generator[NDArray[np.uint8], None, None]:
    """Frames of a clip in order, one in memory at a time.

    Parameters
    ----------
    file : file descriptor of a regular file holding the whole clip
    fps : resample by time to this rate; None gives every coded frame once
    start : seconds to skip
    frames : stop after this many; None reads all
    filters : further ffmpeg video filters, applied after resampling
    reading : filled in while frames are yielded; the time of a frame is there before the frame

    Yields
    ------
    uint8 [H, W, 3]; rotation metadata is applied, transparent pixels are over white

    Raises
    ------
    MediaError
        After the last good frame, if ``file`` is no clip, or is damaged: ffmpeg complained about a
        picture, or about the container and frames are missing, or a read of the whole clip ended more than
        a tenth of its duration, and two frames, early. Or if the size of its frames changes midway: those
        after the change are scaled to the first size. A read that reaches ``frames`` is not checked: what
        ffmpeg says of the frames beyond depends on how far ahead it happened to be.
    """
    chain = [f"fps={fps:.8g}"] if fps else []
    # Of the two formats ffmpeg takes the one that loses nothing: the second for pictures with an alpha channel only.
    chain += [*filters, "format=rgb24|rgba"]
    output = [*PICTURE, "-vf", ",".join(chain), "-filter_threads", "1", "-fps_mode", "passthrough"]
    output += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int"]
    output += ["-frames:v", str(frames)] if frames is not None else []
    output += ["-f", "image2pipe", "-c:v", "pam", "pipe:1"]
    reading = reading or ClipReading()
    count, first = 0, 0.0
    with _begun(file, output, start, reading, RESAMPLED if fps else CODED) as decoding:
        for frame, time in decoding.frames():
            if not count and time is not None:
                first = reading.first = time
            reading.tick, reading.transparent = decoding.tick, decoding.transparent
            reading.times.append(None if time is None else time - first)
            count += 1
            reading.alive()
            yield frame
            if count == frames:
                return
        _check(file, count, decoding, reading, fps, start, whole=frames is None and start <= 0)


def count_frames(file: int, fps: float | None = None, alive: Alive = unwatched) -> int:
    """Number of frames :func:`read_frames` gives for the whole clip, with the same checks."""
    output = [*PICTURE, *(["-vf", f"fps={fps:.8g}"] if fps else []), "-fps_mode", "passthrough", "-f", "null", "-"]
    reading = ClipReading(alive)
    with _begun(file, output, 0.0, reading, CODED) as decoding:
        count = sum(1 for _ in decoding.times(alive))
        _check(file, count, decoding, reading, fps, 0.0, whole=True)
    return count


@contextlib.contextmanager
def _begun(file: int, output: Sequence[str], seconds: float, reading: ClipReading, timed: str) -> Iterator[Decoding]:
    """A decoding at its first frame; started again where that frame shows that it needs another way."""
    way, complaint = Way(seconds), None
    while True:
        # One at a time: they would move each other's place in the file.
        with Decoding(file, output, way, timed=timed) as decoding:
            some = decoding.begun()
            reading.header = decoding.log.header()
            hidden = reading.header.decoder if reading.header.decoder != way.decoder else None
            # All that led to the first frame was said before it came.
            suspicion = decoding.log.suspicion()
            if hidden is None and (complaint or not suspicion or not some):
                if complaint and not some:
                    raise MediaError(_no_frames(complaint))
                yield decoding
                return
        if hidden is not None:
            way = replace(way, decoder=hidden)
            continue
        complaint = suspicion
        # A seek may land between keyframes; only frames missing at the start of the clip are reported.
        reading.left_out = _leading(file, reading.alive) if seconds <= 0 else 0
        way = replace(way, skip_leading=seconds > 0 or reading.left_out > 0)


def _leading(file: int, alive: Alive) -> int:
    """Number of packets before the first keyframe, and of those shown before it."""
    # No clip waits so long for a keyframe; and it could be hours long.
    output = [*PICTURE, "-t", "120", "-c", "copy", "-copyinkf", "-bsf:v", ONLY_LEADING]
    return _progress(file, output, b"frame=", alive)


def _check(
    file: int,
    count: int,
    decoding: Decoding,
    reading: ClipReading,
    fps: float | None,
    start: float,
    *,
    whole: bool,
) -> None:
    """Raise MediaError if a decode that gave ``count`` frames, and has ended, was damaged or short."""
    if count == 0:
        raise MediaError(_no_frames(decoding.problem()))
    header = decoding.log.header()
    expected = header.expected(fps) if whole else None
    about = f" of about {round(expected)}" if expected else ""
    if (change := decoding.log.resized()) is not None:
        raise MediaError(f"changes its frame size {change} midway; cut it into clips of one size each")
    failure = decoding.failure()
    problem = decoding.log.damage() or failure
    if problem is None and start <= 0 and (complaints := decoding.log.container_complaints()):
        problem = None if _is_complete(file, complaints, header, reading.alive) else complaints[0]
    if problem is not None:
        raise MediaError(f'decoded {count}{about} frames, then "{problem}"')
    if whole and ends_inside_packet(file, header.container):
        # ffmpeg says nothing of it, and shows of the last picture what is there.
        raise MediaError(f"decoded {count} frames, then it ended inside a packet; the file is cut short")
    if expected is None or expected - count < 2 or count >= 0.9 * expected or header.duration is None:
        return
    # Some codecs leave out frames that repeat the one before: those clips have few, but last.
    reached = decoding.log.reached - header.first
    if reached < 0.9 * header.duration and not _other_stream_lasts(file, header):
        raise MediaError(f"decoded {count}{about} frames, then it ended; the file is cut short")


def _is_complete(file: int, complaints: Sequence[str], header: Header, alive: Alive) -> bool:
    """Whether all frames of a constant rate are there, from the first to the end, in spite of ``complaints``."""
    if any(text in complaint for complaint in complaints for text in _MISSING):
        return False
    with Decoding(file, [*PICTURE, "-fps_mode", "passthrough", "-f", "null", "-"], timed=CODED) as decoding:
        times = list(decoding.times(alive))
    known = np.array([time for time in times if time is not None])
    if len(known) < max(2, len(times)):
        return False
    steps = np.diff(known)
    usual = float(np.median(steps))
    if usual <= 0 or steps.min() < 0 or steps.max() > 1.5 * usual:
        return False
    if header.duration is not None and header.duration - (known[-1] + usual - known[0]) > 1.5 * usual:
        return False
    return (header.counted and header.duration is not None) or all(_is_junk(file, text) for text in complaints)


def _is_junk(file: int, complaint: str) -> bool:
    """Whether a complaint is about padding at the end, or so little that it can be left out of account."""
    size, padding = os.fstat(file).st_size, _padding(file)
    if "max resync size reached" in complaint:
        return padding >= _RESYNC - _TS_PACKET
    place = re.search(r"at pos(?:ition)? (\d+)", complaint)
    rest = re.search(r"Truncating packet of size \d+ to (\d+)", complaint)
    left = size - int(place[1]) if place else int(rest[1]) if rest else None
    return left is not None and left <= max(_MAX_JUNK, size // 10, padding)


def _padding(file: int) -> int:
    """Number of zeros that a file ends with."""
    end = size = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _MAX_JUNK)
        solid = read_at(file, end - start, start).rstrip(b"\0")
        if solid or start == 0:
            return size - start - len(solid)
        end = start
    return size


def _other_stream_lasts(file: int, header: Header) -> bool:
    """Whether sound or subtitles fill the duration that the picture does not."""
    if header.streams < 2 or header.duration is None:
        return False
    last = _progress(file, ["-map", "0", "-map", "-0:V:0", "-c", "copy"], b"out_time_us=") / 1e6
    return last - header.first >= 0.9 * header.duration


def _progress(file: int, output: Sequence[str], key: bytes, alive: Alive = unwatched) -> int:
    """The last whole number that ffmpeg reports behind ``key``, such as ``frame=``; 0 without any."""
    last = 0
    with Decoding(file, [*output, "-progress", "pipe:1", "-f", "null", "-"]) as decoding:
        for line in decoding.output:
            if line.startswith(key) and line[len(key) : len(key) + 1].isdigit():
                last = int(line[len(key) :])
                alive()
    return last


def _no_frames(problem: str | None) -> str:
    if problem is None:
        return "holds no frame"
    if "matches no streams" in problem:
        return "holds no picture, only sound or data"
    if "whitelist" in problem:
        return "is a playlist or another kind of file that is not read as a clip"
    return f'no frame could be decoded: "{problem}"'
