"""A run killed anywhere and resumed gives the same bytes as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_stores import GRIDS, SOURCES, fingerprint, process, random_bits, records, run, tree

from grncli.store import open_part, open_store, verify_store

CHANGING = ["pwrite", "replace", "fsync", "ftruncate", "open", "unlink", "mkdir", "rename", "rmdir", "link"]


class Killed(BaseException):
    """Not an Exception, so that nothing in between takes it for an error it can handle."""


class Death:
    """Stops the process before its k-th change to the file system, and every later one."""

    def __init__(self, monkeypatch, at):
        self.calls, self.at = 0, at
        for name in CHANGING:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            self.calls += 1
            if self.calls == self.at and name == "pwrite":
                real(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
            if self.calls >= self.at:
                raise Killed
            return real(*args, **kwargs)

        return call


def killed_at(path, at, action):
    """Run ``action`` until its ``at``-th change; whether it was stopped."""
    with pytest.MonkeyPatch.context() as patch:
        death = Death(patch, at)
        try:
            action(path)
        except Killed:
            return True
        assert death.calls < at
        return False


@pytest.fixture
def uninterrupted(memory_disk, small_chunks):
    run(memory_disk / "uninterrupted")
    return tree(memory_disk / "uninterrupted")


def test_run_stopped_before_any_change_and_resumed_leaves_the_same_bytes(memory_disk, small_chunks):
    def short_run(path):
        run(path, sources=6)

    short_run(memory_disk / "short")
    expected = tree(memory_disk / "short")
    at, stopped = 0, True
    while stopped:
        at += 1
        path = memory_disk / f"killed-{at}"
        stopped = killed_at(path, at, short_run)
        short_run(path)
        assert tree(path) == expected, f"stopped at change {at}"
    assert at > 100


def test_resumed_run_stopped_again_leaves_the_same_bytes(memory_disk, uninterrupted):
    generator = random.Random(0)
    for attempt in range(15):
        path = memory_disk / f"killed-{attempt}"
        while killed_at(path, generator.randrange(50, 400), run):
            pass
        assert tree(path) == uninterrupted


def test_complete_part_opened_for_more_and_stopped_resumes_to_the_same_bytes(memory_disk, small_chunks):
    def extended(path):
        run(path)
        run(path, sources=SOURCES + 5)

    extended(memory_disk / "uninterrupted")
    at, stopped = 0, True
    while stopped:
        at += 17
        path = memory_disk / f"killed-{at}"
        stopped = killed_at(path, at, extended)
        extended(path)
        assert tree(path) == tree(memory_disk / "uninterrupted"), f"stopped at change {at}"


def test_overwrite_stopped_anywhere_and_repeated_leaves_a_fresh_store(memory_disk, uninterrupted):
    def overwritten(path):
        run(path, overwrite=True)

    at, stopped = 0, True
    while stopped:
        at += 9
        path = memory_disk / f"killed-{at}"
        run(path, sources=4)
        stopped = killed_at(path, at, overwritten)
        overwritten(path)
        assert tree(path) == uninterrupted, f"stopped at change {at}"


def test_killed_processes_leave_the_same_bytes_as_one_that_was_not(memory_disk):
    code = (
        "import sys, time; sys.path[:0] = sys.argv[3:]\n"
        "from grncli.store.rows import schema; schema.CHUNK_BYTES = 100\n"
        "from small_stores import run\n"
        "print(flush=True)\n"
        "run(sys.argv[1], sources=150, after_commit=lambda: time.sleep(float(sys.argv[2])))\n"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

    def start(name, pause):
        command = [sys.executable, "-c", code, memory_disk / name, str(pause), *paths]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    generator = random.Random(1)
    for _ in range(5):
        with start("killed", 0.02) as process:
            process.stdout.readline()
            time.sleep(generator.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
    assert not (memory_disk / "killed" / "COMPLETE").exists()
    for name in ("killed", "uninterrupted"):
        with start(name, 0) as process:
            assert process.wait() == 0
    assert tree(memory_disk / "killed") == tree(memory_disk / "uninterrupted")


def test_everything_a_commit_speaks_of_is_on_disk_before_it(tmp_path, small_chunks, monkeypatch):
    unsynced, commits = set(), []
    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "replace")}

    def name_of(fd):
        return os.readlink(f"/proc/self/fd/{fd}")

    def pwrite(fd, data, offset):
        unsynced.add(name_of(fd))
        return real["pwrite"](fd, data, offset)

    def fsync(fd):
        unsynced.discard(name_of(fd))
        real["fsync"](fd)

    def replace(source, target):
        if str(target).endswith("commit.json"):
            commits.append({name for name in unsynced if not name.endswith("zarr.json.tmp")})
        real["replace"](source, target)

    for function in (pwrite, fsync, replace):
        monkeypatch.setattr(os, function.__name__, function)
    run(tmp_path / "store")
    assert len(commits) > 4
    assert not any(commits)


def test_finished_run_repeated_changes_nothing(memory_disk, uninterrupted):
    path = memory_disk / "uninterrupted"
    entries = [entry for entry in path.rglob("*") if entry.name != "COMPLETE"]
    before = [entry.stat().st_mtime_ns for entry in entries]
    run(path)
    assert {*path.rglob("*")} == {*entries, path / "COMPLETE"}
    assert [entry.stat().st_mtime_ns for entry in entries] == before


def test_a_finished_run_repeated_renews_the_date_of_the_marker_for_make(tmp_path):
    run(tmp_path / "store")
    marker = tmp_path / "store" / "COMPLETE"
    os.utime(marker, (0, 0))
    run(tmp_path / "store")
    assert marker.stat().st_mtime > 0


def test_what_was_not_committed_is_gone_after_closing(tmp_path, small_chunks):
    with open_part(tmp_path / "store", fingerprint()) as writer:
        writer.append(GRIDS[0], random_bits(2, GRIDS[0]), None, records(2, "a"))
        writer.commit(1, "")
        writer.append(GRIDS[0], random_bits(3, GRIDS[0], seed=1), None, records(3, "b"))
        writer.append(GRIDS[1], random_bits(3, GRIDS[1], seed=1), None, records(3, "b"))
        writer.fail("c", 2, "broken")
    with open_part(tmp_path / "store", fingerprint()) as writer:
        assert (writer.position, writer.samples, writer.grids) == (1, 2, {GRIDS[0]: 2})
        assert not writer.failures
        writer.close()
        writer.close()
    assert len(open_store(tmp_path / "store")) == 2


def test_retried_failure_is_logged_as_read(tmp_path, small_chunks):
    path = tmp_path / "store"
    run(path)
    assert [line["source"] for line in open_store(path).failures()] == ["2.png", "6.png"]
    with open_part(path, fingerprint(), columns=[("seed", np.int64), ("entropy", np.float32)]) as writer:
        assert list(writer.failures) == ["2.png", "6.png"]
        process(writer, 3)
        writer.fail("2.png", 2, None)
        writer.fail("6.png", 6, "still truncated")
        assert not writer.complete
        assert not (path / "COMPLETE").exists()
        writer.commit(writer.position, writer.digest)
        writer.finish()
    store = open_store(path)
    assert store.complete
    assert store.parts[0].failed == 1
    assert list(store.failures()) == [{"source": "6.png", "position": 6, "error": "still truncated"}]
    assert verify_store(path) == []
