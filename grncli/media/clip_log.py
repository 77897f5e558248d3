"""What ffmpeg says of a clip while it decodes it: the header, and which of its complaints matter.

A complaint counts if it means that a shown picture is not the true one. Complaints about the container
(chapters, padding, an index) are kept apart: they only count if frames are missing.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from dataclasses import dataclass
from typing import IO

from grncli.runtime.system import bytes_waiting

# Lines at level error that say nothing about the pixels or the number of frames.
_HARMLESS = (
    "Not detecting m3u8",
    "co located POCs unavailable",
    "mmco: unref short failure",
    "deprecated pixel format",
    "low_delay flag set incorrectly",
    "non monotonically increasing dts",
    "Referenced QT chapter track not found",
)
# Supplemental information (captions, recovery points, who encoded it) is not used to decode a picture.
_SUPPLEMENT = re.compile(r"\bSEI\b|buffering period")
# Sound is not decoded, but ffmpeg looks into it when it opens a file, and complains.
_SOUND = re.compile(r"\[(aac|aac_latm|mp[123]\w*|ac3|eac3|opus|vorbis|flac|dca|truehd|pcm_\w+) @")
# The demuxer in new versions of ffmpeg, and in older ones, where "gif" and "flv" are decoders as well.
_CONTAINER = re.compile(
    r"^(\[in#0|\[AVIOContext|\[(mov,[\w,]+|matroska,webm|avi|mpegts|mpeg|mpegvideo|m4v|asf|ogg|yuv4mpegpipe) @"
    r"|\[error\] Truncating packet)"
)
_COMPLAINT = re.compile(r"^(\[[^\]]* @ \w+\] ?)*\[(error|fatal)\] ")
_HEADER_LINE = re.compile(r"\[info\] +(Input #0|Duration:|Stream #|alpha_mode +: 1)", re.IGNORECASE)
_CORRUPT = "corrupt decoded frame"
_RESIZED = re.compile(r"\[info\] Reconfiguring filter graph because .*video parameters changed to .*?, (\d+x\d+)")
# Their native decoders skip the second picture that holds the alpha channel.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_FROM_ZERO = ("matroska", "flv")
# Of the others ffmpeg takes the last time it finds for their duration.
_COUNTED = ("mov", "matroska", "flv", "avi", "yuv4mpegpipe")
_BROADCAST_RATES = {rate: round(rate * 1.001) / 1.001 for rate in (23.98, 29.97, 47.95, 59.94, 119.88)}
_MAX_LINES = 100


@dataclass(frozen=True, slots=True)
class Header:
    """What a clip says of itself before a frame is decoded; a damaged or odd clip may say nothing."""

    duration: float | None
    """Seconds from the first picture to the end of the longest stream."""
    fps: float | None
    """Average frames per second of the picture."""
    streams: int = 1
    """Number of streams, sound and subtitles included."""
    first: float = 0.0
    """Seconds from the start of the clip, where sound may begin, to the first picture."""
    decoder: str | None = None
    """The decoder that ffmpeg must use to keep the alpha channel."""
    counted: bool = False
    """Whether the container itself says, if anything does, how long it lasts."""
    container: str | None = None
    """Its first name in ffmpeg's words."""
    padded: bool = False
    """Whether the fourth byte of a pixel may mean nothing: raw 32-bit pictures of AVI."""

    def expected(self, fps: float | None = None) -> float | None:
        """About how many frames there are, resampled to ``fps`` if given."""
        rate = fps or self.fps
        return self.duration * rate if self.duration and rate else None


