"""Which rows of a part go into a new store, with the failures and captions that belong to them."""

from collections.abc import Iterable, Mapping
from typing import Any

from grncli.editing.opened_store import AnyStore
from grncli.editing.row_copying import CopiedPart
from grncli.store import BitStore
from grncli.store.captions import CaptionLine, read_part_captions
from grncli.store.done_sources import source_key
from grncli.store.rows.stored_part import StoredPart

SOURCE = "source"


def remaining_part(store: AnyStore, number: int) -> CopiedPart:
    """All rows of a part that are not dropped; what it has processed stays processed."""
    part = store.stored_parts()[number]
    return CopiedPart(
        part=part,
        rows={group: rows for group in part.arrays if len(rows := part.kept(group))},
        position=part.record.position,
        digest=part.record.digest,
        sources=part.record.sources,
        failures=list(part.failures().values()),
        captions=captions_of(store, part, _sources_of(part.lines.records())),
        gone=_gone(part),
    )


def _sources_of(lines: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Source of each line that has one: prompts of features have none."""
    return (line[SOURCE] for line in lines if SOURCE in line)


def captions_of(store: AnyStore, part: StoredPart, sources: Iterable[str]) -> list[CaptionLine]:
    """Captions that a part of a bit store has of these sources."""
    lines = list(read_part_captions(store.source, part.number)) if isinstance(store, BitStore) else []
    wanted = set(sources) if lines else set()
    return [line for line in lines if line.source in wanted]


def _gone(part: StoredPart) -> list[str]:
    """Keys of sources that have no rows any more."""
    gone = list(part.dropped.gone)
    if part.dropped.count:
        remaining = set(_sources_of(part.lines.records()))
        dropped = (line for line in part.lines.stored() if SOURCE in line and line[SOURCE] not in remaining)
        gone = sorted({*gone, *map(source_key, dropped)})
    return gone
