"""JSON Lines: one object a line, appended whole or not at all; a last line without its end is none.

Lines end at a line feed only: names may hold what else Unicode takes for the end of a line.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grncli.runtime.errors import GrnError
from grncli.runtime.files import naming, open_plain, write_all
from grncli.runtime.folders import refuse_link
from grncli.runtime.jsonfiles import brief, parse_json
from grncli.runtime.system import read_at

# json.dumps would make a new encoder for every line, which takes longer than the line.
_ENCODERS = {nan: json.JSONEncoder(ensure_ascii=False, allow_nan=nan).encode for nan in (False, True)}
_decode = json.JSONDecoder().decode
_PIECE = 1 << 16  # bytes


def encode_line(record: Mapping[str, Any], *, allow_nan: bool = True) -> bytes:
    """One line of JSON. Names that are not valid Unicode keep their bytes as escaped surrogates."""
    return _ENCODERS[allow_nan](record).encode("utf-8", "backslashreplace") + b"\n"


def encode_lines(records: Sequence[Mapping[str, Any]], first: str) -> bytes:
    """Lines for records of finite numbers whose first field is called ``first``: those of ``encode_line``.

    Encoded as one list and then cut, as a call of the encoder for every line takes three times as long as the lines.
    What is cut at cannot stand inside a string, where quotes are escaped.
    """
    start = f'{{"{first}": '
    text = _ENCODERS[False](records)[1:-1].replace(f"}}, {start}", f"}}\n{start}")
    if text.count("\n") != len(records) - 1:  # a record holds a list of such records
        return b"".join(encode_line(record, allow_nan=False) for record in records)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_lines(path: Path, *, error: type[GrnError], remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a file with its place ``PATH:NUMBER``, without loading the file as a whole.

    Parameters
    ----------
    error : raised for a line that is no JSON object, as one sentence that names its place and ends with ``remedy``

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):  # else a killed process left it
                place = f"{path}:{number}"
                yield place, parse_line(line, place, error=error, remedy=remedy)


def parse_line(line: bytes, place: str, *, error: type[GrnError], remedy: str) -> dict[str, Any]:
    """The object of one line; ``error`` that names its ``place`` where it is none."""
    try:
        record = _decode(line.decode())
    except (ValueError, RecursionError):
        record = parse_json(line, place, error=error, remedy=remedy)
    if not isinstance(record, dict):
        raise error(f"{place}: holds {brief(record)}, expected a JSON object; {remedy}")
    return record


class LineFile:
    """A file held open to append lines; use as a context manager. What follows its last whole line is cut away.

    Parameters
    ----------
    path : created if need be; OSError where a link is in its place
    size : bytes that count, where they are known from elsewhere; the file has as many

    Attributes
    ----------
    size : bytes of the lines so far
    """

    def __init__(self, path: Path, *, size: int | None = None) -> None:
        refuse_link(path)
        self.path = path
        self._fd: int | None = open_plain(path, os.O_RDWR | os.O_CREAT, follow=False)
        try:
            with naming(path):
                present = os.fstat(self._fd).st_size
                self.size = _end_of_lines(self._fd, present) if size is None else size
                if present > self.size:
                    os.ftruncate(self._fd, self.size)
        except BaseException:
            self.close()
            raise

    def append(self, lines: bytes) -> None:
        """Write encoded lines; after an OSError, which names the file, it is as it was before."""
        assert self._fd is not None
        with naming(self.path):
            try:
                write_all(self._fd, memoryview(lines), self.size)
            except OSError:
                os.ftruncate(self._fd, self.size)
                raise
        self.size += len(lines)

    def sync(self) -> None:
        """Wait until every line is on disk."""
        assert self._fd is not None
        with naming(self.path):
            os.fsync(self._fd)

    def close(self) -> None:
        """Harmless when repeated."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "LineFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a file that is not held open."""
    with LineFile(path) as file:
        file.append(encode_line(record))


def _end_of_lines(fd: int, size: int) -> int:
    """Bytes up to the last line feed."""
    end = size
    while end > 0:
        start = max(0, end - _PIECE)
        feed = read_at(fd, end - start, start).rfind(b"\n")
        if feed >= 0:
            return start + feed + 1
        end = start
    return 0