class Log:
    """Drains ffmpeg's standard error; keeps the header and the complaints that matter, however much is written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._unfinished = b""
        self._busy = threading.Lock()
        self._header: list[str] = []
        self._header_done = threading.Event()
        self._first: str | None = None
        self._suspicion: str | None = None
        self._damage: str | None = None
        self._container: list[str] = []
        self._sizes: list[str] = []
        self.reached = 0.0
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        more = True
        while more:
            poll.poll()
            # Whoever holds the lock sees either bytes in the pipe or all that follows from them.
            with self._busy:
                more = self._take()
        self._header_done.set()

    def _take(self) -> bool:
        """Read and understand what there is; False at the end."""
        data = os.read(self._stream.fileno(), 1 << 16)
        lines = (self._unfinished + data).split(b"\n")
        # A bound on the line: metadata may hold megabytes.
        self._unfinished = lines.pop()[:4096] if data else b""
        for line in lines:
            self._understand(line[:4096].decode("utf-8", "replace").rstrip())
        return bool(data)

    def _understand(self, line: str) -> None:
        decoding = self._header_done.is_set()
        if _COMPLAINT.match(line):
            self._complain(line, decoding)
        elif decoding:
            if _CORRUPT in line:
                self._suspicion = self._suspicion or _CORRUPT
                self._damage = self._damage or _CORRUPT
            self.reached = _seconds("time=", line) or self.reached
            # ffmpeg continues and scales to the first size; the line also comes with a change of colours alone.
            if len(self._sizes) < _MAX_LINES and (change := _RESIZED.search(line)):
                self._sizes.append(change[1])
        elif "[info] Stream mapping:" in line or "[info] Output #0" in line:
            self._header_done.set()
        elif len(self._header) < _MAX_LINES and _HEADER_LINE.search(line):
            self._header.append(line)

    def _complain(self, line: str, decoding: bool) -> None:
        if any(text in line for text in _HARMLESS) or _SUPPLEMENT.search(line) or _SOUND.search(line):
            return
        # Only follows from having no output, which read_header asks for.
        if "At least one output file must be specified" in line:
            return
        sentence = _COMPLAINT.sub("", line)[:200]
        self._first = self._first or sentence
        if _CONTAINER.search(line):
            # Counts while the header is read as well: packets read then are kept, and not read again.
            if len(self._container) < _MAX_LINES:
                self._container.append(sentence)
        else:
            self._suspicion = self._suspicion or sentence
            # What decoders complain of while the header is read they repeat when they decode.
            self._damage = self._damage or (sentence if decoding else None)

    def close(self) -> None:
        """Wait for the end and close the pipe."""
        self._thread.join()
        self._stream.close()

    def header(self) -> Header:
        """What the input said of itself; waits for it."""
        self._header_done.wait()
        return _parsed(self._header)

    def first_complaint(self) -> str | None:
        """The first complaint of any kind; waits for the end."""
        self._thread.join()
        return self._first

    def damage(self) -> str | None:
        """The first complaint about a picture; waits for the end."""
        self._thread.join()
        return self._damage

    def suspicion(self) -> str | None:
        """The first complaint about a picture up to now, or about one that was looked at for the header."""
        self._catch_up()
        return self._suspicion

    def _catch_up(self) -> None:
        """Wait until all that ffmpeg has written so far is understood."""
        while self._thread.is_alive():
            with self._busy:
                if not bytes_waiting(self._stream):
                    return
            time.sleep(0.0005)

    def container_complaints(self) -> list[str]:
        """What was said about the container, but not about other streams than the picture; waits for the end."""
        self._thread.join()
        picture = re.search(r"Stream #0:(\d+)", _picture_line(self._header))
        about = (re.match(r"stream (\d+),", text) for text in self._container)
        return [
            text
            for text, stream in zip(self._container, about, strict=True)
            if not (stream and picture and stream[1] != picture[1])
        ]

    def resized(self) -> str | None:
        """How the size of the coded frames changed midway, once ffmpeg has ended; None if it did not."""
        self._thread.join()
        first = re.search(r", (\d+x\d+)\b", _picture_line(self._header))
        other = next((size for size in self._sizes if first and size != first[1]), None)
        return f"from {first[1]} to {other}" if first and other else None


def _parsed(lines: list[str]) -> Header:
    picture = _picture_line(lines)
    times = next((line for line in lines if "Duration:" in line), "")
    duration, start = _seconds("Duration: ", times), _number(r"start: (-?[\d.]+)", times)
    own_start = _number(r", start (-?[\d.]+)", picture)
    container = _match(r"Input #0, (\w+)", next((line for line in lines if "Input #0" in line), ""))
    # The durations of these count from time 0, even if nothing is there before the first picture.
    if duration is not None and start and container in _FROM_ZERO and 0 < start < duration:
        duration -= start
    # ffmpeg prints a stream's own start only if it is not 0.
    first = max(0.0, (own_start or 0.0) - (start or 0.0))
    if duration is not None and first < duration:
        duration -= first
    codec = _match(r": Video: (\w+)", picture) or ""
    return Header(
        duration,
        _rate(picture) if picture else None,
        sum("Stream #" in line for line in lines),
        first,
        decoder=_ALPHA_DECODERS.get(codec) if _hides_alpha(lines, picture) else None,
        counted=container in _COUNTED,
        container=container,
        padded=container == "avi" and codec == "rawvideo",
    )


def _picture_line(lines: list[str]) -> str:
    return next((line for line in lines if ": Video: " in line and "(attached pic)" not in line), "")


def _hides_alpha(lines: list[str], picture: str) -> bool:
    """Whether the line after that of the picture names an alpha channel outside the pictures."""
    return picture in lines[:-1] and "alpha_mode" in lines[lines.index(picture) + 1].lower()


def _match(pattern: str, line: str) -> str | None:
    match = re.search(pattern, line)
    return match[1] if match else None


def _number(pattern: str, line: str) -> float | None:
    text = _match(pattern, line)
    return float(text) if text else None


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
