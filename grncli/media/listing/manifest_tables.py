"""Tables that people keep beside media: JSON lines, CSV, TSV and Parquet, read record by record.

Every record has a place that an error names: ``photos.csv:12``, or ``photos.parquet: row 12``.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from grncli.runtime.errors import UsageError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import one_line, printable

JSON_LINES_SUFFIXES = frozenset({"jsonl", "ndjson"})
TABLE_SUFFIXES = frozenset({*JSON_LINES_SUFFIXES, "csv", "tsv", "parquet"})
MAX_LINE_BYTES = 16 << 20
_BATCH = 4096  # rows of Parquet in memory at once
_BOM = b"\xef\xbb\xbf"
# Between cells, by suffix: the first row says which. Programs of some countries write semicolons.
_SIGNS = {"csv": ",;\t", "tsv": "\t", "txt": "\t,; "}
_SHOWN = 8  # columns in a sentence

Record = tuple[str, dict[str, Any]]
"""Place of a record, and its values by column; what is empty or null is left out."""


@dataclass(frozen=True)
class RecordTable:
    """An open table.

    Attributes
    ----------
    columns : names that all records share; None where each line has names of its own
    textual : whether every value is text, as in CSV
    records : can be read once
    """

    path: str
    columns: tuple[str, ...] | None
    textual: bool
    records: Iterator[Record]


@contextmanager
def open_table(path: str, suffix: str, unnamed: Sequence[str] = ()) -> Iterator[RecordTable]:
    """The records of a file, in their order.

    Parameters
    ----------
    suffix : csv, tsv, txt (as a CSV) or parquet; anything else is read as JSON lines
    unnamed : names of the columns of a CSV without a header, whose first row has none of these names; without any the
        first row is always the header

    Raises
    ------
    UsageError
        If the file cannot be read, is no such table or is not in UTF-8: one sentence with file and line, also while
        records are taken.
    """
    shown = printable(path)
    try:
        descriptor = open_plain(path)
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read ({error.strerror or error}), expected a table") from None
    with os.fdopen(descriptor, "rb") as file:
        if suffix == "parquet":
            yield _parquet(file, shown)
        elif suffix in _SIGNS:
            yield _separated(file, shown, unnamed, _SIGNS[suffix])
        else:
            yield RecordTable(shown, None, False, _json_lines(file, shown))


def name_columns(columns: Iterable[str]) -> str:
    """Names of columns in a sentence, the first few of many."""
    names = [printable(str(name)) for name in columns]
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]) or "none"


def _numbered(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        try:
            data = file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read behind line {number} ({error.strerror or error})") from None
        if not data:
            return
        number += 1
        if len(data) > MAX_LINE_BYTES:
            raise UsageError(f"{path}:{number}: is longer than {MAX_LINE_BYTES >> 20} MiB, expected one record a line")
        yield number, data.removeprefix(_BOM) if number == 1 else data


def _json_lines(file: BinaryIO, path: str) -> Iterator[Record]:
    for number, data in _numbered(file, path):
        if data.strip():
            place = f"{path}:{number}"
            yield place, {name: value for name, value in _object(data, place).items() if value is not None}


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        entry = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise UsageError(f"{place}: is not valid UTF-8, expected a JSON object") from None
    except RecursionError:
        raise UsageError(f"{place}: is nested too deeply, expected a JSON object") from None
    except ValueError as error:
        raise UsageError(f"{place}: is no JSON object ({one_line(error, 120)})") from None
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: holds {brief(entry)}, expected a JSON object")
    return entry


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where a key stands in it twice, of which Python would keep the last in silence."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError(f"the key {brief(_doubled([name for name, _ in pairs]))} stands in it twice")
    return entry


def _doubled(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


class _Lines:
    """Lines of a file as text, and how many were taken."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._lines = _numbered(file, path)
        self._path = path
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.taken, data = next(self._lines)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self._path}:{self.taken}: has the byte 0x{data[error.start]:02x}, which is not UTF-8 (Latin-1?); "
                "convert it, such as with iconv -f latin1 -t utf-8"
            ) from None


def _separated(file: BinaryIO, path: str, unnamed: Sequence[str], signs: str) -> RecordTable:
    lines = _Lines(file, path)
    first = next(lines, "")
    rows = _rows([first], lines, path, next((sign for sign in signs if sign in first), signs[0]))
    place, header = next(rows, (f"{path}:1", []))
    if not header:
        raise UsageError(f"{place}: is empty, expected names of columns")
    pending: list[tuple[str, list[str]]] = []
    if unnamed and not {*map(str.strip, header)} & {*unnamed}:
        pending, header = [(place, header)], list(unnamed)
    columns = tuple(name.strip() for name in header)
    if len(set(columns)) < len(columns):
        raise UsageError(f"{place}: has the column {brief(_doubled(columns))} twice, expected each once")
    return RecordTable(path, columns, True, _named(columns, pending, rows))


def _rows(first: list[str], lines: _Lines, path: str, sign: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row that has some, with the line it begins on: a quoted cell may go over several."""
    reader = csv.reader((line for some in (first, lines) for line in some), delimiter=sign, strict=True)
    began = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{path}:{began}: is no row of a table ({one_line(error, 120)})") from None
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield f"{path}:{began}", row
        began = lines.taken + 1


def _named(
    columns: tuple[str, ...], pending: list[tuple[str, list[str]]], rows: Iterator[tuple[str, list[str]]]
) -> Iterator[Record]:
    for some in (pending, rows):
        for place, row in some:
            if len(row) != len(columns):
                raise UsageError(
                    f"{place}: has {len(row)} cells, expected {len(columns)} ({name_columns(columns)}); a cell with "
                    "the sign between cells in it stands in quotes"
                )
            yield place, {name: cell for name, cell in zip(columns, row, strict=True) if cell.strip()}


def _parquet(content: BinaryIO, shown: str) -> RecordTable:
    try:
        from pyarrow import ArrowException, parquet  # of the extra: 120 MB that only these files need
    except ImportError:
        raise UsageError(f"{shown}: reading Parquet needs the pyarrow package: pip install 'grncli[parquet]'") from None
    try:
        file = parquet.ParquetFile(content)
        # Pictures inside the table are not read: they can be most of its bytes.
        columns = [field.name for field in file.schema_arrow if _is_plain(field.type)]
    except (ArrowException, OSError) as error:
        raise UsageError(f"{shown}: cannot be read as Parquet ({one_line(error, 120)})") from None
    return RecordTable(shown, tuple(columns), False, _parquet_records(file, shown, columns, (ArrowException, OSError)))


def _is_plain(kind: Any) -> bool:
    """Whether a type of Arrow is that of text, numbers, or lists or structures of these."""
    from pyarrow import types

    if types.is_nested(kind):
        return not types.is_map(kind) and all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    texts = (types.is_string(kind), types.is_large_string(kind), kind == "string_view")
    return any((*texts, types.is_integer(kind), types.is_floating(kind), types.is_boolean(kind), types.is_null(kind)))


def _parquet_records(
    file: Any, shown: str, columns: list[str], damages: tuple[type[Exception], ...]
) -> Iterator[Record]:
    number = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=columns):
            for values in batch.to_pylist():
                number += 1
                yield f"{shown}: row {number}", {name: value for name, value in values.items() if not _is_null(value)}
    except damages as error:
        raise UsageError(f"{shown}: cannot be read behind row {number} ({one_line(error, 120)})") from None


def _is_null(value: Any) -> bool:
    """Whether a value is none: pandas writes NaN for a number that is not there, and JSON has no infinity."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))
