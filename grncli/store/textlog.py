"""A JSON Lines file of which only a committed length counts."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c

from grncli.errors import StoreError
from grncli.store.durable import write_all

_BUFFER_BYTES = 1 << 20
# json.dumps would make a new encoder for every line, which takes longer than the line.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class LineLog:
    """Appends lines; ``size`` is the length once they are all written, and ``crc`` the crc32c of them all."""

    def __init__(self, path: Path, size: int, crc: int) -> None:
        """Open ``path`` and cut what lies beyond its committed ``size``."""
        self.path = path
        self.size = size
        self.crc = crc
        self._buffer = bytearray()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        self._written = size
        found = os.fstat(self._file.fileno()).st_size
        if found < size:
            self._file.close()
            raise StoreError(
                f"{path} has {found} bytes, expected at least {size}; "
                "restore it, or make the store again with --overwrite."
            )
        if found > size:
            os.ftruncate(self._file.fileno(), size)

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
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close without writing what is buffered."""
        self._file.close()

    def _flush(self) -> None:
        with memoryview(bytes(self._buffer)) as data:
            write_all(self._file.fileno(), data, self._written)
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
    with path.open("rb") as file:
        while size > 0:
            line = file.readline()
            size -= len(line)
            try:
                record = json.loads(line)
            except ValueError as error:
                raise StoreError(f"{path} has a line that is not JSON ({error}); restore the file.") from error
            if not isinstance(record, dict):
                raise StoreError(f"{path} has a line that is not a JSON object; restore the file.")
            yield record


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
