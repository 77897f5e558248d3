"""A folder of bounded size with copies of what lies far away; any number of processes use it at the same time.

An entry is a file under a name that says its content, put in place in one step, and never changed; its bytes are
followed by their crc32c. The time of a file is when it was used last; the ones that were not used longest go first. An
open file stays readable when it goes.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from grncli.runtime.errors import RemoteError
from grncli.runtime.files import write_all
from grncli.runtime.system import open_file, read_into, try_lock

_FULL = (errno.ENOSPC, errno.EDQUOT)
_KEPT = 0.9  # share of the limit that is left after some had to go
_LOOKED_AT = 16  # times that the folder is gone through while its limit is written once
_WAIT = 300.0  # seconds for another process that fetches the same entry
_TRAILER = 4  # bytes of the crc32c at the end of an entry
_LOOK = 0.02  # seconds between two looks at whether it has

_taken: set[Path] = set()  # by threads of this process, which locks of the system do not keep apart
_guard = threading.Lock()


@dataclass
class ObjectCache:
    """Entries by name.

    Parameters
    ----------
    folder : made when it is first written to
    limit : bytes of all entries, which are exceeded for moments only
    """

    folder: Path
    limit: int

    def __post_init__(self) -> None:
        self._unseen = self.limit  # bytes written since the folder was gone through; so the first entry does

    def open(self, name: str, *, fresh: bool = False) -> tuple[int, int] | None:
        """Descriptor and bytes of an entry, which counts as used now; None where there is none, or a damaged one.

        Parameters
        ----------
        fresh : it was put in place a moment ago, so that it need not be compared with its checksum
        """
        path = self.folder / name
        try:
            fd = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from None
        size = os.fstat(fd).st_size - _TRAILER
        if size < 0 or not (fresh or _is_whole(fd, size)):
            os.close(fd)
            with suppress(OSError):
                os.unlink(path)
            return None
        with suppress(OSError):  # of another user, or gone meanwhile
            os.utime(path)
        return fd, size

    def put(self, name: str, data: bytes) -> None:
        """Put an entry in place, unless the disk stays full; RemoteError where the folder cannot be written."""
        self._unseen += len(data)
        if self._unseen > self.limit // _LOOKED_AT:
            self._unseen = 0
            self.shrink(self.limit)
        try:
            self._write(name, data)
        except OSError as error:
            if error.errno not in _FULL:
                raise self._unusable(error) from None
            self.shrink(self._size() // 2)
            try:
                self._write(name, data)
            except OSError as again:
                if again.errno not in _FULL:  # of what others fill, no work should end
                    raise self._unusable(again) from None

    def shrink(self, limit: int) -> None:
        """Where there are more than ``limit`` bytes, take away what was not used longest."""
        entries = sorted(self._entries())
        size = sum(size for _, size, _ in entries)
        if size <= limit:
            return
        for _, nbytes, path in entries:
            if size <= limit * _KEPT:
                break
            with suppress(OSError):
                os.unlink(path)
            size -= nbytes

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """One process or thread at a time, so that what several want is fetched once; after a while all may."""
        path = self.folder / f"{name}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = open_file(path, os.O_RDWR | os.O_CREAT, follow=False)
        except OSError as error:
            if error.errno not in _FULL:
                raise self._unusable(error) from None
            yield
            return
        end = time.monotonic() + _WAIT
        while not (taken := _take(path, fd)) and time.monotonic() < end:
            time.sleep(_LOOK)
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(path)
            os.close(fd)
            if taken:
                _taken.discard(path)

    def _write(self, name: str, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{name}.{os.getpid()}.{time.monotonic_ns()}.tmp"
        try:
            fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                write_all(fd, memoryview(data), 0)
                write_all(fd, memoryview(_checksum(data)), len(data))
            finally:
                os.close(fd)
            os.replace(temporary, self.folder / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """Time of last use, bytes and path of each file, also of those that an ended process left half written."""
        with suppress(FileNotFoundError), os.scandir(self.folder) as found:
            for entry in found:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, entry.path

    def _size(self) -> int:
        return sum(size for _, size, _ in self._entries())

    def _unusable(self, error: OSError) -> RemoteError:
        return RemoteError(
            f"{self.folder}: cannot be used as the cache of remote stores ({error.strerror}); name another "
            "folder with XDG_CACHE_HOME, or keep nothing with GRN_CACHE_GIB=0"
        )


def _is_whole(fd: int, size: int) -> bool:
    """Whether the bytes of an entry are those that were written: a power cut may leave others."""
    data = bytearray(size + _TRAILER)
    count = read_into(fd, memoryview(data), 0)
    return count == len(data) and _checksum(bytes(data[:size])) == data[size:]


def _checksum(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(_TRAILER, "big")


def _take(path: Path, fd: int) -> bool:
    """Take a lock, without it where the file system has none; False where a process or thread has it."""
    with _guard:
        if path in _taken:
            return False
        try:
            free = try_lock(fd)
        except OSError:
            free = True
        if free:
            _taken.add(path)
        return free
