"""The files of a store below a URL: fetched ahead of need by threads, and kept in a cache of bounded size.

What a commit record counts has a checksum there, under which it is cached: a store that changes is never read from
what it was, and bytes that changed on the way are noticed.
"""

import io
import os
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import BinaryIO, NamedTuple

import google_crc32c

from grncli.runtime.errors import StoreError
from grncli.runtime.object_cache import ObjectCache
from grncli.runtime.remote_objects import RemoteObjects
from grncli.store.rows.byte_source import ByteFile, Committed, LocalFile
from grncli.store.rows.schema import changed

PIECE = 4 << 20  # bytes that are asked for at once
THREADS = 16
_AHEAD = 32  # files that are kept open, or in memory, before they are asked for
_PIECES_AHEAD = 8  # of a file that is read from front to back
_BUFFER = 1 << 16  # bytes that a stream takes at once
_IDLE = 10.0  # seconds without work after which a thread ends


class Wanted(NamedTuple):
    """A whole file, or the piece of it from ``start`` on.

    Of a file that no record counts ``version`` tells its state from others; its size is there, and the crc32c is none.
    """

    name: str
    committed: Committed | None
    start: int | None = None
    version: str = ""


class RemoteFiles:
    """The files of a store below a URL; see `ByteSource`.

    Parameters
    ----------
    cache : None keeps nothing: every byte comes from the server
    """

    is_remote = True

    def __init__(self, objects: RemoteObjects, cache: ObjectCache | None) -> None:
        self._objects = objects
        self._cache = cache
        self._process = os.getpid()
        self._fetches = Fetches(self._fetch, keeps=cache is not None)

    def where(self, name: str) -> str:
        """URL of a file."""
        return self._objects.where(name)

    def open(self, name: str, committed: Committed | None = None) -> ByteFile:
        """A file that was committed, fetched whole; or any other, of which pieces are fetched when they are read."""
        return self._pieced(name, cached=True) if committed is None else self._ahead().take(Wanted(name, committed))

    def stream(self, name: str, committed: Committed | None = None) -> BinaryIO:
        """A file to be read from front to back, a piece at a time; what no record counts comes from the server."""
        if committed is not None:
            file = _PiecedFile(self._ahead, Wanted(name, committed), committed.size)
            return io.BufferedReader(_Pieces(file), _BUFFER)
        beginning = _bytes_of(self._ahead().take(Wanted(name, None, 0)))
        if len(beginning) < PIECE:  # most are small, and their beginning is all
            return io.BytesIO(beginning)
        return io.BufferedReader(_Pieces(self._pieced(name, cached=False)), _BUFFER)

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        return self._objects.size(name)

    def list(self, folder: str) -> "list[str] | None":
        """Names of what a folder holds; None where the server does not say."""
        return self._objects.list(folder)

    def expect(self, wanted: Iterable[tuple[str, Committed | None]], *, streamed: bool = False) -> None:
        """Begin to fetch files that are going to be opened, in this order, or the beginnings of ``streamed`` ones."""
        start = 0 if streamed else None
        self._ahead().expect(Wanted(name, committed, start) for name, committed in wanted)

    def _pieced(self, name: str, *, cached: bool) -> "_PiecedFile":
        state = self._objects.state(name)
        if state is None:
            raise FileNotFoundError(2, "no such object", self.where(name))
        known = Committed(state.size, 0) if cached and state.version else None
        return _PiecedFile(self._ahead, Wanted(name, known, version=state.version), state.size)

    def _ahead(self) -> "Fetches":
        if self._process != os.getpid():  # threads do not come along into a forked process
            self._process, self._fetches = os.getpid(), Fetches(self._fetch, keeps=self._cache is not None)
        return self._fetches

    def _fetch(self, wanted: Wanted) -> ByteFile:
        """A file from the cache or the server; one that is too short as it is there, StoreError for other bytes."""
        committed, cache = wanted.committed, self._cache
        if committed is None or cache is None:
            data = self._download(wanted)
            self._is_right(data, wanted)
            return InMemory(data)
        identity = f"{self.where(wanted.name)}\0{committed.size}\0{committed.crc32c}\0{wanted.start}\0{wanted.version}"
        key = sha256(identity.encode()).hexdigest()
        if cached := cache.open(key):
            return LocalFile(*cached)
        with cache.fetching(key):
            if cached := cache.open(key):  # another process has fetched it meanwhile
                return LocalFile(*cached)
            data = self._download(wanted)
            if not self._is_right(data, wanted):
                return InMemory(data)
            cache.put(key, data)
        cached = cache.open(key, fresh=True)
        return LocalFile(*cached) if cached else InMemory(data)

    def _is_right(self, data: bytes, wanted: Wanted) -> bool:
        """Whether a file has all its bytes; StoreError where they are not those that were committed."""
        committed, start = wanted.committed, wanted.start
        if committed is None or start is not None:
            return committed is None or len(data) == min(PIECE, committed.size - (start or 0))
        if len(data) < committed.size:
            return False
        found = google_crc32c.value(data[: committed.size])
        if found != committed.crc32c:
            raise StoreError(changed(self.where(wanted.name), found, committed.crc32c))
        return True

    def _download(self, wanted: Wanted) -> bytes:
        name, committed, start, _ = wanted
        if start is not None:
            end = start + PIECE if committed is None else min(start + PIECE, committed.size)
            return self._objects.read(name, start, end)
        if committed is None or committed.size <= PIECE:
            return self._objects.read(name)
        starts = range(0, committed.size, PIECE)
        return b"".join(self._objects.read(name, first, min(first + PIECE, committed.size)) for first in starts)

    def __reduce__(self) -> "tuple[type[RemoteFiles], tuple[RemoteObjects, ObjectCache | None]]":
        return RemoteFiles, (self._objects, self._cache)


