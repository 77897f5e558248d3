"""``grn store drop``: rows that readers skip from now on; nothing is rewritten, and no other file changes.

A part's list is replaced in one step, so a run killed between two parts has dropped what it did, and the same command
drops the rest.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grncli.editing.opened_store import AnyStore, open_any_store
from grncli.editing.row_names import NamedRows, all_lines
from grncli.runtime.errors import UsageError
from grncli.store.rows.claiming import explained, lock_part, store_lock
from grncli.store.rows.dropped_rows import DroppedRows, runs_of
from grncli.store.rows.schema import COMPLETE, part_name

RowsOfPart = Mapping[int, Mapping[str, Sequence[int]]]
"""Stored rows by part and group."""


@dataclass(frozen=True)
class DropSummary:
    """What a run of ``drop_rows`` changed, and what the store has now."""

    store: Path
    dropped: int  # samples, by this run
    already: int  # samples that were named, and had been dropped before
    samples: int  # that remain


def drop_named(path: Path, names: Sequence[str]) -> DropSummary:
    """Drop the rows of a store that are named: by key or source, of a features store by prompt.

    Raises
    ------
    UsageError
        If a name is that of no row, or no row would remain.
    StoreError
        If the store is none, or is being written.

    Nothing is changed then.
    """

    def named(store: AnyStore) -> RowsOfPart:
        wanted = NamedRows(names, store.schema)
        rows: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for part, line in all_lines(store):
            if line in wanted:
                rows[part][line[store.schema.group_field]].append(line["row"])
        wanted.require_met(path)
        return rows

    return drop_rows(path, named)


def drop_rows(path: Path, choose: Callable[[AnyStore], RowsOfPart]) -> DropSummary:
    """Drop the rows that ``choose`` picks from the store at ``path``, which nobody else writes meanwhile."""
    with explained(path, "no sample was lost"), _locked(path) as store:
        chosen = choose(store)
        lists = {part: _merged(store, part, rows) for part, rows in chosen.items()}
        named = sum(len(rows) for groups in chosen.values() for rows in groups.values())
        added = sum(new.count - store.stored_parts()[part].dropped.count for part, new in lists.items())
        if added and added >= len(store):
            raise UsageError(
                f"{path}: all {len(store)} samples would be dropped, expected one to remain; shorten the list"
            )
        for part, new in lists.items():
            if new != store.stored_parts()[part].dropped:
                new.write(path / part_name(part))
        if added and (path / COMPLETE).exists():
            os.utime(path / COMPLETE)  # for make: the store has changed
        return DropSummary(path, added, named - added, len(store) - added)


@contextmanager
def _locked(path: Path) -> Iterator[AnyStore]:
    """The store, with the locks of all its parts."""
    parts = open_any_store(path).stored_parts()
    with ExitStack() as locks:
        with store_lock(path):
            for part in parts:
                locks.callback(lock_part(path / part_name(part)).release)
        yield open_any_store(path)


def _merged(store: AnyStore, part: int, rows: Mapping[str, Sequence[int]]) -> DroppedRows:
    """What a part has dropped, with further rows."""
    before = store.stored_parts()[part].dropped
    groups = {name: runs_of(np.union1d(before.rows(name), np.array(more))) for name, more in rows.items()}
    return replace(before, groups={**before.groups, **groups})
