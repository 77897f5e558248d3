"""Stopping early with everything saved: signals and a time limit only set a flag, and work ends between steps.

Signals are handled from the start of a process to its end (`watch_signals`), by a `Stop` while a command works.
"""

import atexit
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from grncli.runtime.errors import UsageError
from grncli.runtime.system import ASKING_TO_END

INTERRUPTED = 130


def _caught() -> list[signal.Signals]:
    """Signals that ask for an end; not SIGHUP where nohup has it ignored."""
    hangup = getattr(signal, "SIGHUP", None)
    return [n for n in ASKING_TO_END if n != hangup or signal.getsignal(n) is not signal.SIG_IGN]


class Stop:
    """Whether to end between two steps: ``stop.reason`` is None, or why the work should end now.

    Parameters
    ----------
    max_time : seconds from now after which to stop; None for no limit
    parent : process that started this one and whose end is a reason too; None for none
    """

    def __init__(self, max_time: float | None = None, *, parent: int | None = None) -> None:
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._parent = parent
        self._signal: signal.Signals | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop, in words, or None."""
        if self._signal is not None:
            return "Ctrl-C" if self._signal is signal.SIGINT else self._signal.name
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "--max-time"
        if self._parent is not None and os.getppid() != self._parent:
            return "the process that started this one is gone"
        return None

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Catch SIGTERM, SIGUSR1, SIGHUP and the first Ctrl-C in a block; a second Ctrl-C ends at once."""
        before = {number: signal.signal(number, self._set_flag) for number in _caught()}
        if _watch is not None and _watch.heard is not None:
            self._signal = _watch.heard
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is None or number == signal.SIGINT:
            self._signal = signal.Signals(number)
        if _watch is not None:
            _watch.heard = self._signal


class SignalWatch:
    """Handles signals while no `Stop` does, so that each leads to its exit code at any moment.

    Before a command begins they are only recorded. A command, or a part of it, that has nothing to save ends at once.
    After the first signal further ones change nothing, except a second Ctrl-C. Once the exit code is settled it stays,
    however long the interpreter takes to end.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self._begun = False
        self._finished = False
        for number in _caught():
            signal.signal(number, self._arrived)
        atexit.register(self._ignore_interrupt)  # first of all, so that it is called last

    def begin(self) -> None:
        """A command begins; it ends here if a signal has come before."""
        self._begun = True
        if self.heard is not None:
            self._end()

    def finish(self, code: int) -> None:
        """The exit code is settled."""
        self._finished = True
        for number in _caught():
            # An ignored signal stays ignored while the interpreter ends, when it takes other handlers away.
            ignored = number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else lambda *_: os._exit(code))

    def _ignore_interrupt(self) -> None:
        # What follows takes a moment, in which a Ctrl-C would end the process without its exit code.
        if self._finished:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        again = self.heard is not None
        if again and number != signal.SIGINT:
            return
        if again and self.heard is signal.SIGINT and not self._begun:
            os._exit(INTERRUPTED)
        self.heard = signal.Signals(number)
        if self._begun:
            self._end()

    def _end(self) -> NoReturn:
        assert self.heard is not None
        if self.heard is signal.SIGINT:
            raise KeyboardInterrupt
        raise Ended(self.heard.name)


class Ended(BaseException):
    """A signal to a command that has nothing to save ends it wherever it is, as Ctrl-C does by KeyboardInterrupt."""


_watch: SignalWatch | None = None  # signals are the process's, so there is one


def watch_signals() -> SignalWatch:
    """Handle signals from now to the end of the process; a second call changes nothing."""
    global _watch
    if _watch is None:
        _watch = SignalWatch()
    return _watch


def begin_command() -> None:
    """From here on a signal may end the command, where the process watches signals."""
    if _watch is not None:
        _watch.begin()


class Stopped(Exception):
    """The work ended early on request; everything is saved, and the same command resumes there."""

    advice = "Run the same command again to resume"


class Unfinished(Stopped):
    """The work ended early on request, and nothing of it is kept."""

    advice = "Nothing of it is kept: run the same command again to start over"


def parse_duration(text: str) -> float:
    """Seconds in a duration such as ``3h50m``, ``90s``, ``1d2h`` or a bare number of seconds, or as Slurm writes it.

    Slurm's forms are ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` and ``D-HH:MM:SS``.

    Raises
    ------
    UsageError
        If ``text`` is no duration.
    """
    asked = text.strip().lower()
    seconds = _slurm_seconds(asked)
    if seconds is None:
        seconds = _unit_seconds(asked)
    if seconds <= 0:
        raise UsageError(
            f"{text!r} is no duration, expected something like 3h50m, 90s or 1d2h, "
            "or 3:50:00 or 1-02:00:00 as for Slurm"
        )
    return seconds


def _slurm_seconds(text: str) -> float | None:
    """Of ``[D-]HH[:MM[:SS]]`` or ``MM:SS``; None for another form."""
    n = "([0-9]+)"
    forms = {
        rf"{n}-{n}(?::{n})?(?::{n})?": (86400, 3600, 60, 1),
        rf"{n}:{n}:{n}": (3600, 60, 1),
        rf"{n}:{n}": (60, 1),
    }
    for form, units in forms.items():
        if match := re.fullmatch(form, text):
            return sum(float(count or 0) * unit for count, unit in zip(match.groups(), units, strict=True))
    return None


def _unit_seconds(text: str) -> float:
    """Of numbers with units, or of a bare number; 0 for another form."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    number = r"[0-9]+(?:\.[0-9]+)?"
    if re.fullmatch(number, text):
        return float(text)
    if not re.fullmatch(rf"(?:{number}[dhms])+", text):
        return 0.0
    return sum(float(count) * units[unit] for count, unit in re.findall(rf"({number})([dhms])", text))
