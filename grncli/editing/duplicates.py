"""``grn store dedupe``: samples of the same bits, or of sources of the same bytes; reported, or all but one dropped."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grncli.editing.dropping import RowsOfPart, drop_rows
from grncli.editing.opened_store import AnyStore
from grncli.editing.source_bytes import group_by_bytes
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.store import BitStore, open_store
from grncli.store.bits import BITS

By = Literal["bits", "source"]
_DIGEST = 16  # bytes; of ten million samples two different ones are the same with a chance of 1e-25


@dataclass(frozen=True)
class DuplicateSample:
    """A sample of a group."""

    index: int  # in the store
    key: str
    source: str
    label: str | None

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"key": self.key, "source": self.source, "label": self.label}


@dataclass(frozen=True)
class DedupeSummary:
    """What ``dedupe`` found, and dropped where it was asked to."""

    store: Path
    by: By
    samples: int  # of the store, before any was dropped
    groups: Sequence[Sequence[DuplicateSample]]
    """Samples that are the same, in the order of the store: the first one stays."""
    unread: Sequence[str]
    """Sources that are not where they were, so that their bytes could not be compared."""
    dropped: int

    @property
    def duplicates(self) -> int:
        """Samples that are the same as an earlier one."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def contradictions(self) -> int:
        """Groups whose samples have different labels."""
        return sum(len({each.label for each in group}) > 1 for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "store": str(self.store),
            "by": self.by,
            "samples": self.samples,
            "duplicates": self.duplicates,
            "contradictions": self.contradictions,
            "dropped": self.dropped,
            "unread": list(self.unread),
            "groups": [[each.to_json() for each in group] for group in self.groups],
        }


def dedupe(path: Path, by: By = "bits", *, drop: bool = False, monitor: Monitor | None = None) -> DedupeSummary:
    """Find samples that are the same, and with ``drop`` let readers skip all but the first of each group.

    Parameters
    ----------
    by : the bits, of samples of one latent grid; or the bytes of the sources' files, where all samples of a source are
        the same as those of an earlier source

    Raises
    ------
    Unfinished
        If the monitor asks for it; nothing was dropped then.
    UsageError
        If no source of the store is where it was.
    StoreError
    """
    monitor = monitor or Monitor()
    store = open_store(path)
    found, unread = _find(store, by, monitor)
    dropped = 0
    if drop and found:

        def choose(locked: AnyStore) -> RowsOfPart:
            assert isinstance(locked, BitStore)
            groups = found if locked.digest() == store.digest() else _find(locked, by, monitor)[0]
            rows: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
            for index in (index for group in groups for index in group[1:]):
                part, grid, row = locked.place_of(index)
                rows[part][grid].append(row)
            return rows

        dropped = drop_rows(path, choose).dropped
    return DedupeSummary(path, by, len(store), described(store, found), unread, dropped)


def _find(store: BitStore, by: By, monitor: Monitor) -> tuple[list[list[int]], Sequence[str]]:
    """Groups of samples that are the same, by their numbers, and sources that could not be read."""
    if by == "bits":
        return sorted(_same_bits(store, monitor)), ()
    first: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(store.records()):
        first[line["source"]].append(index)
    groups, unread = group_by_bytes(list(first), monitor)
    if len(unread) == len(first):
        raise UsageError(
            f"{store.path}: none of its {len(first)} sources is where it was, such as {unread[0]}; run the command in "
            "the folder in which grn tokenize was run"
        )
    # The first source stays with all its samples: windows and mirrored copies.
    return sorted([first[group[0]][0], *(i for name in group[1:] for i in first[name])] for group in groups), unread


def _same_bits(store: BitStore, monitor: Monitor) -> Iterator[list[int]]:
    done = 0
    for grid in store.grids:
        view = store.grid(grid)
        digests = list[bytes]()
        for _, rows in view.chunks_of(BITS):
            digests += (hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in rows)
            done += len(rows)
            monitor.progress(done, len(store), "")
            monitor.require_time(f"after {done} of {len(store)} samples")
        yield from _groups(digests, view.indices.tolist())


def _groups(digests: Sequence[bytes], indices: Sequence[int]) -> Iterator[list[int]]:
    groups: dict[bytes, list[int]] = {}
    first: dict[bytes, int] = {}
    for digest, index in zip(digests, indices, strict=True):
        known = first.setdefault(digest, index)
        if known != index:
            groups.setdefault(digest, [known]).append(index)
    return iter(groups.values())


def described(store: BitStore, groups: Sequence[Sequence[int]]) -> list[list[DuplicateSample]]:
    """Groups of samples by their numbers, with their names."""
    lines = store.records([index for group in groups for index in group])
    return [[_sample(index, next(lines)) for index in group] for group in groups]


def _sample(index: int, line: Mapping[str, Any]) -> DuplicateSample:
    return DuplicateSample(index, line["key"], line["source"], line.get("label"))
