"""What every command does alike: exit codes, one-sentence errors, progress, and where output goes.

Results go to files or standard output, messages and progress to standard error.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import typer

from grncli.errors import GrnError, UsageError
from grncli.stopping import Stop, Stopped

P = ParamSpec("P")
R = TypeVar("R")

FAILED, USAGE, STOPPED, INTERRUPTED = 1, 2, 75, 130
LINE_EVERY = 60.0  # seconds between progress lines where there is no terminal

debug = False  # set once by main() from --debug: let tracebacks through


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one sentence and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                raise
            raise typer.Exit(_explain(error)) from None

    return run


def _explain(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    if isinstance(error, Stopped):
        say(f"{error}. {error.advice}.")
        return INTERRUPTED if str(error).startswith("Ctrl-C") else STOPPED
    if isinstance(error, BrokenPipeError):
        # Whoever read standard output has gone; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        say(f"grn: {name}{error.strerror or error}")
        return FAILED
    if not isinstance(error, GrnError):
        say(f"grn: a fault of grn itself, {type(error).__name__}: {error}; run again with --debug and report it")
        return FAILED
    say(f"grn: {error}")
    return USAGE if isinstance(error, UsageError) else FAILED


def say(text: str) -> None:
    """One line on standard error; what would drive a terminal is escaped, as it may be from somebody else's file."""
    from grncli.media.sources import printable  # with archives and all, which help texts do not need

    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    from grncli.runtime.jsonfiles import to_json

    print(to_json(document, indent=2))


def make_stop(max_time: str | None = None) -> Stop:
    """The stop flag of a command, from its ``--max-time``."""
    from grncli.stopping import parse_duration

    return Stop(None if max_time is None else parse_duration(max_time))


def parse_part(text: str) -> tuple[int, int]:
    """``i/n`` as two numbers; UsageError unless 0 <= i < n."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--part {text}: expected i/n with i from 0 to n - 1, such as 0/4")
    return int(index), int(count)


class Progress:
    """A bar on a terminal; elsewhere one line a minute, fit for a batch job's log.

    Parameters
    ----------
    what : name of the command or stage
    unit : what is counted
    """

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self._bar: Any = None
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Show that ``done`` of ``total`` are ready (both absolute counts)."""
        if self._first is None:
            self._first = done
        if sys.stderr.isatty():
            self._draw(done, total, note)
        elif time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            say(self._line(done, total, note))

    def say(self, text: str) -> None:
        """One line on standard error, above the bar."""
        if self._bar is None:
            say(text)
        else:
            from grncli.media.sources import printable

            self._bar.write(printable(text), file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, so that what follows starts on a line of its own."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=self.what, unit=f" {self.unit}", file=sys.stderr)
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def _line(self, done: int, total: int | None, note: str) -> str:
        rate = (done - (self._first or 0)) / max(time.monotonic() - self._began, 1e-9)
        of = f"/{total}" if total is not None else ""
        left = f", {format_seconds((total - done) / rate)} left" if total is not None and rate > 0 else ""
        return f"{self.what}: {done}{of} {self.unit}, {rate:.3g}/s{left}{', ' + note if note else ''}"


def format_seconds(seconds: float) -> str:
    """Duration as people write it: ``0.4s``, ``45s``, ``3m12s``, ``2h05m``."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_bytes(count: float) -> str:
    """Size in decimal units: ``2.0 kB``, ``1.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def process_ranks(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, as ``torchrun`` tells them; alone without it."""
    return (
        int(environment.get("RANK", "0")),
        int(environment.get("WORLD_SIZE", "1")),
        int(environment.get("LOCAL_RANK", "0")),
    )


def default_workers() -> int:
    """Decoding processes: the network wants the other half of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return max(1, min(8, cores // 2))
