"""Captions of a bit store's sources: ``captions.jsonl`` beside ``samples.jsonl`` in each part.

They lie apart from the bits, and no commit record counts them, since they come and change without new bits. A line is
one source, or one stretch of a clip where it has ``begin`` and ``end`` (seconds), so that windows and mirrored copies
of a source share it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from os import fsync
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from grncli.runtime.errors import GrnError, StoreError
from grncli.runtime.files import sync_directory, whole_file
from grncli.runtime.jsonfiles import brief
from grncli.runtime.jsonlines import encode_line, parse_line
from grncli.store.bit_store import BitStore
from grncli.store.rows.byte_source import ByteSource, reading
from grncli.store.rows.schema import part_name

CAPTIONS = "captions.jsonl"

Span = tuple[float, float]
"""Begin and end of a stretch of a clip, in seconds."""

_REMEDY = "repair the line, or delete the file and give the captions again with `grn captions`"


@dataclass(frozen=True, slots=True)
class Caption:
    """One text that says what a source shows; ``kind`` tells it from others of the same source, such as ``long``."""

    kind: str | None
    text: str


@dataclass(frozen=True, slots=True)
class CaptionLine:
    """The captions of a source, or of one stretch of it.

    Attributes
    ----------
    fields : what else the line says, as it was given, such as ``quality_prompt``; also ``begin`` and ``end``
    """

    source: str
    captions: tuple[Caption, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def span(self) -> Span | None:
        """The stretch of the clip that the captions speak of; None for all of it."""
        return (self.fields["begin"], self.fields["end"]) if "begin" in self.fields else None

    def record(self) -> dict[str, Any]:
        """The line as JSON data."""
        captions = [{"type": caption.kind, "content": caption.text} for caption in self.captions]
        return {"source": self.source, "captions": captions, **self.fields}

    def hash(self) -> int:
        """A number of 256 bits for all that the line says."""
        return int.from_bytes(sha256(json.dumps(self.record(), sort_keys=True).encode()).digest())


class Captions:
    """Captions by source.

    StoreError where a source, or a stretch of it, has two lines.
    """

    def __init__(self, lines: Iterable[CaptionLine] = ()) -> None:
        by_source: dict[str, tuple[CaptionLine, ...]] = {}
        for line in lines:
            others = by_source.get(line.source, ())
            if any(other.span == line.span for other in others):
                raise StoreError(f"{brief(line.source)} has two lines in {CAPTIONS}, expected one; {_REMEDY}.")
            by_source[line.source] = (*others, line)
        self._by_source = by_source

    def of(self, source: str, span: Span | None = None) -> tuple[Caption, ...]:
        """Captions of a source, none where it has no line.

        Parameters
        ----------
        span : the window of the clip that is asked for: captions of other stretches are left out
        """
        return tuple(caption for line in self.lines(source, span) for caption in line.captions)

    def of_sample(self, record: Mapping[str, Any]) -> tuple[Caption, ...]:
        """Captions of a sample, by its line in ``samples.jsonl``."""
        return tuple(caption for line in self.lines_of_sample(record) for caption in line.captions)

    def lines(self, source: str, span: Span | None = None) -> Sequence[CaptionLine]:
        """Lines of the whole source, and of its stretches the one that shares most of ``span``."""
        lines = self._by_source.get(source, ())
        if span is None:
            return lines
        shares = [None if line.span is None else _shared(line.span, span) for line in lines]
        most = max((share for share in shares if share), default=None)
        return [line for line, share in zip(lines, shares, strict=True) if share is None or share == most]

    def lines_of_sample(self, record: Mapping[str, Any]) -> Sequence[CaptionLine]:
        """The lines that `of_sample` takes the captions from."""
        return self.lines(record["source"], span_of(record))

    def fields(self, source: str, span: Span | None = None) -> Mapping[str, Any]:
        """What else the lines of a source say, the first line's word before that of others."""
        merged: dict[str, Any] = {}
        for line in reversed(self.lines(source, span)):
            merged |= line.fields
        return merged

    def digest(self) -> str:
        """Hash of all captions and fields, whatever the order of the lines and however they are divided into parts."""
        return digest_of(sum(line.hash() for lines in self._by_source.values() for line in lines))

    def __len__(self) -> int:
        return len(self._by_source)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_source)

    def __contains__(self, source: object) -> bool:
        return source in self._by_source


def span_of(record: Mapping[str, Any]) -> Span | None:
    """The stretch of its source that a sample shows, by its line in ``samples.jsonl``; None where that says nothing."""
    start, frames, fps = (record.get(name) for name in ("start", "frames", "fps"))
    if start is None or not frames or not fps:
        return None
    return (start, start + frames / fps)


def read_captions(store: BitStore) -> Captions:
    """The captions of a store; none where it has no ``captions.jsonl``.

    Raises
    ------
    StoreError
        If a line is none, naming file and line.
    """
    parts = [part.part for part in store.parts]
    store.source.expect(((f"{part_name(part)}/{CAPTIONS}", None) for part in parts), streamed=True)
    return Captions(line for part in parts for line in read_part_captions(store.source, part))


def digest_of(hashes: int) -> str:
    """Hash of lines by the sum of theirs, so that processes that read some parts each find it together."""
    return f"{hashes % (1 << 256):064x}"


