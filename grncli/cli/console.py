"""What every command does alike: exit codes, one-sentence errors, progress, and where output goes.

Results go to files or standard output, messages and progress to standard error.
"""

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from grncli.cli.colour import styled
from grncli.cli.common_options import DEFAULTS, declare_common_options
from grncli.cli.log_file import LogFile
from grncli.cli.standard_output import STANDARD_OUTPUT, give_up_output
from grncli.runtime.errors import GrnError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import INTERRUPTED, Ended, Stop, Stopped, begin_command
from grncli.runtime.urls import as_url_path, refuse_urls

if TYPE_CHECKING:
    from grncli.runtime.launch import Launch

P = ParamSpec("P")
R = TypeVar("R")

FAILED, USAGE, STOPPED = 1, 2, 75
LINE_EVERY = 30.0  # seconds between progress lines where there is no terminal
NUMBERS = 50  # columns of a bar's counts, times and rate
BARS = range(10, 41)  # columns of the bar itself
REMEMBERED = 1000  # sentences, each of which is said once

PREFIXES = {"grn: ": "red", "warning: ": "yellow"}  # colours of how a message begins

debug = False  # from --debug: let tracebacks through
quiet = False  # from --quiet: say what must be said only
log: LogFile | None = None  # from --log-file: where messages are written too
_before_name = dict(DEFAULTS)  # common options that stand before the name of the command
speaker = ""  # set by `launched`: which of several processes this is, where it is not the first


def guarded(
    command: Callable[P, R],
    begin: Callable[[], None] = begin_command,
    refused: Callable[[UsageError], None] = lambda error: None,
) -> Callable[P, R]:
    """Turn our errors into one sentence and an exit code; add what every command takes; URLs are for stores only.

    Parameters
    ----------
    begin : is called first, and lets signals end the command
    refused : is called before a wrong usage is explained, and raises where another process does that
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> R:
        common = {name: kwargs.pop(name, default) or _before_name[name] for name, default in DEFAULTS.items()}
        try:
            with _settled(**common):
                return _run(attempt, args, kwargs)
        except UsageError as error:  # of the log itself
            with suppress(UsageError):
                refused(error)
            raise typer.Exit(_explain(error)) from None

    def attempt(*args: Any, **kwargs: Any) -> R:
        begin()
        try:
            refuse_urls(command, kwargs)
            return command(*args, **{name: as_url_path(value) for name, value in kwargs.items()})
        except UsageError as error:
            refused(error)
            raise

    return declare_common_options(run)


def _run(command: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    code = 0
    try:
        return command(*args, **kwargs)
    except typer.Exit as done:
        code = done.exit_code
        raise
    except (KeyboardInterrupt, Ended, Exception) as error:
        trace(error)
        code = _explain(error)
        raise typer.Exit(code) from None
    finally:
        if log is not None:
            log.end(code)


def take_common_options(**options: Any) -> None:
    """Those that stand before the name of the command."""
    _before_name.update(options)


@contextmanager
def _settled(**options: Any) -> Iterator[None]:
    """Common options hold for one command."""
    global debug, quiet, log
    before = debug, quiet, log
    debug, quiet = debug or options["debug"], options["quiet"]
    log = None if options["log_file"] is None else LogFile(options["log_file"])
    try:
        if log is not None:
            log.begin()
        yield
    finally:
        if log is not None:
            log.close()
        debug, quiet, log = before


def trace(error: BaseException) -> None:
    """Print the traceback where it was asked for, and keep that of a fault of ours in the log anyway."""
    if isinstance(error, Stopped):
        return
    if debug:
        traceback.print_exc()
    if log is not None and (debug or not isinstance(error, GrnError | OSError | KeyboardInterrupt | Ended)):
        log.write(traceback.format_exc())


def _explain(error: BaseException) -> int:
    """Print what ends a command, and return its exit code."""
    if isinstance(error, BrokenPipeError):
        give_up_output()  # whoever read it has gone
        return FAILED
    sentence, code = describe(error)
    say_ending(f"{speaker}{sentence}", code)
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        give_up_output()
    return code


def say_ending(sentence: str, code: int) -> None:
    """Why a command ends with an exit code, on standard error, also with --quiet."""
    if code in (STOPPED, INTERRUPTED):
        say(sentence, always=True)
    else:
        complain(sentence)


def describe(error: BaseException) -> tuple[str, int]:
    """Why a command ends, in one sentence, and its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, Ended):
        return f"{error}: ended. Run the same command again.", STOPPED
    if isinstance(error, Stopped):
        return f"{error}. {error.advice}.", INTERRUPTED if str(error).startswith("Ctrl-C") else STOPPED
    if _is_out_of_memory(error):
        return f"out of memory ({_brief(error)}); take smaller batches, or a machine or job with more memory", FAILED
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        limit = "; raise the limit (ulimit -n)" if error.errno == errno.EMFILE else ""
        return f"{name}{error.strerror or error}{limit}", FAILED
    if not isinstance(error, GrnError):
        what = f"a fault of grn itself, {type(error).__name__}: {error}"
        return f"{what}; run again with --debug and report it", FAILED
    return str(error), USAGE if isinstance(error, UsageError) else FAILED


def end_log(code: int) -> None:
    """The last line of the log of a process that another one ends."""
    if log is not None:
        log.end(code)


