"""Stopping: durations mean what they say, signals only raise a flag, and nothing stays caught."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.runtime import stopping
from grncli.runtime.errors import UsageError
from grncli.runtime.stopping import Stop, parse_duration

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


# Durations


@given(st.dictionaries(st.sampled_from("dhms"), st.integers(0, 10_000), min_size=1).filter(lambda d: any(d.values())))
def test_a_duration_is_the_sum_of_its_parts(parts):
    text = "".join(f"{number}{unit}" for unit, number in parts.items())
    assert parse_duration(text) == sum(number * UNITS[unit] for unit, number in parts.items())


@given(st.integers(1, 10**9))
def test_a_bare_number_is_seconds(number):
    assert parse_duration(str(number)) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("3h50m", 13800), ("90s", 90), ("1d2h", 93600), ("1.5h", 5400), (" 2H ", 7200), ("0.5", 0.5)]
)
def test_durations_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3:50:00", 13800),
        ("90:00", 5400),
        ("0:30", 30),
        ("1-2", 93600),
        ("1-02:30", 95400),
        ("1-02:30:15", 95415),
        ("0-00:00:01", 1),
    ],
)
def test_durations_as_slurm_writes_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "5ms",
        "1:",
        ":30",
        "1:2:3:4",
        "1-",
        "-1",
        "1-2h",
        "0:00",
        "1:0.5",
        "1-2:3:4:5",
        "",
        "h",
        "-5m",
        "0",
        "0s",
        "5x",
        "1..5h",
        "1.2.3h",
        ".h",
        "5 m",
        "1h-2m",
        "soon",
        "5.",
        "1e3",
        "²h",
        "²",
    ],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="is no duration, expected something like 3h50m"):
        parse_duration(text)


@given(st.text(st.sampled_from("0123456789.dhms -e²٣ x")) | st.text())
def test_any_text_is_a_duration_or_refused(text):
    with contextlib.suppress(UsageError):
        assert parse_duration(text) > 0


# Reasons


def test_nothing_asked_is_no_reason():
    assert Stop().reason is None


def test_time_up_is_a_reason(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    stop = Stop(max_time=10)
    before, now[0] = stop.reason, 110.0
    assert (before, stop.reason) == (None, "--max-time")


@pytest.mark.parametrize(("number", "reason"), [*zip(CAUGHT, ("SIGTERM", "SIGUSR1", "SIGHUP", "Ctrl-C"), strict=True)])
def test_a_signal_is_a_reason(number, reason):
    with Stop().listening() as stop:
        os.kill(os.getpid(), number)
        assert stop.reason == reason


def test_a_second_ctrl_c_ends_at_once():
    with Stop().listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_changes_nothing():
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"


def test_ctrl_c_stays_the_reason_whatever_comes_after_it():
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "Ctrl-C"


def test_a_hangup_that_nohup_ignores_is_no_reason():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_end_of_the_parent_is_a_reason(monkeypatch):
    stop = Stop(parent=os.getppid())
    before = stop.reason
    monkeypatch.setattr(stopping.os, "getppid", lambda: 1)
    assert (before, stop.reason) == (None, "the process that started this one is gone")


def test_the_reason_stays_after_listening():
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.reason == "SIGUSR1"


def test_handlers_are_as_before_after_listening():
    before = [signal.getsignal(number) for number in CAUGHT]
    with Stop().listening():
        pass
    assert [signal.getsignal(number) for number in CAUGHT] == before


def test_handlers_are_as_before_after_an_error():
    before = [signal.getsignal(number) for number in CAUGHT]
    with pytest.raises(ValueError, match="broken"), Stop().listening():
        raise ValueError("broken")
    assert [signal.getsignal(number) for number in CAUGHT] == before


# From the first moment to the last

ENDS = "import os, signal, sys, atexit, importlib.abc\nme = os.getpid()\n"
AT_IMPORT = """
class Signalling(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(me, signal.{number})
sys.meta_path.insert(0, Signalling())
"""
RUN = "from grncli.__main__ import main\nmain()\n"


def ended(program, *arguments):
    """Exit code and messages of ``grn`` in a process whose program sends itself signals."""
    command = [sys.executable, "-c", ENDS + program + RUN, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return result.returncode, result.stderr


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [("SIGTERM", 75, "SIGTERM: ended. Run the same command again."), ("SIGINT", 130, "interrupted")],
)
def test_a_signal_before_the_command_line_is_there_has_its_exit_code(number, code, words):
    found, said = ended(AT_IMPORT.format(module="typer", number=number), "info", "nowhere")
    assert (found, said.strip()) == (code, words)


def test_a_signal_to_a_command_that_has_nothing_to_save_has_its_exit_code(tmp_path):
    found, said = ended(AT_IMPORT.format(module="grncli.runs.describing", number="SIGHUP"), "info", tmp_path)
    assert (found, said.strip()) == (75, "SIGHUP: ended. Run the same command again.")


def test_signals_in_the_end_change_no_exit_code(tmp_path):
    """Of which a job that gets SIGTERM twice sees the second."""
    late = "atexit.register(lambda: [os.kill(me, n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)])\n"
    assert ended(late, "shapes", tmp_path / "shapes", "--images", 1, "--clips", 0)[0] == 0
    assert ended(late, "info", tmp_path / "nowhere")[0] == 1


def test_a_second_ctrl_c_in_the_end_leaves_at_once_with_the_same_code():
    first = "import grncli.runtime.stopping\ngrncli.stopping.watch_signals()\n"  # as grn does
    late = "atexit.register(lambda: print('still there'))\natexit.register(os.kill, me, signal.SIGINT)\n"
    command = [sys.executable, "-c", ENDS + first + late + RUN, "info", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (1, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_ends_leaves_the_exit_code(number: signal.Signals) -> None:
    program = (
        "import os\n"
        "from grncli.runtime.stopping import watch_signals\n"
        "class Late:\n"
        f"    def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, {int(number)})\n"
        "late = Late()\n"
        "watch_signals().finish(3)\n"
        "raise SystemExit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 3
