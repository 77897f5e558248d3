"""The log of a run survives crashes, waiting is told from working, and TensorBoard is optional."""

import json
import os
import sys

import pytest

from grncli.runtime.errors import UsageError
from grncli.training.logs import MetricsLog, Stopwatch, TensorBoardLog


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'grncli\[tensorboard\]'"):
        TensorBoardLog(tmp_path, 0)


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    TensorBoardLog(tmp_path, 0).write(3, {"loss": 1.5})
    assert list(tmp_path.glob("events*"))


def test_a_torn_line_of_the_log_is_left_out(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    MetricsLog(log, 5).write(4, {"loss": 1.0})
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 4]


def test_the_log_is_cut_back_to_the_step_a_run_resumes_from(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 9)))
    MetricsLog(log, 5)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_crash_while_the_log_is_cut_back_keeps_it(tmp_path, monkeypatch):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n')

    def crash(temporary, path):
        assert path == log  # what is there until now is whole
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="killed"):
        MetricsLog(log, 5)
    assert metrics(tmp_path) == [{"step": 1}]


def test_the_stopwatch_tells_the_share_of_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("grncli.training.logs.time.monotonic", lambda: now[0])
    watch = Stopwatch()
    with watch.waiting():
        now[0] += 3
    now[0] += 9
    assert watch.lap() == {"seconds": 12.0, "waiting_share": 0.25}


def test_the_stopwatch_starts_anew_after_a_lap(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("grncli.training.logs.time.monotonic", lambda: now[0])
    watch = Stopwatch()
    with watch.waiting():
        now[0] += 3
    watch.lap()
    now[0] += 4
    assert watch.lap() == {"seconds": 4.0, "waiting_share": 0.0}