class InMemory:
    """A file whose bytes are here."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on; EOFError where the file ends before."""
        piece = memoryview(self.data)[offset : offset + target.nbytes]
        target.cast("B")[: len(piece)] = piece
        if len(piece) < target.nbytes:
            raise EOFError(len(piece))


class Fetches:
    """What threads fetch before it is asked for; they end where there is nothing to do.

    Parameters
    ----------
    fetch : of one file
    keeps : whether what was committed is found again once it was fetched, so that no more than its name is needed here
    """

    def __init__(self, fetch: Callable[[Wanted], ByteFile], *, keeps: bool) -> None:
        self._fetch = fetch
        self._keeps = keeps
        self._changed = threading.Condition()
        self._queue: dict[Wanted, None] = {}
        self._running: set[Wanted] = set()
        self._done: dict[Wanted, ByteFile | BaseException] = {}
        self._threads = 0

    def expect(self, wanted: Iterable[Wanted]) -> None:
        """Fetch these first, in this order."""
        asked = dict.fromkeys(wanted)
        with self._changed:
            self._done = {each: file for each, file in self._done.items() if each in asked}
            later = self._queue if self._keeps else {}
            there = self._running | self._done.keys()
            self._queue = {each: None for each in (asked | later) if each not in there}
            while self._threads < min(THREADS, len(self._queue) + len(self._running)):
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()
            self._changed.notify_all()

    def take(self, wanted: Wanted) -> ByteFile:
        """A file, fetched now where it is not on its way."""
        with self._changed:
            self._queue.pop(wanted, None)
            self._changed.wait_for(lambda: wanted not in self._running)
            result = self._done.pop(wanted, None)
            self._changed.notify_all()
        if isinstance(result, BaseException):
            raise result
        return self._fetch(wanted) if result is None else result

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(self._has_work, timeout=_IDLE):
                    self._threads -= 1
                    return
                wanted = next(iter(self._queue))
                del self._queue[wanted]
                self._running.add(wanted)
            result: ByteFile | BaseException
            try:
                result = self._fetch(wanted)
            except BaseException as error:
                result = error
            with self._changed:
                self._running.remove(wanted)
                if len(self._done) < _AHEAD or not self._is_kept(wanted):
                    self._done[wanted] = result
                self._changed.notify_all()
            del result  # an open file

    def _has_work(self) -> bool:
        if not self._queue:
            return False
        return len(self._done) + len(self._running) < _AHEAD or self._is_kept(next(iter(self._queue)))

    def _is_kept(self, wanted: Wanted) -> bool:
        return self._keeps and wanted.committed is not None


class _PiecedFile:
    """A file of ``size`` bytes, of which pieces are fetched when they are read; the last one is kept."""

    def __init__(self, ahead: Callable[[], Fetches], whole: Wanted, size: int) -> None:
        self.size = size
        self._ahead = ahead
        self._whole = whole
        self._last: tuple[int, ByteFile] | None = None

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` from ``offset`` on; EOFError where the file ends before."""
        left, done = target.cast("B"), 0
        while done < target.nbytes:
            count = self.read_some(left[done:], offset + done)
            if not count:
                raise EOFError(done)
            done += count

    def read_some(self, target: memoryview, offset: int) -> int:
        """Fill the beginning of ``target`` with what one piece has from ``offset`` on; how many bytes that is."""
        start = offset - offset % PIECE
        last = self._last
        if last is None or last[0] != start:
            last = self._last = start, self._ahead().take(self._whole._replace(start=start))
        piece = last[1]
        count = max(0, min(target.nbytes, piece.size - (offset - start), self.size - offset))
        piece.read_into(target[:count], offset - start)
        return count

    def expect_from(self, start: int) -> None:
        """Begin to fetch some pieces."""
        starts = range(start, self.size, PIECE)[:_PIECES_AHEAD]
        self._ahead().expect(self._whole._replace(start=each) for each in starts)


class _Pieces(io.RawIOBase):
    """A file in pieces as a stream, for whose reader the next ones are fetched ahead while it goes forward."""

    def __init__(self, file: _PiecedFile) -> None:
        self._file = file
        self._position = 0
        self._following = 0  # where the next piece starts for a reader that goes forward

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._file.size)[whence]
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        if self._position >= self._file.size:
            return 0
        if self._position == self._following:
            self._file.expect_from(self._following)
            self._following += PIECE
        count = self._file.read_some(memoryview(buffer).cast("B"), self._position)
        self._position += count
        return count


def _bytes_of(file: ByteFile) -> bytes | bytearray:
    if isinstance(file, InMemory):
        return file.data
    data = bytearray(file.size)
    file.read_into(memoryview(data), 0)
    return data
