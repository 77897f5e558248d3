"""What the records of a manifest say of media: a path, a label, captions, and which stretch of a clip is meant.

Captions are read as our stores keep them, as people write them, and as the paper's release does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from grncli.media.classes import label_text
from grncli.media.formats import suffix_of
from grncli.media.listing.manifest_tables import Record, RecordTable, name_columns, open_table
from grncli.media.sources import ManifestRow
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import printable
from grncli.store.captions import Span, check_span, parse_captions

ROLES = ("path", "label", "caption", "begin", "end")
"""What a column can be chosen for."""
KEYS = ("source", "path", "image_path", "video_path", "file_name")
TEXTS = ("captions", "caption", "text", "long_caption")
KINDS = {"long_caption": "long"}  # of a caption that says it by the name of its field
FRAMES = ("begin_frame_id", "end_frame_id")  # of a clip of ``fps`` frames a second
_MOST_FRAMES = 1 << 53


def read_rows(path: str, columns: Mapping[str, str] | None = None, *, remedy: str) -> Iterator[ManifestRow]:
    """The rows of a file, in their order.

    A record names its media in one of `KEYS` and may say what they show in one or several of `TEXTS`, their class in
    ``label``, and of a clip the stretch that is meant in ``begin`` and ``end`` (seconds), or in frames as the release
    does (`FRAMES` and ``fps``; facts section 8).

    Parameters
    ----------
    columns : names of columns by `ROLES`, instead of the usual ones
    remedy : ends the sentence about a record that is wrong

    Raises
    ------
    UsageError
        If the file is no table, has no record, or a record is wrong: one sentence with file and line.
    """
    chosen = dict(columns or {})
    count, missing = 0, {name: role for role, name in chosen.items()}
    with open_table(path, suffix_of(path)) as table:
        reader = _RecordReader(table, chosen, remedy)
        for record in table.records:
            count += 1
            if missing:
                missing = {name: role for name, role in missing.items() if name not in record[1]}
            yield reader.row(record)
    if not count:
        raise UsageError(f"{printable(path)}: has no line, expected paths of media, one a line")
    for name, role in missing.items() if table.columns is None else ():
        raise UsageError(f"{table.path}: no line has the field {printable(name)}, which --columns {role}={name} names")


def parse_columns(columns: str | Mapping[str, str]) -> dict[str, str]:
    """``path=file,caption=text``, or a mapping: a column for each of some `ROLES`; UsageError for anything else."""
    if isinstance(columns, str):
        pairs = [pair.partition("=")[::2] for pair in columns.split(",")]
    else:
        pairs = list(columns.items())
    chosen: dict[str, str] = {}
    for role, name in ((role.strip(), name.strip()) for role, name in pairs):
        if role not in ROLES or not name or role in chosen:
            raise UsageError(
                f"--columns {role}={name}: is no choice of a column, expected "
                f"{', '.join(f'{role}=NAME' for role in ROLES)}, each once at most"
            )
        chosen[role] = name
    return chosen


def with_span(path: str, span: Span) -> str:
    """``path`` with a stretch of the clip before its suffix, ``v@1.5-4.mp4``: what two stretches of it differ in."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}@{_seconds(span[0])}-{_seconds(span[1])}{suffix}"


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def merged(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """One row for each path and stretch, where it came first: several rows of one are its captions.

    UsageError where their labels differ.
    """
    by_source: dict[str | tuple[str, Span], ManifestRow] = {}
    for row in rows:
        path = os.path.normpath(row.path)
        path = row.path if path == row.path else path  # of a million rows, no second text each
        key = path if row.span is None else (path, row.span)
        other = by_source.setdefault(key, row)
        if other is not row:
            by_source[key] = _joined(other, row)
    return list(by_source.values())


def _joined(first: ManifestRow, second: ManifestRow) -> ManifestRow:
    labels = [label for label in (first.label, second.label) if label is not None]
    if len(set(labels)) > 1:
        raise UsageError(
            f"{second.place}: {printable(second.path)} has the label {brief(second.label)}, and at {first.place} "
            f"{brief(first.label)}; expected one"
        )
    one, other = first.captions, second.captions
    if one is not None and other is not None:
        texts = tuple(dict.fromkeys((*one.captions, *other.captions)))
        one = replace(one, captions=texts, fields={**other.fields, **one.fields})
    return replace(first, label=labels[0] if labels else None, captions=one or other)


@dataclass(frozen=True)
class _Columns:
    """Which column says what."""

    path: str
    captions: tuple[str, ...]
    label: str
    begin: str
    end: str

    @cached_property
    def used(self) -> frozenset[str]:
        """Columns that are not kept as they are."""
        return frozenset((self.path, self.label, *self.captions))


class _RecordReader:
    """Records of one table as rows."""

    def __init__(self, table: RecordTable, chosen: Mapping[str, str], remedy: str) -> None:
        self._table = table
        self._chosen = chosen
        self._remedy = remedy
        self._shared: _Columns | None = None
        if table.columns is not None:
            self._shared = self._settled(table.columns, f"{table.path}:1")
            for role, name in chosen.items():
                if name not in table.columns:
                    raise self._wrong(
                        f"{table.path}:1",
                        f"has no column {printable(name)}, which --columns {role}={printable(name)} names, but "
                        f"{name_columns(table.columns)}",
                    )

    def row(self, record: Record) -> ManifestRow:
        """UsageError where the record is wrong."""
        place, entry = record
        columns = self._shared or self._settled(entry, place)
        path = entry.get(columns.path)
        if not isinstance(path, str) or not path.strip() or not _can_name_a_file(path):
            raise self._wrong(place, f"field {columns.path} is {brief(path)}, expected the path of a file")
        fields = {name: value for name, value in entry.items() if name not in columns.used}
        fields |= self._span(fields, columns, place)
        check_span(fields, place, UsageError, self._remedy)
        span = (fields["begin"], fields["end"]) if "begin" in fields else None
        label = self._label(entry.get(columns.label), columns.label, place)
        captions = None
        if any(name in entry for name in columns.captions):
            texts = [text for name in columns.captions if name in entry for text in _captions(name, entry[name])]
            line = {**fields, "source": path, "captions": texts}  # other columns may have these names
            captions = parse_captions(line, place, error=UsageError, remedy=self._remedy)
        return ManifestRow(place, path, label, captions, span)

    def _settled(self, names: Collection[str], place: str) -> _Columns:
        """Which of these columns says what; UsageError where the path is named by none or by several."""
        chosen = self._chosen
        expected = (chosen["path"],) if "path" in chosen else KEYS
        keys = [name for name in expected if name in names]
        if len(keys) != 1:
            found = " and ".join(keys) or f"none of its columns ({name_columns(names)})"
            hint = "" if "path" in chosen else " or one chosen with --columns path=NAME"
            raise self._wrong(place, f"its source is named by {found}, expected one of {name_columns(expected)}{hint}")
        texts = (chosen["caption"],) if "caption" in chosen else TEXTS
        label, begin, end = (chosen.get(role, role) for role in ("label", "begin", "end"))
        return _Columns(keys[0], tuple(name for name in texts if name in names), label, begin, end)

    def _label(self, value: Any, column: str, place: str) -> str | None:
        try:
            return label_text(value)
        except ValueError as error:
            raise self._wrong(place, f"field {column} {error}") from None

    def _span(self, fields: Mapping[str, Any], columns: _Columns, place: str) -> dict[str, Any]:
        """Begin and end in seconds, also of a record that counts frames: the end is that of its last frame."""
        read = _number if self._table.textual else _same
        if columns.begin in fields or columns.end in fields:
            return {"begin": read(fields.get(columns.begin)), "end": read(fields.get(columns.end))}
        if not any(name in fields for name in FRAMES):
            return {}
        begin, end, fps = (read(fields.get(name, 0)) for name in (*FRAMES, "fps"))
        frames = _is_frame(begin) and _is_frame(end) and begin < end
        if not frames or type(fps) not in (int, float) or not 0 < fps < _MOST_FRAMES:
            raise self._wrong(
                place,
                f"begin_frame_id is {brief(begin)}, end_frame_id {brief(end)} and fps {brief(fps)}, expected two "
                "ascending numbers of frames and a rate",
            )
        return {"begin": begin / fps, "end": end / fps}

    def _wrong(self, place: str, found: str) -> UsageError:
        return UsageError(f"{place}: {found}; {self._remedy}")


def _can_name_a_file(path: str) -> bool:
    """False for what no file system takes: a zero byte, or a lone half of a surrogate pair."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _captions(name: str, value: Any) -> list[Any]:
    """What a field says, as our own form has it; what is no text stays, to be refused."""
    values = value if isinstance(value, list) else [value]
    kind = KINDS.get(name)
    return [{"type": kind, "content": entry} if isinstance(entry, str) else entry for entry in values]


def _number(value: Any) -> Any:
    """A cell as a number, where it is one."""
    for kind in (int, float):
        try:
            return kind(value)
        except (TypeError, ValueError):
            continue
    return value


def _same(value: Any) -> Any:
    return value


def _is_frame(value: Any) -> bool:
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return whole and 0 <= value < _MOST_FRAMES
