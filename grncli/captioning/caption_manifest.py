"""Files of captions: manifests, of which every row has some."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grncli.media.formats import suffix_of
from grncli.media.listing.manifest_rows import TEXTS, merged, read_rows
from grncli.media.listing.manifest_tables import JSON_LINES_SUFFIXES, TABLE_SUFFIXES
from grncli.runtime.errors import UsageError
from grncli.store.captions import CaptionLine

_REMEDY = "nothing was changed"


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line; the ``source`` of its captions is as the file names it."""

    place: str
    captions: CaptionLine


def read_manifest(path: Path, columns: Mapping[str, str] | None = None) -> list[ManifestLine]:
    """The lines of a file, in their order; of a CSV or Parquet, whose cells hold one text, those of one path joined.

    Parameters
    ----------
    columns : as `read_rows` takes them

    Raises
    ------
    UsageError
        If the file cannot be read, or a line is wrong or has no caption: one sentence with file and line.
    """
    rows = list(read_rows(str(path), columns, remedy=_REMEDY))
    if suffix_of(str(path)) in TABLE_SUFFIXES - JSON_LINES_SUFFIXES:
        rows = merged(rows)
    lines = [ManifestLine(row.place, row.captions) for row in rows if row.captions is not None]
    if len(lines) < len(rows):
        first = next(row.place for row in rows if row.captions is None)
        expected = (columns or {}).get("caption") or ", ".join(TEXTS)
        raise UsageError(f"{first}: has no caption, expected one of {expected}; {_REMEDY}")
    return lines
