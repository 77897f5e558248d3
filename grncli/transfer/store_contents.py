"""The files of a store that count, by its commit records: nothing is listed, and garbage stays behind."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import google_crc32c

from grncli.runtime.errors import StoreError
from grncli.store.captions import CAPTIONS
from grncli.store.rows.byte_source import ByteSource, Committed
from grncli.store.rows.dropped_rows import DROPPED, read_dropped, require_within
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.remote_files import InMemory
from grncli.store.rows.schema import COMMIT, FAILURES, METADATA, SAMPLES, Schema, group_document, part_name
from grncli.store.rows.stored import StoredArray, stored_arrays
from grncli.transfer.contents import Content, uncounted


@dataclass(frozen=True)
class PartContents:
    """A part as its record counts it now.

    Attributes
    ----------
    number : of the part
    record : what counts; the files of a part without one are none
    documents : the bytes of its commit record, and of its list of dropped rows where there is one, by file name
    """

    number: int
    record: PartRecord
    documents: dict[str, bytes]


def read_part(source: ByteSource, schema: Schema, number: int) -> PartContents | None:
    """A part of a store, None where nothing of it was committed; StoreError where its record is damaged."""
    dropped_bytes, record_bytes = list[bytes](), list[bytes]()
    dropped = read_dropped(source, number, dropped_bytes.append)
    record = read_record(source, number, schema, record_bytes.append)
    if record is None:
        return None
    require_within(dropped, record, source.where(part_name(number)))
    documents = {COMMIT: record_bytes[0]} | ({DROPPED: dropped_bytes[0]} if dropped_bytes else {})
    return PartContents(number, record, documents)


def data_of(source: ByteSource, schema: Schema, part: PartContents) -> Iterator[Content]:
    """What has to be there before the commit record of a part."""
    folder, record = part_name(part.number), part.record
    yield document(source, f"{folder}/{METADATA}", group_document())
    for group, arrays in stored_arrays(source, part.number, record, schema):
        yield document(source, f"{folder}/{group}/{METADATA}", group_document())
        for array in arrays:
            described = array.layout.document(array.rows, record.complete)
            yield document(source, f"{array.folder}/{METADATA}", described)
            yield from chunks_of(array, record.complete)
    for name, committed in ((SAMPLES, record.committed_lines), (FAILURES, record.committed_failures)):
        path = f"{folder}/{name}"
        opener = partial(source.stream, path, committed) if committed.size else io.BytesIO
        yield Content(path, committed, opener, source.where(path))
    if has_captions(source, part.number):
        yield uncounted(source, f"{folder}/{CAPTIONS}")


def chunks_of(array: StoredArray, complete: bool) -> Iterator[Content]:
    """The chunk files of an array, as large as Zarr readers want them."""
    size = array.layout.stored_chunk_rows(array.rows, complete) * array.layout.row_bytes
    for chunk in range(array.chunks):
        name, committed = array.chunk_to_expect(chunk)
        padding = size - committed.size
        yield Content(name, committed, partial(_open_chunk, array, chunk), array.chunk_path(chunk), padding)


def document(source: ByteSource, name: str, data: bytes) -> Content:
    """A small file whose bytes are known."""
    return Content(name, Committed(len(data), google_crc32c.value(data)), partial(io.BytesIO, data), source.where(name))


def has_captions(source: ByteSource, part: int) -> bool:
    """Whether a part has captions."""
    return source.size(f"{part_name(part)}/{CAPTIONS}") is not None


def counted_files(source: ByteSource, schema: Schema, part: int) -> dict[str, Committed]:
    """The files that the record of a part counts; none where it has none, or a damaged one."""
    try:
        found = read_part(source, schema, part)
    except StoreError:
        return {}
    if found is None:
        return {}
    groups = stored_arrays(source, part, found.record, schema)
    chunks = (array.chunk_to_expect(chunk) for _, arrays in groups for array in arrays for chunk in range(array.chunks))
    folder = part_name(part)
    lines = {f"{folder}/{SAMPLES}": found.record.committed_lines}
    return {**dict(chunks), **lines, f"{folder}/{FAILURES}": found.record.committed_failures}


def _open_chunk(array: StoredArray, chunk: int) -> BinaryIO:
    file = array.open_chunk(chunk)
    if isinstance(file, InMemory):
        return io.BytesIO(file.data)
    return array.source.stream(array.chunk_name(chunk))
