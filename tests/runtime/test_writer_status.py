"""What a writer says of itself while it works, and that nothing of it stays or fails where all goes well."""

import os
import time
from pathlib import Path

import pytest

from grncli.runtime import writer_status
from grncli.runtime.errors import StoreError
from grncli.runtime.files import temporary_path
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.runtime.writer_status import STATUS, read_status, reporting


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(writer_status, "FIRST_AFTER", 0.01)
    monkeypatch.setattr(writer_status, "EVERY", 0.01)


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(folder):
    seen = read_status(folder)
    return None if seen is None else seen.status


def test_a_writer_says_how_far_it_is_and_who_it_is(tmp_path):
    shown = []
    with reporting(tmp_path, "tokenize", "sources", Monitor(progress=lambda *told: shown.append(told))) as monitor:
        monitor.progress(10, 50, "")
        wait_until(lambda: (status := said(tmp_path)) and status.done == 10)
        assert said(tmp_path).rate is None
        monitor.progress(30, 50, "2 failed")
        wait_until(lambda: said(tmp_path).done == 30)
        status = said(tmp_path)
        wait_until(lambda: said(tmp_path).idle >= 0.2)
    assert shown == [(10, 50, ""), (30, 50, "2 failed")]
    assert (status.command, status.unit, status.state, status.total) == ("tokenize", "sources", "running", 50)
    assert (status.note, status.pid) == ("2 failed", os.getpid())
    assert status.rate > 0


def test_work_that_ends_well_leaves_no_file(tmp_path):
    with reporting(tmp_path, "sample", "samples", Monitor()):
        wait_until(lambda: said(tmp_path))
    assert os.listdir(tmp_path) == []


def test_work_that_is_short_tells_only_where_it_must(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_status, "FIRST_AFTER", 60.0)
    for at_once in (False, True):
        with reporting(tmp_path, "decode", "samples", Monitor(), at_once=at_once):
            assert (said(tmp_path) is not None) == at_once
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Stopped("SIGUSR1: stopped after 3 of 9"), "stopped", "SIGUSR1: stopped after 3 of 9"),
        (KeyboardInterrupt(), "stopped", "Ctrl-C"),
        (StoreError("bits.zarr: the disk is full"), "failed", "bits.zarr: the disk is full"),
        (RuntimeError("out of\nmemory"), "failed", "RuntimeError: out of memory"),
    ],
)
def test_why_a_writer_ended_early_stays(tmp_path, error, state, reason):
    def work():
        with reporting(tmp_path, "tokenize", "sources", Monitor()) as monitor:
            monitor.progress(3, 9, "")
            raise error

    with pytest.raises(type(error)):
        work()
    status = said(tmp_path)
    assert (status.state, status.reason, status.done) == (state, reason, 3)


def test_the_next_writer_takes_away_what_one_that_was_killed_left(tmp_path):
    for path in (tmp_path / STATUS, temporary_path(tmp_path / STATUS)):
        path.write_text("{")
    with reporting(tmp_path, "sample", "samples", Monitor()):
        pass
    assert os.listdir(tmp_path) == []


def test_work_goes_on_where_the_file_cannot_be_written(tmp_path, monkeypatch):
    tried = []

    def refuse(path, content, *, sync):
        tried.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_status, "replace_file", refuse)
    with reporting(tmp_path, "sample", "samples", Monitor()):
        wait_until(lambda: len(tried) > 2)
    with pytest.raises(Stopped), reporting(tmp_path, "sample", "samples", Monitor()):
        raise Stopped("--max-time")
    assert os.listdir(tmp_path) == []


def test_work_goes_on_where_there_can_be_no_thread(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(writer_status.threading.Thread, "start", refuse)
    with reporting(tmp_path, "sample", "samples", Monitor()) as monitor:
        monitor.progress(1, 2, "")
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_into_a_folder_that_took_the_place_of_the_writers(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()

    def work():
        with reporting(folder, "train-gen", "steps", Monitor()):
            folder.rename(tmp_path / "moved")
            folder.mkdir()
            time.sleep(0.1)
            raise Stopped("--max-time")

    with pytest.raises(Stopped):
        work()
    assert os.listdir(folder) == []


def damage(path: Path, kind: str) -> None:
    texts = {"garbage": "{", "list": "[]", "type": '{"pid": "x"}', "nan": "NaN", "huge": "[" * 10**6, "empty": ""}
    if kind == "link":
        (path.parent / "elsewhere").write_text("precious")
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(texts[kind])


@pytest.mark.parametrize("kind", ["garbage", "list", "type", "nan", "huge", "empty", "link", "pipe", "folder", "none"])
def test_a_file_that_is_no_status_says_nothing(tmp_path, kind):
    if kind != "none":
        damage(tmp_path / STATUS, kind)
    assert read_status(tmp_path) is None
