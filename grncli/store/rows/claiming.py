"""Becoming the one writer of a part: create the store, compare settings, lock, overwrite; and marking it complete.

Every step that touches what parts share runs under the store's lock, which is held for moments only.

``--overwrite`` puts a marker into the part it begins, which stays until the part is complete: the same command again
resumes instead of discarding its own rows.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from grncli.runtime.errors import StoreError
from grncli.runtime.files import replace_file, sync_directory, temporary_path
from grncli.runtime.folders import make_folder, remove_now
from grncli.runtime.lease import is_lease
from grncli.runtime.lock import PathLock
from grncli.store.rows.byte_source import LocalFiles, root_attributes
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.schema import (
    COMMIT,
    COMPLETE,
    LOCK,
    METADATA,
    OVERWRITING,
    Schema,
    group_document,
    parse_part,
    part_name,
)

_UNFINISHED = {LOCK, temporary_path(Path(METADATA)).name}
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Agreement = Callable[[Sequence[PartRecord]], None]
"""Raises where the records of all parts do not go together."""


@dataclass(frozen=True)
class Claim:
    """The lock of a part; or why there is none, for a complete part where nothing can be written."""

    lock: PathLock | None
    obstacle: str = ""


@dataclass(frozen=True)
class Overwrite:
    """What ``--overwrite`` may resume, and what is called before it discards: see ``open_part``."""

    columns: Mapping[str, str]
    resumes: Callable[[int, str], bool]
    discarding: Callable[[], object] = lambda: None


def claim_part(store: Path, schema: Schema, part: int, overwrite: Overwrite | None) -> Claim:
    """Create or check the store and take the lock of one part; StoreError when it cannot be had."""
    try:
        return Claim(_claim(store, schema, part, overwrite))
    except OSError as error:
        if overwrite or error.errno not in _UNWRITABLE or root_attributes(LocalFiles(store)) is None:
            raise
        _require_same(store, schema, overwrite)  # before the record is read, which other settings make look damaged
        if not _is_complete(read_record(LocalFiles(store), part, schema)):
            raise
        return Claim(None, f"{error.filename or store} cannot be written ({error.strerror}); fix that and try again.")


def store_lock(store: Path) -> PathLock:
    """Lock over what parts share: the root document and the completion marker."""
    return PathLock(store / LOCK)


def _claim(store: Path, schema: Schema, part: int, overwrite: Overwrite | None) -> PathLock:
    directory = store / part_name(part)
    _refuse_foreign(store, schema)
    store.mkdir(parents=True, exist_ok=True)
    with store_lock(store):
        _refuse_foreign(store, schema)
        temporary_path(store / COMPLETE).unlink(missing_ok=True)
        if not (store / METADATA).exists():
            replace_file(store / METADATA, group_document(schema.attributes()))
            sync_directory(store.parent)
        elif overwrite and not is_interrupted(store, schema, part, overwrite):
            _discard(store, schema, part, overwrite)
        else:
            _require_same(store, schema, overwrite)
        lock = lock_part(directory)
    try:
        if overwrite and not (directory / OVERWRITING).exists():
            replace_file(directory / OVERWRITING, b"")
        temporary_path(directory / COMMIT).unlink(missing_ok=True)
        for path in sorted(store.glob(_hidden(store / "part-*" if schema.parts == 1 else directory).name)):
            remove_now(path)
    except BaseException:
        lock.release()
        raise
    return lock


def _refuse_foreign(store: Path, schema: Schema) -> None:
    """Nothing is written into a directory that holds anything but a store, with or without overwrite."""
    if not store.exists():
        return
    if not store.is_dir():
        raise StoreError(f"{store} is a file, not a {schema.noun}; choose another OUT.")
    # Listed before the document is read: another process may create the store in between.
    names = {name for name in os.listdir(store) if not is_lease(name)} - _UNFINISHED
    if names and schema.attribute not in (root_attributes(LocalFiles(store)) or {}):
        raise StoreError(
            f"{store} holds something else than a {schema.noun}; choose another OUT, or empty it yourself."
        )


def _require_same(store: Path, schema: Schema, overwrite: Overwrite | None) -> None:
    remedy = "Use the same settings, another OUT, or --overwrite."
    if schema.parts > 1 or overwrite:
        # Overwriting replaces one part only, so it cannot change what all parts share.
        remedy = "Use the same settings or another OUT."
    schema.require_same(root_attributes(LocalFiles(store)) or {}, store, remedy)


def _is_complete(record: PartRecord | None) -> bool:
    return record is not None and record.complete


def is_interrupted(store: Path, schema: Schema, part: int, overwrite: Overwrite) -> bool:
    """Whether the part was begun by an overwrite of the same settings and sources, and is not complete."""
    directory = store / part_name(part)
    if directory.is_symlink() or not (directory / OVERWRITING).exists():
        return False
    if schema.parts == 1 and _existing_parts(store) != [part]:
        return False
    try:
        record = read_record(LocalFiles(store), part, schema)
        _require_same(store, schema, overwrite)
    except StoreError:  # of other settings, or damaged, so that there is nothing to resume
        return False
    if record is None:
        return True
    same = not record.complete and record.columns == overwrite.columns
    return same and overwrite.resumes(record.position, record.digest)


def _discard(store: Path, schema: Schema, part: int, overwrite: Overwrite) -> None:
    if schema.parts == 1:
        _discard_parts(store, _existing_parts(store), overwrite)
        replace_file(store / METADATA, group_document(schema.attributes()))
    else:
        _require_same(store, schema, overwrite)
        _discard_parts(store, [part], overwrite)


def _existing_parts(store: Path) -> list[int]:
    parts = (parse_part(entry.name) for entry in store.iterdir() if entry.is_symlink() or entry.is_dir())
    return sorted(part for part in parts if part is not None)


def lock_part(directory: Path) -> PathLock:
    """The lock of a part, taken; StoreError while another process holds it."""
    if make_folder(directory):
        sync_directory(directory.parent)
    lock = PathLock(directory / LOCK)
    if not lock.try_acquire():
        raise StoreError(f"{directory} is being written by another process; wait until it has ended, or stop it first.")
    return lock


def _discard_parts(store: Path, parts: list[int], overwrite: Overwrite) -> None:
    """Move parts out of sight in one step each, once no other process writes any of them.

    Of a part that is a link the link goes, and what it leads to stays.
    """
    directories = [store / part_name(part) for part in parts]
    links = [directory for directory in directories if directory.is_symlink()]
    locked = [directory for directory in directories if directory not in links and directory.is_dir()]
    with ExitStack() as locks:
        for directory in locked:
            if (directory / LOCK).is_symlink():
                (directory / LOCK).unlink()
            locks.callback(lock_part(directory).release)
        overwrite.discarding()
        (store / COMPLETE).unlink(missing_ok=True)
        for directory in locked:
            remove_now(_hidden(directory))
            os.rename(directory, _hidden(directory))
        for link in links:
            link.unlink()
        sync_directory(store)


def _hidden(part: Path) -> Path:
    """Where a part is moved to be deleted."""
    return part.with_name(f".{part.name}.old")


def mark_complete(store: Path, schema: Schema, agree: Agreement = lambda records: None) -> None:
    """Put the marker in place once every part is complete; last of all, so that it can be depended on.

    One that is there gets a new date: make compares it with that of what the store is made of. ``agree`` raises where
    the parts, all complete, do not go together.
    """
    marker = store / COMPLETE
    with suppress(OSError):  # it is not there, or the store can only be read
        os.utime(marker, follow_symlinks=False)

    def is_due() -> bool:
        if marker.exists():
            return False
        records = list(
            takewhile(_is_complete, (read_record(LocalFiles(store), i, schema) for i in range(schema.parts)))
        )
        if len(records) < schema.parts:
            return False
        agree([record for record in records if record is not None])
        return True

    # First without the lock, which a store that cannot be written does not give: the part that is completed last
    # sees that all are.
    if is_due():
        with store_lock(store):
            if is_due():
                replace_file(marker, b"")


def unmark(store: Path) -> None:
    """Take the marker away, under the store's lock."""
    if (store / COMPLETE).exists():
        (store / COMPLETE).unlink()
        sync_directory(store)


@contextmanager
def explained(store: Path, safe: str) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence that says what is safe."""
    try:
        yield
    except OSError as error:
        reason, where = error.strerror or str(error), error.filename or store
        if error.errno in _DISK_FULL:
            problem = f"{store}: the disk is full ({reason}); {safe}. Free space"
        elif error.errno == errno.ELOOP:
            # Pictures beside a store are looked at with it.
            inside = Path(where).is_relative_to(store)
            raise StoreError(
                f"{where} is a link, and nothing is written or removed through links; {safe}. Put what it leads to "
                f"in its place{', or use --overwrite, which removes the link' if inside else ''}."
            ) from error
        else:
            problem = f"{where} cannot be written ({reason}); {safe}. Fix that"
        raise StoreError(f"{problem} and run the same command again.") from error
