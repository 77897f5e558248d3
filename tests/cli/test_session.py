"""Of processes that run a command together the first shows progress; who prints sentences depends on the command."""

from contextlib import contextmanager, nullcontext

import pytest

from grncli.cli import session
from grncli.cli.console import Progress
from grncli.runtime import devices, processes
from grncli.runtime.launch import Launch


@pytest.fixture
def started(monkeypatch):
    """Starts a command as one of two processes."""
    shown = []

    @contextmanager
    def joined(launch, device, stop, watch):
        yield processes.Processes(launch.rank, launch.count)

    monkeypatch.setattr(session, "_watched", lambda launch, stop, progress: nullcontext())
    monkeypatch.setattr(processes, "joined", joined)
    monkeypatch.setattr(Progress, "__call__", lambda self, *numbers: shown.append(numbers))
    monkeypatch.setattr(Progress, "say", lambda self, text: shown.append(text))
    monkeypatch.setattr(devices, "require_own_gpus", lambda *_: None)

    def start(rank, **options):
        monkeypatch.setattr(session, "launched", lambda: Launch(rank, 2))
        with session.open_session("train-gen", "steps", "cpu", None, **options) as running:
            running.monitor.progress(5, 4, "loss 1")
            running.monitor.say("a sentence")
        return shown

    return start


def test_the_first_process_shows_progress_up_to_the_total_and_speaks(started):
    assert started(0) == [(4, 4, "loss 1"), "a sentence"]


def test_the_others_are_silent(started):
    assert started(1) == []


def test_the_others_speak_where_each_has_something_of_its_own_to_say(started):
    assert started(1, own_shares=True) == ["a sentence"]
