"""One run of the bundled ffmpeg over a clip.

ffmpeg is given an open file descriptor instead of a name, may use no other protocol and only knows
real containers: whatever a file claims to contain, no other file or address is ever opened.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.media.clip_log import Log
from grncli.media.framing import MAX_PIXELS, require_pixels
from grncli.runtime.errors import MediaError
from grncli.runtime.system import require_pipes, widen_pipe

CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,gif,flv,asf,ogg,yuv4mpegpipe"
PICTURE = ("-map", "0:V:0")
"""The first stream of pictures that is no cover."""
# Frame threads multiply memory and add little when several workers decode side by side.
_THREADS = 2
# Drops the packets before the first keyframe, and those right behind it that are shown before it: what they are
# predicted from is lost. Registers: 0 a keyframe has come, 1 when it is shown, 2 the first shown after it has come.
_LEADING = (
    r"if(key*not(ld(0))\,st(0\,1)+st(1\,pts))\;if(ld(0)*not(key)*gte(pts\,ld(1))\,st(2\,1))\;"
    r"{}(not(ld(0))+not(ld(2))*lt(pts\,ld(1)))"
)
_SKIP_LEADING = "noise=drop=" + _LEADING.format("")
ONLY_LEADING = "noise=drop=" + _LEADING.format("not")
"""The other way round: keeps what a decoding that skips the leading packets drops."""

CODED = "{ptsi} {tbi}"
"""When the frame is shown that was decoded for it, whatever filters make of its time."""
RESAMPLED = "{pts} {tb}"


Alive = Callable[[], None]
"""Called for every frame decoded and every packet counted, so that a watcher can tell slow from stuck."""


def unwatched() -> None:
    """For reading that nobody watches."""


@lru_cache(maxsize=1)
def ffmpeg() -> str:
    """Path of the bundled ffmpeg; MediaError where there is none."""
    # Imported here because images do not need it and a worker should start fast.
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError("no ffmpeg is found to read and write clips with; reinstall imageio-ffmpeg") from error


@dataclass(frozen=True)
class Way:
    """How a clip must be decoded, as far as its first frames have shown."""

    seconds: float = 0.0
    decoder: str | None = None
    skip_leading: bool = False

    def options(self) -> list[str]:
        """Options that go before the input."""
        options = ["-c:v", self.decoder] if self.decoder else []
        options += ["-bsf:v", _SKIP_LEADING] if self.skip_leading else []
        # Times stay those of a decoding from the start.
        return options + (["-copyts", "-start_at_zero", "-ss", f"{self.seconds:.6f}"] if self.seconds > 0 else [])


class Decoding:
    """One run of ffmpeg over an open file; iterate for frames or times, close to end it early.

    Parameters
    ----------
    file : file descriptor of a regular file holding the whole clip
    output : ffmpeg's output options; None only reads the header
    way : where to start, and with what decoder
    timed : also ask for the time of each frame that is encoded: `CODED` or `RESAMPLED`
    """

    def __init__(self, file: int, output: Sequence[str] | None, way: Way | None = None, *, timed: str = "") -> None:
        require_pipes()
        os.lseek(file, 0, os.SEEK_SET)
        times, times_end = os.pipe()
        command = [ffmpeg(), "-hide_banner", "-nostdin", "-nostats", "-v", "level+info"]
        command += ["-protocol_whitelist", "fd", "-format_whitelist", CONTAINERS]
        command += ["-threads", str(_THREADS), "-max_pixels", str(MAX_PIXELS)]
        command += [*(way or Way()).options(), "-fd", str(file), "-i", "fd:"]
        # Written before the frame itself, a line at a time: whoever has the frame need not wait for its time.
        command += ["-stats_enc_pre", f"pipe:{times_end}", "-stats_enc_pre_fmt", timed] if timed else []
        self._times = os.fdopen(times, "rb")
        try:
            self._process = subprocess.Popen(
                [*command, *(output or ())],
                pass_fds=[file, times_end],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except BaseException:
            self._times.close()
            raise
        finally:
            os.close(times_end)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.output: IO[bytes] = self._process.stdout
        widen_pipe(self.output)
        self.log = Log(self._process.stderr)
        self.tick = 0.0
        self.transparent = False

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.log.close()
        self.output.close()
        self._times.close()

    def begun(self) -> bool:
        """Whether there is a first frame; waits until it or the end has come (``timed`` only)."""
        return bool(self._times.peek(1))

    def failure(self) -> str | None:
        """What went wrong with ffmpeg itself, once it has ended; None if all was well."""
        status = self._process.wait()
        return f"ffmpeg ended with status {status}" if status else None

    def problem(self) -> str | None:
        """First complaint of ffmpeg of any kind, once it has ended; None if all was well."""
        failure = self.failure()
        return self.log.first_complaint() or failure

    def times(self, alive: Alive) -> Iterator[float | None]:
        """Time of each frame in seconds on the clip's own clock, as they arrive; None where it is unknown."""
        for line in self._times:
            alive()
            yield self._time(line)

    def _time(self, line: bytes) -> float | None:
        match = re.fullmatch(rb"(-?\d+) (\d+)/(\d+)\s*", line)
        # The smallest number stands for a time that is unknown.
        if match is None or len(match[1]) > 18 or not int(match[3]):
            return None
        self.tick = int(match[2]) / int(match[3])
        return int(match[1]) * int(match[2]) / int(match[3])

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
        """Frames [H, W, 3] and their times as they arrive; PAM has the size of each, also of rotated ones."""
        while (magic := self.output.readline(16)) == b"P7\n":
            width, height, depth = self._pam_header()
            require_pixels(width, height)
            frame = np.empty((height, width, depth), np.uint8)
            if self.output.readinto(frame.data.cast("B")) != frame.nbytes:  # type: ignore[attr-defined]
                return
            time = self._time(self._times.readline(100))
            yield (frame if depth == 3 else self._opaque(frame)), time
        assert not magic, "ffmpeg wrote something that is no PAM image"

    def _pam_header(self) -> tuple[int, int, int]:
        fields: dict[bytes, bytes] = {}
        while (line := self.output.readline(64)) not in (b"ENDHDR\n", b""):
            name, _, value = line.partition(b" ")
            fields[name] = value
        return int(fields[b"WIDTH"]), int(fields[b"HEIGHT"]), int(fields[b"DEPTH"])

    def _opaque(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 4] over white."""
        alpha = frame[..., 3]
        if alpha.min(initial=255) == 255 or (self.log.header().padded and not alpha.any()):
            return np.ascontiguousarray(frame[..., :3])
        self.transparent = True
        image = Image.fromarray(frame)
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
