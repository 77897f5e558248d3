"""Frames of a clip, decoded by the bundled ffmpeg in a process of its own.

ffmpeg is given an open file descriptor instead of a name, may use no other protocol and only knows
real containers: whatever a file claims to contain, no other file or address is ever opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np
from numpy.typing import NDArray

from grncli.errors import MediaError
from grncli.media.framing import MAX_PIXELS

CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,gif,flv,asf,ogg,yuv4mpegpipe"
# Frame threads multiply memory and add little when several workers decode side by side.
_THREADS = 2
# Lines at level error that say nothing about the pixels.
_HARMLESS = (
    "Not detecting m3u8",
    "co located POCs unavailable",
    "mmco: unref short failure",
    "deprecated pixel format",
    "non monotonically increasing dts",
)
# Sound is not decoded, but ffmpeg looks into it when it opens a file, and complains.
_SOUND = re.compile(r"\[(aac|aac_latm|mp[123]\w*|ac3|eac3|opus|vorbis|flac|dca|truehd|pcm_\w+) @")
_RESIZED = re.compile(r"\[info\] Reconfiguring filter graph because .*video parameters changed to .*?, (\d+x\d+)")
_BROADCAST_RATES = {rate: round(rate * 1.001) / 1.001 for rate in (23.98, 29.97, 47.95, 59.94, 119.88)}


@dataclass(frozen=True, slots=True)
class Header:
    """What a clip says of itself before a frame is decoded; a damaged or odd clip may say nothing."""

    duration: float | None
    """Seconds, of the longest stream."""
    fps: float | None
    """Average frames per second of the picture."""
    streams: int = 1
    """Number of streams, sound and subtitles included."""

    def expected(self, fps: float | None = None) -> float | None:
        """About how many frames there are, resampled to ``fps`` if given."""
        rate = fps or self.fps
        return self.duration * rate if self.duration and rate else None


def widen_pipe(pipe: IO[bytes]) -> None:
    """Let a pipe hold 1 MiB, where the system allows it: its writer goes on while the reader is busy."""
    request = getattr(fcntl, "F_SETPIPE_SZ", None)
    if request is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, request, 1 << 20)


@lru_cache(maxsize=1)
def ffmpeg() -> str:
    """Path of the bundled ffmpeg."""
    # Imported here because images do not need it and a worker should start fast.
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


class Decoding:
    """One run of ffmpeg over an open file; iterate for frames, close to end it early.

    Parameters
    ----------
    file : file descriptor of a regular file holding the whole clip
    output : ffmpeg's output options; None only reads the header
    seconds : where to start
    """

    def __init__(self, file: int, output: Sequence[str] | None, seconds: float = 0.0) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        command = [ffmpeg(), "-hide_banner", "-nostdin", "-nostats", "-v", "level+info"]
        command += ["-protocol_whitelist", "fd", "-format_whitelist", CONTAINERS]
        command += ["-threads", str(_THREADS), "-max_pixels", str(MAX_PIXELS)]
        command += ["-ss", f"{seconds:.6f}"] if seconds > 0 else []
        command += ["-fd", str(file), "-i", "fd:", *(output or ())]
        self._process = subprocess.Popen(
            command,
            pass_fds=[file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.output: IO[bytes] = self._process.stdout
        widen_pipe(self.output)
        self._log = _Log(self._process.stderr)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        self.output.close()

    def header(self) -> Header:
        """What the input said of itself; waits for ffmpeg to have read it."""
        return self._log.header()

    def problem(self) -> str | None:
        """First error ffmpeg reported, once it has ended; None if all was well."""
        status = self._process.wait()
        return self._log.problem() or (f"ffmpeg ended with status {status}" if status else None)

    def resized(self) -> str | None:
        """How the size of the coded frames changed midway, once ffmpeg has ended; None if it did not."""
        return self._log.resized()

    def reached(self) -> float:
        """Seconds the output lasts, once ffmpeg has ended; 0 if it said nothing."""
        return self._log.reached

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Frames [H, W, 3] as they arrive; PPM tells the size of each, so rotation needs no care."""
        while (magic := self.output.readline(16)) == b"P6\n":
            width, height = map(int, self.output.readline(64).split())
            self.output.readline(16)
            if width * height > MAX_PIXELS:
                raise MediaError(f"is {width}x{height} pixels; at most {MAX_PIXELS:,} pixels are read")
            frame = np.empty((height, width, 3), np.uint8)
            if self.output.readinto(frame.data.cast("B")) != frame.nbytes:  # type: ignore[attr-defined]
                return
            yield frame
        assert not magic, "ffmpeg wrote something that is no PPM image"


