"""Stopping early with everything saved: signals and a time limit only raise a flag, work ends between steps."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from grncli.errors import UsageError


class Stop:
    """Asked between steps: ``stop.reason`` is None, or why the work should end now.

    Parameters
    ----------
    max_time : seconds from now after which to stop; None for no limit
    """

    def __init__(self, max_time: float | None = None) -> None:
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._signal: signal.Signals | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop, in words, or None."""
        if self._signal is not None:
            return "Ctrl-C" if self._signal is signal.SIGINT else self._signal.name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "--max-time"
        return None

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C, which ends with exit code 130 rather than 75."""
        return self._signal is signal.SIGINT

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Catch SIGTERM, SIGUSR1 and the first Ctrl-C for the time of a block; a second Ctrl-C ends at once."""
        caught = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        before = {number: signal.signal(number, self._raise_flag) for number in caught}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)


class Stopped(Exception):
    """The work ended early on request; everything is saved and the same command goes on from there."""

    advice = "Run the same command again to go on"


class Unfinished(Stopped):
    """The work ended early on request, and is of a kind of which nothing can be kept."""

    advice = "Nothing of it is kept: run the same command again to start over"


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``3h50m``, ``90s``, ``1d2h`` or a bare number of seconds.

    Raises
    ------
    UsageError
        If ``text`` is no duration.
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    number = r"[0-9]+(?:\.[0-9]+)?"
    parts = re.findall(rf"({number})([dhms])", text.strip().lower())
    if re.fullmatch(number, text.strip()):
        parts = [(text.strip(), "s")]
    seconds = sum(float(count) * units[unit] for count, unit in parts)
    if "".join(count + unit for count, unit in parts).removesuffix("s") != text.strip().lower().removesuffix("s"):
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"{text!r} is no duration, expected something like 3h50m, 90s or 1d2h")
    return seconds
