"""Checking a store against its commit records, in one pass over every file and a chunk at a time."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.store.rows.byte_source import ByteSource, Committed, read_document, reading
from grncli.store.rows.dropped_rows import DroppedRows, read_dropped, require_within
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.row_lines import read_failures, read_lines
from grncli.store.rows.schema import (
    COMPLETE,
    FAILURES,
    METADATA,
    SAMPLES,
    Schema,
    changed,
    named_parts,
    parse_part,
    part_name,
)
from grncli.store.rows.stored import StoredArray, stored_arrays

_LOG_PIECE = 1 << 20


def verify_rows(source: ByteSource, schema: Schema, monitor: Monitor) -> list[str]:
    """Check every committed byte of a store; the problems found, one sentence each, none when it is sound."""
    marked = source.size(COMPLETE) is not None
    problems: list[str] = []
    records: dict[int, PartRecord] = {}
    for part in range(schema.parts):
        dropped = DroppedRows()
        try:
            dropped = read_dropped(source, part)
        except StoreError as error:
            problems.append(str(error))
        try:
            records[part] = read_record(source, part, schema) or PartRecord()
            require_within(dropped, records[part], source.where(part_name(part)))
        except StoreError as error:
            problems.append(str(error))
    parts = {part: list(stored_arrays(source, part, record, schema)) for part, record in records.items()}
    total = sum(array.nbytes for groups in parts.values() for _, arrays in groups for array in arrays)
    done = 0

    def checked(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        monitor.progress(done, total, "")
        monitor.require_time(f"after {done} of {total} bytes")

    for part, groups in parts.items():
        for _, arrays in groups:
            for array in arrays:
                problems += _array(array, schema, checked)
                problems += _settled(array) if records[part].complete else ()
        problems += _lines(source, part_name(part), records[part], schema)
    return [*problems, *_marker(source, schema, records, marked)]


def _marker(source: ByteSource, schema: Schema, records: dict[int, PartRecord], marked: bool) -> Iterator[str]:
    lacking = [part for part in range(schema.parts) if part not in records or not records[part].complete]
    marker = source.where(COMPLETE)
    if marked and lacking:
        yield f"{marker} says the store is complete, but {named_parts(lacking)} not; restore it, or remove that file."
    if not lacking and source.size(COMPLETE) is None:
        yield f"{marker} is missing though every part is complete; run the command that wrote it again."
    for name in source.list("") or ():
        if (parse_part(name) or 0) >= schema.parts:
            yield f"{source.where(name)} is not one of the store's {schema.parts} parts; move it away."


def _lines(source: ByteSource, folder: str, record: PartRecord, schema: Schema) -> Iterator[str]:
    samples, failures = f"{folder}/{SAMPLES}", f"{folder}/{FAILURES}"
    yield from _log(source, samples, record.committed_lines)
    yield from _samples(source, samples, record, schema)
    yield from _log(source, failures, record.committed_failures)
    try:
        for _ in read_failures(source, failures, record.committed_failures):
            pass
    except StoreError as error:
        yield str(error)


def _array(array: StoredArray, schema: Schema, checked: Callable[[int], None]) -> Iterator[str]:
    array.expect()
    for chunk in range(array.chunks):
        try:
            yield from schema.problems_in(array.layout, array.checked_chunk(chunk), array.chunk_path(chunk))
        except StoreError as error:
            yield str(error)
        checked(array.bytes_in(chunk))


def _log(source: ByteSource, name: str, committed: Committed) -> Iterator[str]:
    """Compare the committed bytes of a log with their checksum, a piece at a time."""
    size, expected = committed
    if not size:
        return
    checksum, where = 0, source.where(name)
    try:
        with reading(source, name, committed) as file:
            while size > 0 and (piece := file.read(min(size, _LOG_PIECE))):
                checksum, size = google_crc32c.extend(checksum, piece), size - len(piece)
    except StoreError as error:
        yield str(error)
        return
    if size > 0:
        yield f"{where} ends {size} bytes early; restore it from a copy."
    elif checksum != expected:
        yield changed(where, checksum, expected)


def _settled(array: StoredArray) -> Iterator[str]:
    """What holds of a complete part only: files of exact size, no others, and documents that say the same."""
    source, size = array.source, array.layout.stored_chunk_rows(array.rows, complete=True) * array.layout.row_bytes
    for chunk in range(array.chunks):
        present = source.size(array.chunk_name(chunk))
        if present not in (size, None):
            yield f"{array.chunk_path(chunk)} has {present} bytes, expected {size}; Zarr readers cannot read it."
    for name in source.list(array.folder) or ():
        if (array.layout.parse_chunk(name) or 0) >= array.chunks:
            yield f"{source.where(f'{array.folder}/{name}')} was never committed; remove it."
    name = f"{array.folder}/{METADATA}"
    try:
        document: Any = read_document(source, name, "restore it from a copy.")
    except FileNotFoundError:
        yield f"{source.where(name)} is missing; restore it from a copy."
    except StoreError as error:
        yield str(error)
    else:
        if document != json.loads(array.layout.document(array.rows, complete=True)):
            yield f"{source.where(name)} does not describe the {array.rows} committed rows; restore it from a copy."


def _samples(source: ByteSource, name: str, record: PartRecord, schema: Schema) -> Iterator[str]:
    """Each group's lines come in the order of its rows, so a count per group finds what is missing or doubled."""
    kind, following, wrong = schema.group_field, dict.fromkeys(record.groups, 0), set()
    try:
        for place, line in read_lines(source, name, record.committed_lines, schema.line_fields):
            group, row = str(line.get(kind)), line.get("row")
            if not all(isinstance(line.get(field), str) for field in schema.required_fields):
                yield f"{place} has no {' or no '.join(schema.required_fields)}; restore the file from a copy."
            if group not in wrong and row != following.get(group):
                wrong.add(group)
                yield f"{place} is row {row} of {group}, expected row {following.get(group)}; restore the file."
            following[group] = following.get(group, 0) + 1
    except StoreError as error:
        yield str(error)
        return
    for group, committed in record.groups.items():
        if group not in wrong and following[group] != committed.rows:
            yield (
                f"{source.where(name)} has {following[group]} lines of {kind} {group}, expected {committed.rows}; "
                "restore the file from a copy."
            )
