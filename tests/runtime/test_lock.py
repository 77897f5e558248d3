import os
import socket
import subprocess
import sys

import pytest

from grncli.runtime.lock import PathLock

HOLD = """
import sys
from pathlib import Path
from grncli.runtime.lock import PathLock
lock = PathLock(Path(sys.argv[1]), signed=True)
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


def test_who_holds_a_lock_is_told_by_host_and_pid_and_nothing_is_left_behind(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        lock = PathLock(path, signed=True)
        assert not lock.try_acquire()
        assert lock.holder() == f"process {holder.pid} on {socket.gethostname()}"
        holder.stdin.close()
    assert path.read_bytes() == b""
    assert lock.try_acquire()
    assert PathLock(path).holder() == "this process"
    lock.release()
    assert path.read_bytes() == b""


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    os.symlink(outside, tmp_path / ".lock")
    with pytest.raises(OSError, match="symbolic link"):
        PathLock(tmp_path / ".lock", signed=True).try_acquire()
    assert outside.read_text() == "precious"
