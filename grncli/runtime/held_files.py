"""Files that are read by their names while one makes sure that they stay the same."""

import hashlib
import os
from pathlib import Path
from types import TracebackType

from grncli.runtime.errors import CheckpointError
from grncli.runtime.files import open_plain

FileIdentity = tuple[int, int, int, int]
"""Device, inode, size and time of change: what differs once a file was replaced or written to."""


class HeldFile:
    """A file that stays open while others open it by its name, so that its hash is that of what they read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "HeldFile":
        try:
            self._stream = os.fdopen(open_plain(self._file), "rb")
        except OSError as error:
            raise CheckpointError(f"{self._file}: cannot be opened ({error.strerror})") from None
        self._identity = _identity_of(os.fstat(self._stream.fileno()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def confirm(self) -> None:
        """Raise CheckpointError if the name means another file by now, or the file was written to."""
        # While it is open, no other file can get its inode.
        if identity_at(self._file) != self._identity:
            raise CheckpointError(f"{self._file}: was replaced while it was read; run the command again")

    def sha256(self) -> str:
        """SHA-256 of its bytes; CheckpointError if they changed since it was opened."""
        self._stream.seek(0)
        digest = hashlib.file_digest(self._stream, "sha256").hexdigest()
        if _identity_of(os.fstat(self._stream.fileno())) != self._identity:
            raise CheckpointError(f"{self._file}: was written to while it was read; run the command again")
        return digest


def identity_at(path: Path) -> FileIdentity | None:
    """The identity of what a name means now, None where there is nothing."""
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
