"""Captions in JSON lines, as our stores keep them, as people write them, and as the paper's release does.

A line names its source in one of `KEYS` and says what it shows in one or several of `TEXTS`; other fields are kept.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grncli.runtime.errors import UsageError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import one_line
from grncli.store.captions import CaptionLine, parse_captions

KEYS = ("source", "path", "image_path", "video_path", "file_name")
TEXTS = ("captions", "caption", "text", "long_caption")
KINDS = {"long_caption": "long"}  # of a caption that says it by the name of its field
FRAMES = ("begin_frame_id", "end_frame_id")  # of a clip of ``fps`` frames a second
MAX_LINE_BYTES = 16 << 20
_MOST_FRAMES = 1 << 53

_REMEDY = "nothing was changed"


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line; the ``source`` of its captions is as the file names it."""

    place: str
    captions: CaptionLine


def read_manifest(path: Path) -> list[ManifestLine]:
    """The lines of a file, in their order; blank ones do not count.

    A line is ``{"source", "captions": [{"type", "content"}], ...}``, or simpler ``{"path", "caption"}`` with any of
    `KEYS` and `TEXTS`; or the release's: pictures ``{image_path, long_caption, text, ...}``, clips ``{video_path,
    begin_frame_id, end_frame_id, fps, caption: [{type, content}], ...}`` (facts section 8). The frames of a clip become
    ``begin`` and ``end`` in seconds.

    Raises
    ------
    UsageError
        If the file cannot be read, or a line is not one of these: one sentence with file and line.
    """
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            lines = [_parsed(data, f"{path}:{number}") for number, data in _numbered(file, path) if data.strip()]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}), expected JSON lines") from None
    if not lines:
        raise UsageError(f"{path}: has no line, expected JSON lines of captions")
    return lines


def _numbered(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(data) > MAX_LINE_BYTES:
            raise UsageError(f"{path}:{number}: is longer than {MAX_LINE_BYTES >> 20} MiB, expected JSON lines")
        yield number, data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data


def _parsed(data: bytes, place: str) -> ManifestLine:
    entry = _object(data, place)
    keys, texts = [name for name in KEYS if name in entry], [name for name in TEXTS if name in entry]
    if len(keys) != 1:
        found = " and ".join(keys) or "none"
        raise UsageError(f"{place}: its source is named by {found}, expected one of {', '.join(KEYS)}; {_REMEDY}")
    if not texts:
        raise UsageError(f"{place}: has no caption, expected one of {', '.join(TEXTS)}; {_REMEDY}")
    fields = {name: value for name, value in entry.items() if name not in (*keys, *texts)}
    line = {
        "source": entry[keys[0]],
        "captions": [caption for name in texts for caption in _captions(name, entry[name])],
        **fields,
        **_span(fields, place),
    }
    return ManifestLine(place, parse_captions(line, place, error=UsageError, remedy=_REMEDY))


def _captions(name: str, value: Any) -> list[Any]:
    """What a field says, as our own form has it; what is no text stays, to be refused."""
    values = value if isinstance(value, list) else [value]
    kind = KINDS.get(name)
    return [{"type": kind, "content": entry} if isinstance(entry, str) else entry for entry in values]


def _span(fields: dict[str, Any], place: str) -> dict[str, float]:
    """Begin and end in seconds of a line that counts frames; the end is that of the frame before ``end_frame_id``."""
    if not any(name in fields for name in FRAMES) or "begin" in fields:
        return {}
    begin, end, fps = (fields.get(name, 0) for name in (*FRAMES, "fps"))
    frames = type(begin) is int and type(end) is int and 0 <= begin < end < _MOST_FRAMES
    if not frames or type(fps) not in (int, float) or not 0 < fps < _MOST_FRAMES:
        raise UsageError(
            f"{place}: begin_frame_id is {brief(begin)}, end_frame_id {brief(end)} and fps {brief(fps)}, expected two "
            f"ascending numbers of frames and a rate; {_REMEDY}"
        )
    return {"begin": begin / fps, "end": end / fps}


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        entry = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise UsageError(f"{place}: is not valid UTF-8, expected a JSON object; {_REMEDY}") from None
    except RecursionError:
        raise UsageError(f"{place}: is nested too deeply, expected a JSON object of captions; {_REMEDY}") from None
    except ValueError as error:
        raise UsageError(f"{place}: is no JSON object ({one_line(error, 120)}); {_REMEDY}") from None
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: holds {brief(entry)}, expected a JSON object; {_REMEDY}")
    return entry


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where a key stands in it twice, of which Python would keep the last in silence."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {brief(doubled)} stands in it twice")
    return entry


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
