"""Copying a store part by part: what a record counts before the record, and the marker of completion last.

The root document comes first, so that an unfinished copy is a store that is not complete, and the same command resumes.
"""

from collections.abc import Mapping, Sequence

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import located
from grncli.store.bits import BitSchema
from grncli.store.feature_settings import FeatureSchema, read_feature_settings
from grncli.store.fingerprint import read_fingerprint
from grncli.store.root_kinds import FEATURES_ATTRIBUTE
from grncli.store.rows.byte_source import ByteSource, reading, root_attributes
from grncli.store.rows.dropped_rows import DROPPED
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.schema import COMMIT, COMPLETE, LOCK, METADATA, Schema, parse_part, part_name
from grncli.transfer.destinations import Destination
from grncli.transfer.sending import Sender
from grncli.transfer.store_contents import PartContents, counted_files, data_of, document, read_part

_UNFINISHED = {LOCK, f".{METADATA}.tmp"}  # what a copy that was killed at once leaves


def copy_store(source: ByteSource, destination: Destination, *, overwrite: bool, monitor: Monitor) -> Sender:
    """Copy what counts of a bit store or features store; returns what was sent.

    Parameters
    ----------
    overwrite : replace what the destination has of another store, or of other samples

    Raises
    ------
    StoreMismatch, StoreError
        If the destination holds something else, or either is damaged.
    Stopped
        If the monitor's stop asks for it; the same call resumes.
    """
    schema = schema_of(source)
    marked = source.size(COMPLETE) is not None  # before the records, as readers do
    files = (f"{part_name(number)}/{file}" for number in range(schema.parts) for file in (DROPPED, COMMIT))
    source.expect(((name, None) for name in files), streamed=True)
    parts = [part for number in range(schema.parts) if (part := read_part(source, schema, number)) is not None]
    names = _names_at(destination, schema, overwrite)
    if names and not overwrite:
        _require_earlier(destination, schema, {part.number: part.record for part in parts})

    def unmark() -> None:
        if destination.files.size(COMPLETE) is not None:
            destination.remove(COMPLETE)

    total = sum(_bytes_of(part.record, schema) for part in parts)
    sender = Sender(destination, monitor, total, unmark)
    _send_document(sender, destination, source, METADATA, _root_document(source))
    for part in parts:
        with destination.claimed(part_name(part.number)):
            _copy_part(source, schema, part, destination, sender)
    if overwrite:
        kept = {part_name(part.number) for part in parts}
        for name in names:
            if parse_part(name) is not None and name not in kept:
                sender.remove(list(destination.walk(name)))
    if marked and len(parts) == schema.parts and all(part.record.complete for part in parts):
        _send_document(sender, destination, source, COMPLETE, b"")
    return sender


def schema_of(source: ByteSource) -> Schema:
    """What kind of rows a store has; StoreError where there is no store."""
    if FEATURES_ATTRIBUTE in (root_attributes(source) or {}):
        return FeatureSchema(read_feature_settings(source))
    return BitSchema(read_fingerprint(source))


def _names_at(destination: Destination, schema: Schema, overwrite: bool) -> Sequence[str]:
    """What is at the root of the destination; StoreError unless it is nothing, or a store with the same settings."""
    there = destination.files
    where, attributes = there.where(""), root_attributes(there)
    names = there.list("") or ()
    if attributes is None and set(names) - _UNFINISHED:
        raise StoreError(
            f"{where} holds something else than a {schema.noun}; choose another DST, or empty it yourself."
        )
    if attributes is not None and schema.attribute not in attributes:
        raise StoreError(f"{where} is something else than a {schema.noun}; choose another DST.")
    if attributes is not None and not overwrite:
        schema.require_same(attributes, located(where), "Choose another DST, or add --overwrite.")
    return names


def _require_earlier(destination: Destination, schema: Schema, records: Mapping[int, PartRecord]) -> None:
    """StoreError where the destination has rows that the source, whose records are given, has not."""
    there = destination.files
    there.expect(((f"{part_name(number)}/{COMMIT}", None) for number in range(schema.parts)), streamed=True)
    for number in range(schema.parts):
        theirs = read_record(there, number, schema)
        if theirs is not None and not (number in records and _continues(records[number], theirs, schema)):
            raise StoreError(
                f"{there.where(part_name(number))} holds other samples than the source, or more of them; choose "
                "another DST, or add --overwrite."
            )


def _continues(record: PartRecord, earlier: PartRecord, schema: Schema) -> bool:
    """Whether one state of a part comes after another, by the checksums of the chunks that were full."""
    for name, group in earlier.groups.items():
        now = record.groups.get(name)
        if now is None or now.rows < group.rows:
            return False
        for layout in schema.layouts(name, earlier.columns):
            full = group.rows // layout.chunk_rows if now.rows > group.rows else None
            if now.crc32c.get(layout.name, [])[:full] != group.crc32c[layout.name][:full]:
                return False
    return earlier.samples_bytes <= record.samples_bytes


def _copy_part(
    source: ByteSource, schema: Schema, part: PartContents, destination: Destination, sender: Sender
) -> None:
    folder, there = part_name(part.number), destination.walk(part_name(part.number))
    data = list(data_of(source, schema, part))
    sender.send(data, there, counted_files(destination.files, schema, part.number))
    for name, content in part.documents.items():
        sender.send([document(source, f"{folder}/{name}", content)], there)
    kept = {content.name for content in data} | {f"{folder}/{name}" for name in part.documents}
    sender.remove([name for name in there if name not in kept])


def _send_document(sender: Sender, destination: Destination, source: ByteSource, name: str, data: bytes) -> None:
    state = destination.state(name)
    sender.send([document(source, name, data)], {} if state is None else {name: state})


def _root_document(source: ByteSource) -> bytes:
    with reading(source, METADATA) as file:
        return file.read()


def _bytes_of(record: PartRecord, schema: Schema) -> int:
    rows = {name: group.rows for name, group in record.groups.items()}
    layouts = ((rows[name], layout) for name in rows for layout in schema.layouts(name, record.columns))
    return record.samples_bytes + sum(count * layout.row_bytes for count, layout in layouts)
