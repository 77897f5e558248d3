"""Locks that cannot be had: where files cannot be locked, and where another process does not let go."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from grncli.runtime.errors import GrnError
from grncli.runtime.lock import PathLock

HOLD = """
import sys
from pathlib import Path
from grncli.runtime.lock import PathLock
lock = PathLock(Path(sys.argv[1]), signed=True)
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_system_that_fails_to_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(GrnError, match=r"\.lock: the file system failed to lock the file \(Input/output error\)"):
        PathLock(tmp_path / ".lock", signed=True).acquire()


@pytest.mark.parametrize("text", [None, "", "\x1b[2J 12", "a b c"])
def test_who_holds_a_lock_for_too_long_is_named_where_it_is_known(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        if text is not None:
            path.write_text(text)
        named = f"process {holder.pid} on " if text is None else "another process"
        with pytest.raises(GrnError, match=rf"\.lock stayed locked by {named}.* run the same command again"):
            PathLock(path, signed=True).acquire(timeout=0.05)
        holder.stdin.close()
