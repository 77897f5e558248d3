"""The lines of text in a part, of which only a committed length counts: one for each row, one for each failure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, filterfalse
from operator import itemgetter
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.jsonlines import LineFile, encode_lines, parse_line
from grncli.store.rows.byte_source import ByteSource, Committed, reading
from grncli.store.rows.dropped_rows import DroppedRows
from grncli.store.rows.schema import RESTORE, TEXT, TEXT_OR_NULL, WHOLE, LineField, Schema

_BUFFER_BYTES = 1 << 20
_REMEDY = "restore the file."
_FAILURE_FIELDS = {"source": TEXT, "position": WHOLE, "error": TEXT_OR_NULL, "key": TEXT}
_REQUIRED_OF_FAILURES = ("source", "position", "error")

Line = dict[str, Any]


class CommittedLines:
    """A file that lines are appended to; ``size`` is its length once all are written, ``crc`` the crc32c of them all.

    StoreError where it is shorter than its committed ``size``.
    """

    def __init__(self, path: Path, size: int, crc: int) -> None:
        self.path = path
        self.size = self._written = size
        self.crc = crc
        self._buffer = bytearray()
        self._file: LineFile | None = None
        self.require_file()

    def open(self) -> None:
        """Begin to append: what lies beyond the committed size is cut away."""
        self.require_file()
        self._file = LineFile(self.path, size=self.size)

    def require_file(self) -> None:
        """StoreError unless the file is there with as many bytes as were written."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._written:
            raise StoreError(f"{self.path} has {size} bytes, expected at least {self._written}; {RESTORE}")

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
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close without writing what is buffered; harmless when repeated."""
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        assert self._file is not None
        self._file.append(bytes(self._buffer))
        self._written = self.size
        self._buffer.clear()


class RowLines:
    """The committed bytes of a part's ``samples.jsonl``; its index is 8 bytes a row, once needed.

    Parameters
    ----------
    rows : number of rows of each group, in the order of the groups
    dropped : rows of them whose lines are passed over
    """

    def __init__(
        self,
        source: ByteSource,
        name: str,
        committed: Committed,
        rows: Mapping[str, int],
        schema: Schema,
        dropped: DroppedRows,
    ) -> None:
        self._source = source
        self._name = name
        self._where = source.where(name)
        self._committed = committed
        self._rows = rows
        self._schema = schema
        self._dropped = dropped
        self._offsets: dict[str, NDArray[np.int64]] | None = None

    def to_expect(self) -> tuple[str, Committed]:
        """The file as its source is told of it."""
        return self._name, self._committed

    def of(self, group: str, rows: Sequence[int]) -> Iterator[Line]:
        """Lines of some rows of a group, by their place on disk, in the order given."""
        return self._read(self._index()[group][list(rows)])

    def records(self) -> Iterator[Line]:
        """Every line whose row remains, group after group, row after row."""
        if len(self._rows) > 1 or self._dropped.count:
            return chain.from_iterable(self._read(offsets[self._kept(name)]) for name, offsets in self._index().items())
        return self.stored()

    def stored(self) -> Iterator[Line]:
        """Every line as the file has them, also those of dropped rows."""
        return read_rows(self._source, self._name, self._committed, self._schema, self._rows)

    def _kept(self, group: str) -> NDArray[np.int64] | slice:
        kept = self._dropped.kept(group, self._rows[group])
        return slice(None) if kept is None else kept

    def _read(self, offsets: NDArray[np.int64]) -> Iterator[Line]:
        with reading(self._source, self._name, self._committed) as file:
            for offset in offsets.tolist():
                file.seek(offset)
                place = f"{self._where}, byte {offset}"
                line = parse_line(file.readline(), place, error=StoreError, remedy=_REMEDY)
                _check(line, place, self._schema.line_fields, self._schema.required_fields)
                yield line

    def _index(self) -> dict[str, NDArray[np.int64]]:
        """Offset of each row's line, by group."""
        if self._offsets is None:
            head = _head(self._schema)
            index = {name: np.full(rows, -1, np.int64) for name, rows in self._rows.items()}
            offset = 0
            with reading(self._source, self._name, self._committed) as file:
                size, expected = self._source.size(self._name) or 0, self._committed.size
                if size < expected:
                    raise self._damaged(f"{size} bytes, expected at least {expected}")
                while offset < expected:
                    line = file.readline()
                    match = head.match(line)
                    offsets = index.get(match[1].decode()) if match else None
                    if match is None or offsets is None or int(match[2]) >= len(offsets):
                        raise self._damaged(f"a line at byte {offset} of no sample")
                    offsets[int(match[2])] = offset
                    offset += len(line)
            if any((offsets < 0).any() for offsets in index.values()):
                raise self._damaged("no line for some samples")
            self._offsets = index
        return self._offsets

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self._where} has {what}; {RESTORE}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_offsets": None}


