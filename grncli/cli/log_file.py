"""The file that ``--log-file`` names: what a command says, line by line, with the time."""

import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path

from grncli import __version__
from grncli.runtime.errors import UsageError


class LogFile:
    """A file that lines are appended to; each is written at once, so that a killed command leaves what it said.

    Several processes may append to one file. A disk that fills up does not end the work.

    Raises
    ------
    UsageError
        If the file cannot be opened for appending.
    """

    def __init__(self, path: Path) -> None:
        self._began = time.monotonic()
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UsageError(
                f"--log-file {path}: {error.strerror}, expected a file that can be written or made"
            ) from None

    def close(self) -> None:
        """No line follows."""
        os.close(self._descriptor)

    def write(self, text: str) -> None:
        """Append ``text``; each of its lines begins with the local time and its distance from UTC."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        lines = "".join(f"{now} {line}\n" for line in text.splitlines())
        with suppress(OSError):
            os.write(self._descriptor, lines.encode("utf-8", "backslashreplace"))

    def begin(self) -> None:
        """Write which command this process runs, and where."""
        command = shlex.join(["grn", *sys.argv[1:]])
        self.write(f"begin: {command} (grn {__version__}, process {os.getpid()} on {platform.node()})")

    def end(self, code: int) -> None:
        """Write how the command ended."""
        self.write(f"end: exit code {code} after {time.monotonic() - self._began:.1f} s")