def read_header(file: int) -> Header:
    """Duration and rate of the clip in ``file``; MediaError if it is no clip."""
    with Decoding(file, None) as decoding:
        header = decoding.header()
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
    on_header: Callable[[Header], None] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Frames of a clip in order, one in memory at a time.

    Parameters
    ----------
    file : file descriptor of a regular file holding the whole clip
    fps : resample by time to this rate; None gives every coded frame once
    start : seconds to skip
    frames : stop after this many; None reads all
    filters : further ffmpeg video filters, applied after resampling
    on_header : called once, before the first frame

    Yields
    ------
    uint8 [H, W, 3]; rotation metadata is applied

    Raises
    ------
    MediaError
        After the last good frame, if ``file`` is no clip, or is damaged: ffmpeg reported an error, or a
        read of the whole clip ended more than a tenth of its duration, and two frames, early. Or if the
        size of its frames changes midway: those after the change are scaled to the first size. A read
        that reaches ``frames`` is not checked: what ffmpeg says of the frames beyond depends on how
        far ahead it happened to be.
    """
    chain = [f"fps={fps:.8g}"] if fps else []
    chain += [*filters, "format=rgb24"]
    output = ["-map", "0:V:0", "-vf", ",".join(chain), "-filter_threads", "1", "-fps_mode", "passthrough"]
    output += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int"]
    output += ["-frames:v", str(frames)] if frames is not None else []
    output += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    count = 0
    with Decoding(file, output, start) as decoding:
        for frame in decoding.frames():
            if count == 0 and on_header is not None:
                on_header(decoding.header())
            count += 1
            yield frame
            if count == frames:
                return
        problem = decoding.problem()
    _check(file, count, decoding, problem, fps, whole=frames is None and start <= 0)


def count_frames(file: int, fps: float | None = None, alive: Callable[[], None] | None = None) -> int:
    """Number of frames :func:`read_frames` gives for the whole clip, with the same checks."""
    output = ["-map", "0:V:0", *(["-vf", f"fps={fps:.8g}"] if fps else []), "-fps_mode", "passthrough"]
    output += ["-progress", "pipe:1", "-f", "null", "-"]
    count = 0
    with Decoding(file, output) as decoding:
        for line in decoding.output:
            if line.startswith(b"frame=") and int(line[6:]) > count:
                count = int(line[6:])
                if alive is not None:
                    alive()
        problem = decoding.problem()
    _check(file, count, decoding, problem, fps, whole=True)
    return count


def _check(file: int, count: int, decoding: Decoding, problem: str | None, fps: float | None, whole: bool) -> None:
    """Raise MediaError if a decode that gave ``count`` frames, and has ended, was damaged or short."""
    if count == 0:
        raise MediaError(_no_frames(problem))
    header = decoding.header()
    expected = header.expected(fps) if whole else None
    about = f" of about {round(expected)}" if expected else ""
    if (change := decoding.resized()) is not None:
        raise MediaError(f"changes its frame size {change} midway; cut it into clips of one size each")
    if problem is not None:
        raise MediaError(f'decoded {count}{about} frames, then "{problem}"')
    if expected is None or expected - count < 2 or count >= 0.9 * expected or header.duration is None:
        return
    # Some codecs leave out frames that repeat the one before: those clips have few, but last.
    if decoding.reached() < 0.9 * header.duration and not _other_stream_lasts(file, header):
        raise MediaError(f"decoded {count}{about} frames, then it ended; the file is cut short")


def _other_stream_lasts(file: int, header: Header) -> bool:
    """Whether sound or subtitles fill the duration that the picture does not."""
    if header.streams < 2 or header.duration is None:
        return False
    output = ["-map", "0", "-map", "-0:V:0", "-c", "copy", "-progress", "pipe:1", "-f", "null", "-"]
    last = 0.0
    with Decoding(file, output) as decoding:
        for line in decoding.output:
            if line.startswith(b"out_time_us=") and line[12:13].isdigit():
                last = int(line[12:]) / 1e6
    return last >= 0.9 * header.duration


def _no_frames(problem: str | None) -> str:
    if problem is None:
        return "holds no frame"
    if "matches no streams" in problem:
        return "holds no picture, only sound or data"
    if "whitelist" in problem:
        return "is a playlist or another kind of file that is not read as a clip"
    return f'no frame could be decoded: "{problem}"'


class _Log:
    """Drains ffmpeg's standard error; keeps the header and the first error, however much is written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._header: list[str] = []
        self._header_done = threading.Event()
        self._error: str | None = None
        self._sizes: list[str] = []
        self.reached = 0.0
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        # A bound on the line: metadata may hold megabytes.
        while line := self._stream.readline(4096):
            text = line.decode("utf-8", "replace").rstrip()
            if self._error is None and ("[error]" in text or "[fatal]" in text):
                self._error = _complaint(text)
            if self._header_done.is_set():
                self.reached = _seconds("time=", text) or self.reached
                # ffmpeg goes on and scales to the first size; the line also comes with a change of colours alone.
                if len(self._sizes) < 100 and (change := _RESIZED.search(text)):
                    self._sizes.append(change[1])
                continue
            if "[info] Stream mapping:" in text or "[info] Output #0" in text:
                self._header_done.set()
            elif re.search(r"\[info\] +(Duration:|Stream #)", text) and len(self._header) < 100:
                self._header.append(text)
        self._header_done.set()

    def close(self) -> None:
        self._thread.join()
        self._stream.close()

    def header(self) -> Header:
        self._header_done.wait()
        lines = self._header
        duration = next((_seconds("Duration: ", line) for line in lines if "Duration:" in line), None)
        pictures = [line for line in lines if _is_picture(line)]
        streams = sum("Stream #" in line for line in lines)
        return Header(duration, _rate(pictures[0]) if pictures else None, streams)

    def problem(self) -> str | None:
        self._thread.join()
        return self._error

    def resized(self) -> str | None:
        self._thread.join()
        picture = next((line for line in self._header if _is_picture(line)), "")
        first = re.search(r", (\d+x\d+)\b", picture)
        other = next((size for size in self._sizes if first and size != first[1]), None)
        return f"from {first[1]} to {other}" if first and other else None


def _is_picture(header_line: str) -> bool:
    return ": Video: " in header_line and "(attached pic)" not in header_line


def _complaint(line: str) -> str | None:
    """The sentence of an error line without its address; None if it is of no consequence."""
    if any(text in line for text in _HARMLESS) or _SOUND.search(line):
        return None
    # Only follows from having no output, which read_header asks for.
    if "At least one output file must be specified" in line:
        return None
    return re.sub(r"^(\[[^\]]* @ \w+\] ?)*\[(error|fatal)\] ", "", line)[:200]


def _seconds(key: str, line: str) -> float | None:
    """Value of the time in hours, minutes and seconds that follows ``key``."""
    match = re.search(key + r"(\d+):(\d+):(\d+(?:\.\d+)?)", line)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _rate(line: str) -> float | None:
    match = re.search(r"([\d.]+)(k?) fps", line) or re.search(r"([\d.]+)(k?) tbr", line)
    if match is None:
        return None
    rate = float(match[1]) * (1000 if match[2] else 1)
    # ffmpeg rounds to two digits; the rates of television are whole numbers divided by 1.001.
    return _BROADCAST_RATES.get(rate, rate) or None