def read_part_captions(source: ByteSource, part: int) -> Iterator[CaptionLine]:
    """The captions of one part of a store, in the order of their lines; StoreError as `read_captions`."""
    return (line for line, _ in located_captions(source, part))


class LinePlace(NamedTuple):
    """Where a line of captions stands: its part, first byte in the file, number of bytes, and their crc32c."""

    part: int
    offset: int
    size: int
    crc32c: int


def located_captions(source: ByteSource, part: int) -> Iterator[tuple[CaptionLine, LinePlace]]:
    """As `read_part_captions`, each with its place."""
    name = f"{part_name(part)}/{CAPTIONS}"
    if not source.is_remote and CAPTIONS not in (source.list(part_name(part)) or ()):
        return
    where, offset = source.where(name), 0
    with reading(source, name, missing=source.is_remote) as file:
        for number, data in enumerate(file, start=1):
            place = LinePlace(part, offset, len(data), google_crc32c.value(data))
            yield parse_caption_line(data, f"{where}:{number}"), place
            offset += len(data)


def parse_caption_line(data: bytes, place: str) -> CaptionLine:
    """A line of ``captions.jsonl``; StoreError that names its place."""
    line = parse_line(data, place, error=StoreError, remedy=_REMEDY)
    return parse_captions(line, place, error=StoreError, remedy=_REMEDY)


def parse_captions(line: Mapping[str, Any], place: str, *, error: type[GrnError], remedy: str) -> CaptionLine:
    """A line ``{"source", "captions": [{"type", "content"}], ...}``.

    Parameters
    ----------
    error : raised for a field that is missing or wrong, as one sentence that names ``place`` and ends with ``remedy``
    """
    source, given = line.get("source"), line.get("captions")
    if not isinstance(source, str) or not source or not is_unicode(source):
        raise error(f"{place}: field source is {brief(source)}, expected the path of a source; {remedy}")
    if not isinstance(given, list) or not given:
        raise error(f"{place}: field captions is {brief(given)}, expected a list of captions; {remedy}")
    captions = tuple(_caption(entry, place, error, remedy) for entry in given)
    if len(set(captions)) < len(captions):
        doubled = next(caption for caption in captions if captions.count(caption) > 1)
        raise error(f"{place}: has the caption {brief(doubled.text)} twice, expected each once; {remedy}")
    fields = {name: value for name, value in line.items() if name not in ("source", "captions")}
    check_span(fields, place, error, remedy)
    return CaptionLine(source, captions, fields)


def replace_captions(contents: Mapping[Path, Iterable[CaptionLine]]) -> None:
    """Put captions into folders of parts, the lines of each sorted: all files are on disk before the first is replaced.

    The caller holds the locks of the parts; OSError where a file cannot be written, with none replaced.
    """
    with ExitStack() as whole:
        for folder, lines in contents.items():
            temporary = whole.enter_context(whole_file(folder / CAPTIONS))
            with temporary.open("wb") as file:
                for line in sorted(lines, key=_place):
                    file.write(encode_line(line.record()))
                file.flush()
                fsync(file.fileno())
    for folder in contents:
        sync_directory(folder)


def group_by_source(lines: Iterable[CaptionLine]) -> dict[str, list[CaptionLine]]:
    """The lines of each source."""
    groups = defaultdict(list)
    for line in lines:
        groups[line.source].append(line)
    return dict(groups)


def _caption(entry: Any, place: str, error: type[GrnError], remedy: str) -> Caption:
    expected = 'expected {"type": text or null, "content": text}'
    if not isinstance(entry, dict) or "content" not in entry:
        raise error(f"{place}: a caption is {brief(entry)}, {expected}; {remedy}")
    kind, text = entry.get("type"), entry["content"]
    if not isinstance(text, str) or not (kind is None or isinstance(kind, str)):
        raise error(f"{place}: a caption is {brief(entry)}, {expected}; {remedy}")
    if not text.strip():
        raise error(f"{place}: a caption is empty, expected text; {remedy}")
    if not is_unicode(text) or not is_unicode(kind or ""):
        raise error(f"{place}: the caption {brief(text)} is not valid Unicode, expected whole characters; {remedy}")
    return Caption(kind, text)


def check_span(fields: Mapping[str, Any], place: str, error: type[GrnError], remedy: str) -> None:
    """``error`` unless ``begin`` and ``end``, where there is one, are ascending numbers of seconds."""
    if "begin" not in fields and "end" not in fields:
        return
    begin, end = fields.get("begin"), fields.get("end")
    numbers = type(begin) in (int, float) and type(end) in (int, float)
    if not numbers or not 0 <= begin < end < inf:  # type: ignore[operator]
        raise error(
            f"{place}: begin is {brief(begin)} and end {brief(end)}, expected seconds of a clip, the end after the "
            f"begin; {remedy}"
        )


def is_unicode(text: str) -> bool:
    """False for text with half of a surrogate pair, which JSON may hold and UTF-8 does not."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _place(line: CaptionLine) -> tuple[str, Span]:
    return line.source, line.span or (-1.0, -1.0)


def _shared(one: Span, other: Span) -> float:
    """Seconds that two stretches share."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
