"""One writer where files cannot be locked: several processes, one of which is killed or suspended."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

from grncli.runtime import lease
from grncli.runtime.errors import LockError
from grncli.runtime.folders import ClaimedFolder, is_vacant
from grncli.runtime.lock import PathLock
from grncli.store import Fingerprint, open_part, open_store

WITHOUT_LOCKS = """
import errno, fcntl, sys
def lockf(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = lockf
from pathlib import Path
from grncli.runtime import lease
from grncli.runtime.lock import PathLock
lease.RENEW_SECONDS, lease.STALE_SECONDS = 0.2, 2.0
lock = PathLock(Path(sys.argv[1]), signed=True)
"""
HOLD = """
print("held" if lock.try_acquire() else "refused", flush=True)
sys.stdin.readline()
lock.release()
"""


@contextmanager
def contending(path, count=1):
    """Processes that try to take the lock at a path, and hold it until a line comes."""
    command = [sys.executable, "-c", WITHOUT_LOCKS + HOLD, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def lockless(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lease, "STALE_SECONDS", 2.0)


def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path, lockless):
    with contending(tmp_path / ".lock") as (first,):
        assert first.stdout.readline() == "held\n"
        refusal = f"is being written by process {first.pid} on {socket.gethostname()}; "
        for _ in range(2):
            with pytest.raises(LockError, match=re.escape(refusal)):
                ClaimedFolder(tmp_path)
        assert first.communicate("\n")[0] == ""
    began = time.monotonic()
    with ClaimedFolder(tmp_path):
        assert time.monotonic() - began < 3, "the lease was free"
        assert not PathLock(tmp_path / ".lock").try_acquire()


def test_the_lease_of_a_killed_writer_goes_to_one_of_those_who_watch_it(tmp_path):
    with contending(tmp_path / ".lock") as (first,):
        assert first.stdout.readline() == "held\n"
        first.kill()
        with contending(tmp_path / ".lock", 3) as others:
            assert sorted(process.stdout.readline() for process in others) == ["held\n", "refused\n", "refused\n"]


def test_a_writer_that_was_suspended_for_too_long_ends_without_writing(tmp_path, lockless):
    with contending(tmp_path / ".lock") as (first,):
        assert first.stdout.readline() == "held\n"
        os.kill(first.pid, signal.SIGSTOP)
        with ClaimedFolder(tmp_path):
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait(timeout=60) == 1
            assert PathLock(tmp_path / ".lock").holder() == "this process"
        sentence = first.stderr.read()
        assert f"process {os.getpid()} on {socket.gethostname()} writes there now" in sentence


def test_few_leases_are_kept_and_they_make_no_folder_occupied(tmp_path, lockless):
    for _ in range(3 * lease.KEPT):
        with ClaimedFolder(tmp_path):
            pass
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", *(f".lock.lease-{number:08d}" for number in range(2 * lease.KEPT + 1, 25))]
    assert is_vacant(tmp_path, [".lock"])


def test_the_parts_of_a_store_are_written_and_finished_by_leases(tmp_path, lockless):
    settings = {"rounds": 1, "channels": 8, "stride": (1, 8, 8), "preprocessing": {}, "labels": ()}
    fingerprint = Fingerprint(**settings, tokenizer={"name": "toy", "sha256": "3f9c" * 16})
    for part in range(2):
        with open_part(tmp_path / "bits.zarr", fingerprint, part, 2) as writer:
            writer.append((1, 1, 1), np.zeros((1, 1, 1, 1, 1, 1), np.uint8), [-1], [{"key": "a", "source": "a.png"}])
            writer.commit(1, "0" * 64, 1)
            writer.finish()
    assert open_store(tmp_path / "bits.zarr").complete


def test_where_files_can_be_locked_no_lease_is_made(tmp_path):
    with ClaimedFolder(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]


def test_a_lease_that_is_a_link_is_not_followed(tmp_path, lockless):
    (tmp_path / "precious").write_text("x")
    os.symlink(tmp_path / "precious", tmp_path / ".lock.lease-00000001")
    with pytest.raises(OSError, match="symbolic link"):
        ClaimedFolder(tmp_path)
    assert (tmp_path / "precious").read_text() == "x"
