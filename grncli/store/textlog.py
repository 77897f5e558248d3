"""A JSON Lines file of which only a committed length counts."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from grncli.runtime.errors import StoreError
from grncli.runtime.files import open_plain, write_all
from grncli.runtime.jsonfiles import brief, parse_json

_BUFFER_BYTES = 1 << 20
_REMEDY = "restore the file."
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("grid", "key", "source", "prompt"), ((str,), "text")),
    **dict.fromkeys(("class", "label", "error"), ((str, type(None)), "text or null")),
    **dict.fromkeys(("row", "clip", "frames", "position", "prompt_number"), ((int,), "a whole number from 0")),
    **dict.fromkeys(("start", "fps"), ((int, float), "a finite number from 0")),
    "flip": ((bool,), "true or false"),
}
"""What a line says and its readers rely on, where it says it."""
# json.dumps would make a new encoder for every line, which takes longer than the line.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_decode = json.JSONDecoder().decode


class LineLog:
    """Appends lines; ``size`` is the length once they are all written, and ``crc`` the crc32c of them all."""

    def __init__(self, path: Path, size: int, crc: int, *, writable: bool = True) -> None:
        """Open ``path`` and cut what lies beyond its committed ``size``; or only look whether that much is there."""
        self.path = path
        self.size = size
        self.crc = crc
        self._buffer = bytearray()
        self._written = size
        self._fd: int | None = None
        if writable:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        found = os.fstat(self._fd).st_size if self._fd is not None else _size(path)
        if found < size:
            self.close()
            raise self._too_short(found)
        if self._fd is not None and found > size:
            os.ftruncate(self._fd, size)

    def require_file(self) -> None:
        """StoreError unless the file is there with as many bytes as were written."""
        found = _size(self.path)
        if found < self._written:
            raise self._too_short(found)

    def append(self, lines: bytes) -> None:
        """Take encoded lines; they are written at the next sync, or earlier when many."""
        self._buffer += lines
        self.size += len(lines)
        self.crc = google_crc32c.extend(self.crc, lines)
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def sync(self) -> None:
        """Wait until every line is on disk."""
        if self._buffer:
            self._flush()
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close without writing what is buffered; harmless when repeated."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _too_short(self, found: int) -> StoreError:
        return StoreError(
            f"{self.path} has {found} bytes, expected at least {self._written}; "
            "restore it, or make the store again with --overwrite."
        )

    def _flush(self) -> None:
        assert self._fd is not None
        with memoryview(bytes(self._buffer)) as data:
            write_all(self._fd, data, self._written)
        self._written = self.size
        self._buffer.clear()


def encode_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON. Names that are not valid Unicode keep their bytes as escaped surrogates."""
    return _encode(record).encode("utf-8", "backslashreplace") + b"\n"


def encode_lines(records: Sequence[Mapping[str, Any]], first: str) -> bytes:
    """Lines of JSON for records whose first field is called ``first``, byte for byte those of ``encode_line``.

    Encoded as one list and then cut, as setting out for every line takes three times as long as the lines. What
    is cut at cannot stand inside a string, where quotes are escaped.
    """
    start = f'{{"{first}": '
    text = _encode(records)[1:-1].replace(f"}}, {start}", f"}}\n{start}")
    if text.count("\n") != len(records) - 1:  # a record holds a list of such records
        return b"".join(map(encode_line, records))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_lines(path: Path, size: int) -> Iterator[dict[str, Any]]:
    """Committed lines of a log, without loading the file as a whole."""
    if not size:
        return
    with readable(path) as file:
        number = 0
        while size > 0:
            line, number = file.readline(), number + 1
            size -= len(line)
            yield parse_line(line, path, f":{number}")


@contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading; StoreError where it cannot be."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); restore it from a copy.") from None


def parse_line(line: bytes, path: Path, place: str) -> dict[str, Any]:
    """A line of ours; StoreError that names the ``place`` in the file where our writers did not put that there."""
    try:
        record = _decode(line.decode())
    except (ValueError, RecursionError):
        record = parse_json(line, f"{path}{place}", error=StoreError, remedy=_REMEDY)
    if not isinstance(record, dict):
        raise StoreError(f"{path}{place}: holds {brief(record)}, expected a JSON object; {_REMEDY}")
    for name, value in record.items():
        if name in _KINDS:
            kinds, expected = _KINDS[name]
            kind = type(value)
            if kind not in kinds or ((kind is int or kind is float) and not 0 <= value < 2**63):
                raise StoreError(f"{path}{place}: field {name} is {brief(value)}, expected {expected}; {_REMEDY}")
    return record


def parse_sample(line: bytes, path: Path, place: str) -> dict[str, Any]:
    """A line of ``samples.jsonl``."""
    record = parse_line(line, path, place)
    if "key" in record and "source" in record:
        return record
    raise StoreError(f"{path}{place}: has no field {'source' if 'key' in record else 'key'}; {_REMEDY}")


def read_failures(path: Path, size: int) -> Iterator[dict[str, Any]]:
    """Committed lines of ``failures.jsonl``."""
    for number, line in enumerate(read_lines(path, size), start=1):
        for name in ("source", "position", "error"):
            if name not in line:
                raise StoreError(f"{path}:{number}: has no field {name}; {_REMEDY}")
        yield line


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def unresolved(lines: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The failure log as it stands: the latest line of each source that was not read since."""
    failures: dict[str, dict[str, Any]] = {}
    for line in lines:
        note_failure(failures, line)
    return failures


def note_failure(failures: dict[str, dict[str, Any]], line: dict[str, Any]) -> None:
    """Let a line replace the earlier one of its source; ``error`` null means a retry has read it."""
    failures.pop(line["source"], None)
    if line["error"] is not None:
        failures[line["source"]] = line
