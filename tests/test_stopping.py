"""Stopping: durations mean what they say, signals only raise a flag, and nothing stays caught."""

import contextlib
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli import stopping
from grncli.errors import UsageError
from grncli.stopping import Stop, parse_duration

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


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
    "text", ["", "h", "-5m", "0", "0s", "5x", "1..5h", "1.2.3h", ".h", "5 m", "1h-2m", "soon", "5.", "1e3", "²h", "²"]
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


@pytest.mark.parametrize(("number", "reason"), [*zip(CAUGHT, ("SIGTERM", "SIGUSR1", "Ctrl-C"), strict=True)])
def test_a_signal_is_a_reason(number, reason):
    with Stop().listening() as stop:
        os.kill(os.getpid(), number)
        assert stop.reason == reason


@pytest.mark.parametrize(("number", "interrupted"), [*zip(CAUGHT, (False, False, True), strict=True)])
def test_only_ctrl_c_is_an_interruption(number, interrupted):
    with Stop().listening() as stop:
        os.kill(os.getpid(), number)
        assert stop.interrupted is interrupted


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