def _is_out_of_memory(error: BaseException) -> bool:
    """Also where a limit on the address space (``ulimit -v``) is what is reached."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    signs = [
        *("out of memory", "can't allocate memory", "cannot allocate memory", "failed to map segment", "bad_alloc"),
        # What oneDNN, cuDNN, cuBLAS and threads say instead.
        *("could not create a primitive", "could not create a memory", "alloc_failed", "can't start new thread"),
    ]
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and any(sign in text for sign in signs)
    )


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def say(text: str, *, always: bool = False) -> None:
    """One line on standard error, where it is wanted, and in the log.

    A closed terminal or pipe there does not end the work. ``always``: also with --quiet, as errors and doubts are.
    """
    if not text.isprintable():
        from grncli.runtime.text import printable

        text = printable(text)
    if log is not None:
        log.write(text)
    if sys.stderr is not None and (always or not quiet):  # None where it was closed before Python started
        for prefix, colour in PREFIXES.items():
            if text.startswith(prefix):
                text = styled(prefix, sys.stderr, fg=colour, bold=True) + text.removeprefix(prefix)
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """What is wrong, on standard error, also with --quiet."""
    say(f"grn: {text}", always=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output, whatever names it holds and whatever the output's encoding is."""
    from grncli.runtime.jsonfiles import to_json

    text = to_json(document, indent=2)
    if not text.isascii() and "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower():
        text = "".join(char if char.isascii() else _escaped(char) for char in text)
    print(text)


def _escaped(char: str) -> str:
    """A character as JSON spells it in ASCII."""
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def make_stop(max_time: str | None = None, *, parent: int | None = None) -> Stop:
    """The stop flag of a command, from its ``--max-time``."""
    from grncli.runtime.stopping import parse_duration

    return Stop(None if max_time is None else parse_duration(max_time), parent=parent)


def launched() -> "Launch":
    """How this process was started; from here on, messages of all but the first of several say whose they are."""
    from grncli.runtime.launch import read_launch

    global speaker
    launch = read_launch(os.environ)
    speaker = f"process {launch.rank} of {launch.count}: " if launch.rank else ""
    return launch


def works_alone() -> None:
    """Raise UsageError where several processes were started that would all do the same."""
    from grncli.runtime.launch import require_one_process

    require_one_process(launched())


def own_part(part: str) -> str:
    """``--part`` as ``i/n``; UsageError where several processes were started that would all do the same one."""
    from grncli.runtime.launch import read_part, require_one_process

    if part == "auto":
        part = "{}/{}".format(*read_part(os.environ))
    require_one_process(launched(), part_of=part)
    return part


class Progress:
    """A bar on a terminal; elsewhere a line every 30 seconds, fit for a batch job's log.

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
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._already_said: set[str] = set()

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Show that ``done`` of ``total`` are ready (both absolute counts)."""
        if self._first is None:
            self._first = done
        if self._on_terminal and not quiet:
            with suppress(OSError):  # the terminal may be closed before the work ends
                self._draw(done, total, note)
        if time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            if not self._on_terminal:
                say(self._line(done, total, note))
            elif log is not None:
                log.write(self._line(done, total, note))

    def say(self, text: str) -> None:
        """One line on standard error, above the bar; once, as two stages of a command may open the same run."""
        if text in self._already_said:
            return
        if len(self._already_said) < REMEMBERED:
            self._already_said.add(text)
        if self._bar is None:
            say(text)
            return
        with suppress(OSError):
            self._bar.clear()
        say(text)
        with suppress(OSError):
            self._bar.refresh()

    def monitor(self, stop: Stop) -> Monitor:
        """For the stages of a command: they show their progress here, and end when ``stop`` says so."""
        return Monitor(stop, self, self.say)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, so that what follows starts on a line of its own."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None
            self._on_terminal = False

    def _draw(self, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                desc=self.what,
                unit=f" {self.unit}",
                file=sys.stderr,
                dynamic_ncols=True,
                miniters=1,  # or a slow step after quick ones would not show
            )
        # The bar keeps its place: what a long note has too much is cut at the right.
        noted = -(-len(note) // 8) * 8  # or the bar would change with every digit of the note
        width = min(max(_columns() - len(self.what) - NUMBERS - noted, BARS[0]), BARS[-1])
        self._bar.bar_format = (
            f"{{desc}}: {{percentage:3.0f}}%|{{bar:{width}}}| "
            "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        )
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def _line(self, done: int, total: int | None, note: str) -> str:
        rate = (done - (self._first or 0)) / max(time.monotonic() - self._began, 1e-9)
        of = f"/{total}" if total is not None else ""
        left = f", {format_seconds((total - done) / rate)} left" if total is not None and rate > 0 else ""
        return f"{self.what}: {done}{of} {self.unit}, {rate:.3g}/s{left}{', ' + note if note else ''}"


@contextmanager
def monitored(what: str, unit: str, max_time: str | None) -> Iterator[Monitor]:
    """For the stages of a command that one process runs: listens to signals, and shows progress in ``unit``."""
    with make_stop(max_time).listening() as stop, Progress(what, unit) as progress:
        yield progress.monitor(stop)


def _columns() -> int:
    """Width of the terminal on standard error."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


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
