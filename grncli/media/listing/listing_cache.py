"""Members of archives as they were listed before: a resumed listing reads no archive again that did not change.

One small file an archive in the user's cache folder, found by the archive's path and believed only while its size,
time and inode are the same. Any number of processes may use the folder: files appear whole, and one that is
damaged or gone is a listing made anew.
"""

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grncli.media import archives
from grncli.media.members import Member

FOLDER = "listings"
"""Its name below the cache folder of a user."""
FORMAT = 1
MOST_BYTES = 256 << 20
"""Of all files together; the ones not used for longest are removed."""
FEWEST = 64
"""Members of an archive that is worth a file."""
SETTLED = 2_000_000_000
"""Nanoseconds since an archive's last change, below which another change might not show in its time."""
_USED_AGAIN = 86400
"""Seconds after which the use of a file is written into its time."""


@dataclass
class ListingCache:
    """Lists archives, and keeps what it lists.

    Parameters
    ----------
    folder : where the files are; None keeps nothing
    """

    folder: Path | None
    kept: int = 0
    """Listings that were added."""

    def members(self, path: str) -> Iterable[Member]:
        """Files of an archive as `archives.members` gives them; MediaError where it is damaged."""
        head = None if self.folder is None else _head(path)
        if self.folder is None or head is None:
            return archives.members(path)
        file = self.folder / f"{hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]}.z"
        known = _load(file, head)
        return self._listed(path, file, head) if known is None else known

    def _listed(self, path: str, file: Path, head: list[object]) -> Iterator[Member]:
        columns: tuple[list[object], ...] = ([], [], [], [], [])
        for member in archives.members(path):
            values = (member.name, member.offset, member.size, member.problem, member.unlisted)
            for column, value in zip(columns, values, strict=True):
                column.append(value)
            yield member
        if len(columns[0]) >= FEWEST and head == _head(path):
            with suppress(OSError):  # nothing is kept where the folder cannot be written
                _store(file, zlib.compress(json.dumps([head, columns]).encode(), 1))
                self.kept += 1

    def trim(self) -> None:
        """Remove what was not used for longest, where listings were added and all are too large."""
        if self.folder is not None and self.kept:
            with suppress(OSError):
                _remove_oldest(self.folder)


def _load(file: Path, head: list[object]) -> Sequence[Member] | None:
    with suppress(OSError, ValueError, TypeError, zlib.error):
        known, columns = json.loads(zlib.decompress(file.read_bytes()))
        if known == head:
            members = [Member(*row) for row in zip(*columns, strict=True)]
            if time.time() - file.stat().st_mtime > _USED_AGAIN:
                os.utime(file)
            return members
    return None


def _store(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: many processes may list one archive. What a killed one leaves is removed as any other file.
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _head(path: str) -> list[object] | None:
    """What changes with an archive; None where it may still be written to, or cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if time.time_ns() - status.st_mtime_ns < SETTLED:
        return None
    return [FORMAT, os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino]


def _remove_oldest(folder: Path) -> None:
    files = []
    for entry in os.scandir(folder):
        with suppress(OSError):  # another process may remove it
            status = entry.stat()
            files.append((status.st_mtime, status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MOST_BYTES:
            return
        with suppress(OSError):
            os.unlink(path)
        total -= size
