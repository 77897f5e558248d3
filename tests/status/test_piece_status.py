"""Whether a writer lives: by its lock, else by the age of what it says, on the file system's own clock."""

import os
import subprocess
import sys
import threading
import time

import pytest

from grncli.runtime.files import replace_file
from grncli.runtime.jsonfiles import to_json
from grncli.runtime.writer_status import STATUS, WriterStatus, machine_name
from grncli.status import piece_status as module
from grncli.status.piece_status import LOST_AFTER, PieceStatus, file_clock, piece_status

WRITER = """
import sys
from pathlib import Path
from grncli.runtime import writer_status
from grncli.runtime.lock import PathLock
from grncli.runtime.monitor import Monitor
writer_status.FIRST_AFTER = 0.01
folder = Path(sys.argv[1])
with PathLock(folder / ".lock"), writer_status.reporting(folder, "tokenize", "sources", Monitor()) as monitor:
    monitor.progress(4, 9, "")
    while not (seen := writer_status.read_status(folder)) or seen.status.done is None:
        pass
    print("working", flush=True)
    sys.stdin.read()
"""
SAVED = PieceStatus(part=3, state="unfinished", done=2)


def look(folder, saved=SAVED):
    return piece_status(saved, folder, lambda: file_clock(folder), folder / ".lock")


def write(folder, *, age=0.0, machine="another", state="running", idle=3.0, rate=2.0, reason=""):
    """A status file of a writer elsewhere, as old as asked by the clock of the file system."""
    status = WriterStatus(
        command="tokenize",
        unit="sources",
        state=state,
        host="node7",
        pid=4711,
        machine=machine,
        done=10,
        total=50,
        rate=rate,
        idle=idle,
        reason=reason,
    )
    replace_file(folder / STATUS, to_json(vars(status)).encode(), sync=False)
    written = os.stat(folder / STATUS).st_mtime - age
    os.utime(folder / STATUS, (written, written))


@pytest.fixture(autouse=True)
def free_lock(tmp_path):
    (tmp_path / ".lock").touch()


@pytest.fixture
def read_only(monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", refuse)


def test_a_writer_that_is_killed_is_lost_at_once(tmp_path):
    command = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "working\n"
        at_work = look(tmp_path)
        writer.kill()
    killed = look(tmp_path)
    assert (at_work.state, at_work.part, at_work.done, at_work.total) == ("running", 3, 4, 9)
    assert at_work.pid == writer.pid
    # What it had saved counts then.
    assert (killed.state, killed.done, killed.total, killed.pid) == ("lost", 2, 9, writer.pid)


@pytest.mark.parametrize(
    ("age", "state"), [(0, "running"), (LOST_AFTER - 30, "running"), (LOST_AFTER + 30, "lost"), (-3600, "running")]
)
@pytest.mark.parametrize("skew", [0, 86_400, -86_400])
def test_a_writer_elsewhere_is_known_by_the_age_of_its_file_whatever_the_clock_here_says(
    tmp_path, monkeypatch, age, state, skew
):
    write(tmp_path, age=age)
    skewed = time.time() + skew
    monkeypatch.setattr(module.time, "time", lambda: skewed)
    seen = look(tmp_path)
    assert seen.state == state
    assert (seen.host, seen.pid) == ("node7", 4711)
    assert seen.moved == pytest.approx(max(0, age) + 3, abs=2)
    assert os.listdir(tmp_path) in ([".lock", STATUS], [STATUS, ".lock"])


def test_time_left_is_that_of_now(tmp_path):
    write(tmp_path, age=5)
    seen = look(tmp_path)
    assert (seen.done, seen.total, seen.rate) == (10, 50, 2.0)
    assert seen.seconds_left == pytest.approx(40 / 2 - 5, abs=2)


def test_a_writer_of_this_machine_without_its_lock_is_lost(tmp_path):
    write(tmp_path, machine=machine_name())
    assert look(tmp_path).state == "lost"


def test_where_locks_are_not_seen_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_held", lambda path: None)
    write(tmp_path, machine=machine_name())
    assert look(tmp_path).state == "running"
    write(tmp_path, machine=machine_name(), age=LOST_AFTER + 30)
    assert look(tmp_path).state == "lost"


def test_a_writer_that_ended_says_why(tmp_path):
    write(tmp_path, state="failed", reason="the disk is full", age=600)
    seen = look(tmp_path)
    assert (seen.state, seen.reason, seen.done) == ("failed", "the disk is full", 2)
    assert seen.rate is None
    assert seen.moved == pytest.approx(603, abs=2)


def test_complete_work_needs_no_writer(tmp_path):
    write(tmp_path, age=600)
    done = PieceStatus(state="complete", done=9, total=9)
    assert look(tmp_path, done) == done


def test_a_writer_that_says_nothing_is_known_by_its_lock(tmp_path, monkeypatch):
    assert look(tmp_path) == SAVED
    monkeypatch.setattr(module, "is_held", lambda path: True)
    assert look(tmp_path).state == "running"


# Nothing can be written, so that the clock of the file system cannot be read


def test_what_is_old_by_the_clock_here_is_watched_until_its_writer_renews_it(tmp_path, read_only, monkeypatch):
    monkeypatch.setattr(module, "WATCHED", 1.0)
    write(tmp_path, age=3600)
    renewing = threading.Timer(0.2, write, [tmp_path], {"age": 3500})
    renewing.start()
    seen = look(tmp_path)
    renewing.join()
    assert (seen.state, seen.moved) == ("running", pytest.approx(3, abs=2))
    assert look(tmp_path).state == "lost"


def test_what_is_fresh_by_the_clock_here_is_not_watched(tmp_path, read_only, monkeypatch):
    monkeypatch.setattr(module.FileClock, "renewed", lambda *_: pytest.fail("waited for nothing"))
    write(tmp_path, age=20)
    assert look(tmp_path).state == "running"
