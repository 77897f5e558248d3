"""Becoming the one writer of a part: creating the store, comparing settings, locking, overwriting.

Every step that touches what parts share runs under the store's lock, which is held for moments only.
"""

import os
import shutil
from pathlib import Path

from grncli.errors import StoreError
from grncli.runtime.lock import PathLock
from grncli.store.durable import replace_file, sync_directory, temporary_path
from grncli.store.fingerprint import ATTRIBUTE, Fingerprint, read_fingerprint, root_attributes
from grncli.store.layout import COMMIT, COMPLETE, LOCK, METADATA, parse_part, part_name

_UNFINISHED = {LOCK, temporary_path(Path(METADATA)).name}


def claim_part(store: Path, fingerprint: Fingerprint, part: int, overwrite: bool) -> PathLock:
    """Create or check the store and take the lock of one part; StoreError when it cannot be had."""
    _refuse_foreign(store)
    store.mkdir(parents=True, exist_ok=True)
    with store_lock(store):
        _refuse_foreign(store)
        temporary_path(store / COMPLETE).unlink(missing_ok=True)
        if not (store / METADATA).exists():
            replace_file(store / METADATA, fingerprint.to_document())
            sync_directory(store.parent)
        elif overwrite and fingerprint.parts == 1:
            _discard_parts(store, _existing_parts(store))
            replace_file(store / METADATA, fingerprint.to_document())
        else:
            _require_same(store, fingerprint, overwrite)
            if overwrite:
                _discard_parts(store, [part])
        lock = _lock_part(store, part)
    try:
        temporary_path(store / part_name(part) / COMMIT).unlink(missing_ok=True)
        for path in sorted(store.glob(_discarded("part-*" if fingerprint.parts == 1 else part_name(part)))):
            shutil.rmtree(path)
    except BaseException:
        lock.release()
        raise
    return lock


def store_lock(store: Path) -> PathLock:
    """Lock over what parts share: the root document and the completion marker."""
    return PathLock(store / LOCK)


def _refuse_foreign(store: Path) -> None:
    """Nothing is written into a directory that holds anything but a store, with or without overwrite."""
    if not store.exists():
        return
    if not store.is_dir():
        raise StoreError(f"{store} is a file, not a bit store; choose another OUT.")
    # Listed before the document is read: another process may create the store in between.
    names = set(os.listdir(store)) - _UNFINISHED
    attributes = root_attributes(store) if names else None
    if names and (attributes is None or ATTRIBUTE not in attributes):
        raise StoreError(f"{store} holds something else than a bit store; choose another OUT, or empty it yourself.")


def _require_same(store: Path, fingerprint: Fingerprint, overwrite: bool) -> None:
    remedy = "Use the same settings, another OUT, or --overwrite."
    if fingerprint.parts > 1 or overwrite:
        # Overwriting replaces one part only, so it cannot change what all parts share.
        remedy = "Use the same settings or another OUT."
    read_fingerprint(store).require(fingerprint, store, remedy, parts=True)


def _existing_parts(store: Path) -> list[int]:
    parts = (parse_part(entry.name) for entry in store.iterdir() if entry.is_dir())
    return sorted(part for part in parts if part is not None)


def _lock_part(store: Path, part: int) -> PathLock:
    directory = store / part_name(part)
    if not directory.is_dir():
        directory.mkdir()
        sync_directory(store)
    lock = PathLock(directory / LOCK)
    if not lock.try_acquire():
        raise StoreError(f"{directory} is being written by another process; wait until it has ended, or stop it first.")
    return lock


def _discard_parts(store: Path, parts: list[int]) -> None:
    """Move parts out of sight in one step each, once no other process writes any of them."""
    locks: list[PathLock] = []
    try:
        for part in parts:
            if (store / part_name(part)).is_dir():
                locks.append(_lock_part(store, part))
        (store / COMPLETE).unlink(missing_ok=True)
        for lock in locks:
            directory = lock.path.parent
            target = store / _discarded(directory.name)
            if target.exists():
                shutil.rmtree(target)
            os.rename(directory, target)
        sync_directory(store)
    finally:
        for lock in locks:
            lock.release()


def _discarded(name: str) -> str:
    """Where a part is moved to be deleted."""
    return f".{name}.old"