def _head(schema: Schema) -> re.Pattern[bytes]:
    # The writer puts these two first, so that the index needs no JSON parser.
    return re.compile(rb'\{"%b": "([\w.-]{1,63})", "row": ([0-9]{1,18})[,}]' % schema.group_field.encode())


def encode_rows(group: str, first: int, records: Sequence[Mapping[str, Any]], schema: Schema) -> bytes:
    """Lines of rows from number ``first`` on, with group and row in front, which is where the reader looks for them."""
    field, required = schema.group_field, set(schema.required_fields)
    for record in filterfalse(required.issubset, records):
        raise ValueError(f"a record has no {' or no '.join(schema.required_fields)}: {dict(record)}")
    lines = []
    for row, record in enumerate(records, start=first):
        line = {field: group, "row": row, **record}
        if field in record or "row" in record:  # a line taken over from another store
            line |= {field: group, "row": row}
        lines.append(line)
    return encode_lines(lines, first=field)


def read_rows(
    source: ByteSource, name: str, committed: Committed, schema: Schema, rows: Mapping[str, int]
) -> Iterator[Line]:
    """Committed lines of ``samples.jsonl``; StoreError unless they are those of the rows of each group, in order."""
    required = (schema.group_field, "row", *schema.required_fields)
    following = dict.fromkeys(rows, 0)
    for place, line in read_lines(source, name, committed, schema.line_fields, required):
        group, row = line[schema.group_field], line["row"]
        if row != following.get(group) or row == rows[group]:
            raise StoreError(f"{place}: is row {row} of {group}, which is out of its place; {_REMEDY}")
        following[group] += 1
        yield line
    if following != rows:
        raise StoreError(f"{source.where(name)}: has no line for some samples; {_REMEDY}")


def read_failures(source: ByteSource, name: str, committed: Committed) -> Iterator[Line]:
    """Committed lines of ``failures.jsonl``."""
    return map(itemgetter(1), read_lines(source, name, committed, _FAILURE_FIELDS, _REQUIRED_OF_FAILURES))


def read_lines(
    source: ByteSource,
    name: str,
    committed: Committed,
    fields: Mapping[str, LineField],
    required: Iterable[str] = (),
) -> Iterator[tuple[str, Line]]:
    """Committed lines in the order they were written, each with its place; StoreError for a field that is not right."""
    size = committed.size
    if not size:
        return
    where, number = source.where(name), 0
    with reading(source, name, committed) as file:
        while size > 0:
            data, number = file.readline(), number + 1
            size -= len(data)
            place = f"{where}:{number}"
            line = parse_line(data, place, error=StoreError, remedy=_REMEDY)
            _check(line, place, fields, required)
            yield place, line


def _check(line: Line, place: str, fields: Mapping[str, LineField], required: Iterable[str]) -> None:
    for name, value in line.items():
        if name in fields:
            kinds, expected = fields[name]
            kind = type(value)
            if kind not in kinds or ((kind is int or kind is float) and not 0 <= value < 2**63):
                raise StoreError(f"{place}: field {name} is {brief(value)}, expected {expected}; {_REMEDY}")
    for name in required:
        if name not in line:
            raise StoreError(f"{place}: has no field {name}; {_REMEDY}")


def unresolved(lines: Iterable[Line]) -> dict[str, Line]:
    """The failure log as it stands: the latest line of each source that was not read since."""
    failures: dict[str, Line] = {}
    for line in lines:
        note_failure(failures, line)
    return failures


def note_failure(failures: dict[str, Line], line: Line) -> None:
    """Let a line replace the earlier one of its source; ``error`` null means a retry has read it."""
    failures.pop(line["source"], None)
    if line["error"] is not None:
        failures[line["source"]] = line
