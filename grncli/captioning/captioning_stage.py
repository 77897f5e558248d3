"""``grn captions``: the captions of a file into an existing bit store."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grncli.captioning.caption_manifest import ManifestLine, read_manifest
from grncli.captioning.source_matching import match
from grncli.runtime.errors import StoreError, UsageError
from grncli.runtime.text import printable
from grncli.store import BitStore, open_store, part_name
from grncli.store.captions import CaptionLine, group_by_source, read_part_captions, replace_captions
from grncli.store.rows.claiming import explained, lock_part, store_lock


@dataclass(frozen=True)
class CaptioningSummary:
    """What a run of ``caption_store`` changed, and what the store has now."""

    lines: int  # of the file
    captions: int  # in those that belong to sources of the store
    added: int  # sources that had no captions
    replaced: int  # sources that had others
    unchanged: int
    lone: int  # lines of media that the store does not have
    first_lone: str | None  # the first of these, as the file names it
    sources: int
    uncaptioned: int  # sources that have no captions now


def caption_store(store_path: Path, file: Path, columns: Mapping[str, str] | None = None) -> CaptioningSummary:
    """Add the captions of ``file`` to the store, in place of those that its sources had; others stay.

    The bits, their checksums and the fingerprint are left alone. ``columns`` are as `read_manifest` takes them.

    Raises
    ------
    UsageError
        If a line of the file is none, or no path in it is of the store.
    StoreError
        If the store is none, is being written, or has captions that cannot be read.

    Nothing is changed then.
    """
    lines = read_manifest(file, columns)
    store = open_store(store_path)
    parts = store.sources()
    matched, lone = match(lines, parts)
    if not matched:
        raise UsageError(
            f"{file}: names none of the {len(parts)} sources of {store_path} (it names {printable(lone[0])}"
            f"{f', the store has {next(iter(parts))}' if parts else ''}), expected their paths or the ends of these"
        )
    with ExitStack() as locks, explained(store_path, "no captions were changed"):
        touched = sorted({parts[source] for source in matched})
        with store_lock(store_path):
            for part in touched:
                locks.callback(lock_part(store_path / part_name(part)).release)
        now = open_store(store_path)
        if now.digest() != store.digest() and now.sources() != parts:
            raise StoreError(f"{store_path} was written meanwhile; run the same command again.")
        return _replace(store, matched, parts, _counts(lines, matched, lone))


def _replace(
    store: BitStore, matched: dict[str, list[ManifestLine]], parts: dict[str, int], counts: dict[str, Any]
) -> CaptioningSummary:
    """What the parts have is merged with what is given, and replaced; the caller holds their locks."""
    given: dict[int, dict[str, list[CaptionLine]]] = defaultdict(dict)
    for source, lines in matched.items():
        given[parts[source]][source] = [replace(line.captions, source=source) for line in lines]
    changed: dict[Path, list[CaptionLine]] = {}
    added = replaced = known = 0
    for part in range(len(store.parts)):
        there = group_by_source(read_part_captions(store.source, part))
        known += len(there.keys() & parts.keys())  # samples of others may be dropped
        new = {name: lines for name, lines in given[part].items() if not _same(there.get(name, []), lines)}
        fresh = len(new.keys() - there.keys())
        added, replaced = added + fresh, replaced + len(new) - fresh
        if new:
            changed[store.path / part_name(part)] = [line for lines in (there | new).values() for line in lines]
    replace_captions(changed)
    return CaptioningSummary(
        **counts,
        added=added,
        replaced=replaced,
        unchanged=len(matched) - added - replaced,
        sources=len(parts),
        uncaptioned=len(parts) - known - added,
    )


def _counts(lines: list[ManifestLine], matched: dict[str, list[ManifestLine]], lone: list[str]) -> dict[str, Any]:
    captions = sum(len(line.captions.captions) for some in matched.values() for line in some)
    return {
        "lines": len(lines),
        "captions": captions,
        "lone": len(lone),
        "first_lone": printable(lone[0]) if lone else None,
    }


def _same(there: list[CaptionLine], given: list[CaptionLine]) -> bool:
    """Whether lines of one source say the same, in whatever order."""
    return len(there) == len(given) and all(line in there for line in given)
