"""``grn store compact``: a store without the rows that were dropped, in its place or elsewhere."""

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from grncli.editing.new_settings import edited_schema
from grncli.editing.opened_store import AnyStore, open_any_store
from grncli.editing.part_choice import remaining_part
from grncli.editing.row_copying import NewStore, copy_rows, require_complete
from grncli.runtime.errors import StoreError
from grncli.runtime.files import sync_directory
from grncli.runtime.folders import remove_now
from grncli.runtime.monitor import Monitor
from grncli.store.rows.claiming import explained, lock_part, store_lock
from grncli.store.rows.schema import part_name


@dataclass(frozen=True)
class CompactSummary:
    """What ``compact`` left out, and what the store holds."""

    store: Path  # the compact one
    removed: int  # samples
    samples: int
    made: bool  # False where there was nothing to do


def compact(path: Path, out: Path | None = None, *, monitor: Monitor | None = None) -> CompactSummary:
    """Write a store without its dropped rows to ``out``, or in its place: other numbers, the same samples.

    In place, the store is written beside itself and then takes the old one's name, so nothing may read it meanwhile;
    a run killed anywhere leaves the old store or the new one, and the same command does the rest.

    Raises
    ------
    Stopped
        If the monitor asks for it; what was copied is saved.
    StoreError, UsageError
        If the store is none, is damaged, incomplete or being written, or ``out`` is something else.
    """
    monitor = monitor or Monitor()
    if out is not None:
        return _compact_to(path, out, monitor)
    with explained(path, "no sample was lost"):
        _settle(path.resolve())
        return replace(_compact_in_place(path.resolve(), monitor), store=path)


def _compact_to(path: Path, out: Path, monitor: Monitor) -> CompactSummary:
    store = open_any_store(path)
    require_complete(path, store.complete)
    new = _compacted(store, out)
    made = not new.require_vacant([path])
    if made:
        copy_rows([new], monitor)
    return CompactSummary(out, sum(part.dropped for part in store.parts), len(store), made)


def _compact_in_place(path: Path, monitor: Monitor) -> CompactSummary:
    beside, old = _beside(path), _old(path)
    with ExitStack() as locks:
        first = open_any_store(path)
        with store_lock(path):
            for part in first.stored_parts():
                locks.callback(lock_part(path / part_name(part)).release)
        store = open_any_store(path)
        require_complete(path, store.complete)
        removed = sum(part.dropped for part in store.parts)
        if not removed:
            return CompactSummary(path, 0, len(store), made=False)
        new = _compacted(store, beside)
        try:
            new.require_vacant([path])
        except StoreError:  # what an interrupted run made of the store before it was changed
            remove_now(beside)
        copy_rows([new], monitor)
        os.rename(path, old)
        os.rename(beside, path)
        sync_directory(path.parent)
    remove_now(old)
    return CompactSummary(path, removed, len(store), made=True)


def _settle(path: Path) -> None:
    """End what a run was killed in the middle of: the new store has its name, and the old one is gone.

    StoreError where another store took the name meanwhile.
    """
    if _old(path).exists() and _beside(path).exists():
        if path.exists():
            raise StoreError(
                f"{path} was made anew while the compaction of an earlier store of that name was interrupted; move it "
                f"away and run the same command again to end that, or remove {_old(path)} and {_beside(path)}."
            )
        os.rename(_beside(path), path)
        sync_directory(path.parent)
    if path.exists():
        remove_now(_old(path))


def _compacted(store: AnyStore, out: Path) -> NewStore:
    parts = [remaining_part(store, number) for number in range(len(store.parts))]
    return NewStore(out, edited_schema(store, "compact", [store.digest()]), parts)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.compact")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.before-compact")
