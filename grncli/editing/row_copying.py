"""Rows of stores into parts of a new one: the common work of compact, split and merge.

A full chunk file becomes a file of the new store too where the file system can link it, which takes no space and no
time; everything else is read, compared with its checksum, and written anew. Copying stops and resumes as tokenizing
does: what is committed says how many rows of each group are there, and the same command copies the others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.store.captions import CaptionLine, replace_captions
from grncli.store.root_kinds import names_store
from grncli.store.rows.byte_source import LocalFiles, root_attributes
from grncli.store.rows.claiming import claim_part, explained
from grncli.store.rows.dropped_rows import DroppedRows, Rows
from grncli.store.rows.row_lines import Line
from grncli.store.rows.row_writer import RowWriter
from grncli.store.rows.schema import COMPLETE, EDITED, Schema, part_name
from grncli.store.rows.stored import StoredArray, StoredChunk
from grncli.store.rows.stored_part import StoredPart

COMMIT_SECONDS = 5.0


def _as_it_is(line: Line) -> Line:
    return line


@dataclass(frozen=True)
class CopiedPart:
    """One part of the new store, and the rows of an old part that it is made of.

    Attributes
    ----------
    rows : stored rows of each group, ascending
    position, digest, sources : as the record of the new part has them
    failures : sources of it that could not be read
    captions : of the sources of these rows
    gone : keys of sources that have no rows any more, and still count as processed
    rewrite : makes the line of a row of its old line
    """

    part: StoredPart
    rows: Mapping[str, Rows]
    position: int
    digest: str
    sources: int | None
    failures: Sequence[Line] = ()
    captions: Sequence[CaptionLine] = ()
    gone: Sequence[str] = ()
    rewrite: Callable[[Line], Line] = _as_it_is

    @property
    def samples(self) -> int:
        """Rows of all groups."""
        return sum(map(len, self.rows.values()))


@dataclass(frozen=True)
class NewStore:
    """A store that is made of rows of others; its ``schema`` carries under `EDITED` what it is made of."""

    path: Path
    schema: Schema
    parts: Sequence[CopiedPart]

    @property
    def samples(self) -> int:
        """Rows of all parts."""
        return sum(part.samples for part in self.parts)

    def require_vacant(self, inputs: Sequence[Path]) -> bool:
        """Whether it is complete already.

        Raises
        ------
        UsageError
            If it lies in one of the ``inputs``.
        StoreMismatch
            If something else is in its place.
        """
        for store in inputs:
            if self.path.resolve().is_relative_to(store.resolve()):
                raise UsageError(f"{self.path}: is {store} or lies in it, expected another OUT")
        source = LocalFiles(self.path)
        there = root_attributes(source) if self.path.is_dir() else None
        if there is not None and names_store(there):
            if _edited(there, self.schema) != _edited(self.schema.attributes(), self.schema):
                raise StoreMismatch(
                    f"{self.path} is a store that this command did not make of the same data; choose another OUT, or "
                    "remove it first."
                )
            records = [StoredPart(source, self.schema, number).record for number in range(len(self.parts))]
            return all(record.complete for record in records) and (self.path / COMPLETE).exists()
        return False


def _edited(attributes: Mapping[str, Any], schema: Schema) -> Any:
    settings = attributes.get(schema.attribute)
    versions = settings.get("versions") if isinstance(settings, Mapping) else None
    return versions.get(EDITED) if isinstance(versions, Mapping) else None


def copy_rows(stores: Sequence[NewStore], monitor: Monitor) -> None:
    """Make stores, or finish what an earlier call began.

    Raises
    ------
    Stopped
        If the monitor asks for it; what was copied is committed.
    StoreError
        If a chunk is missing or changed, or the disk does not let us; the new store is not complete then. If more
        sources have gone than can be recorded, before anything is made.
    """
    total, before = sum(store.samples for store in stores), 0
    for store in stores:
        for number, part in enumerate(store.parts):
            DroppedRows(gone=part.gone).encoded(store.path / part_name(number))  # refused before anything is copied
    for store in stores:
        for number, part in enumerate(store.parts):
            with explained(store.path, "the stores it is made of are as they were"):
                claim = claim_part(store.path, store.schema, number, None)
                columns = dict(part.part.record.columns)
                with RowWriter(store.path, store.schema, number, columns, claim) as writer:
                    _PartCopy(part, writer, monitor, before, total).run()
            before += part.samples


class _PartCopy:
    """One part on its way; ``before`` of ``total`` rows are those of earlier parts."""

    def __init__(self, copied: CopiedPart, writer: RowWriter, monitor: Monitor, before: int, total: int) -> None:
        self._copied = copied
        self._writer = writer
        self._monitor = monitor
        self._done = before + writer.samples
        self._total = total
        self._committed = time.monotonic()

    def run(self) -> None:
        """Copy what is missing, and finish the part; harmless when it is complete."""
        if self._writer.complete:
            self._writer.finish()
            return
        self._require_same()
        for group, rows in self._copied.rows.items():
            self._copy(group, rows[self._writer.groups.get(group, 0) :])
        self._finish()

    def _require_same(self) -> None:
        """StoreMismatch where another command has added rows to the part since it was made."""
        copied, writer = self._copied, self._writer
        more = any(count > len(copied.rows.get(group, ())) for group, count in writer.groups.items())
        if more or writer.digest not in ("", copied.digest):
            raise StoreMismatch(f"{writer.store} was changed by another command since; choose another OUT.")

    def _copy(self, group: str, rows: Rows) -> None:
        """Chunk by chunk of the first array, whose rows are the large ones; the others are read at once."""
        if not len(rows):
            return
        main, *others = self._copied.part.arrays[group]
        values = {array.layout.name: _rows_of(array, rows) for array in others}
        chunks = rows // main.layout.chunk_rows
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
            lines = self._copied.part.lines.of(group, rows[start:end].tolist())
            block: dict[str, NDArray[Any] | StoredChunk] = {name: array[start:end] for name, array in values.items()}
            block[main.layout.name] = _chunk_rows(main, int(chunks[start]), rows[start:end])
            self._writer.append_rows(group, block, [self._copied.rewrite(line) for line in lines])
            self._done += end - start
            self._monitor.progress(self._done, self._total, "")
            if (reason := self._monitor.stop_reason) or time.monotonic() - self._committed >= COMMIT_SECONDS:
                self._writer.commit(0, "")
                self._committed = time.monotonic()
                if reason:
                    raise Stopped(f"{reason}: stopped after {self._done} of {self._total} samples, which are saved")

    def _finish(self) -> None:
        copied, writer = self._copied, self._writer
        for line in copied.failures:
            if line["source"] not in writer.failures:
                writer.fail(**line)
        if copied.captions:
            replace_captions({writer.directory: copied.captions})
        if copied.gone:
            DroppedRows(gone=copied.gone).write(writer.directory)
        writer.commit(copied.position, copied.digest, copied.sources)
        writer.finish()


def _chunk_rows(array: StoredArray, chunk: int, rows: Rows) -> NDArray[Any] | StoredChunk:
    """Rows of one chunk; the chunk itself where it is full and none of its rows is missing."""
    if len(rows) == array.layout.chunk_rows:
        return StoredChunk(array, chunk)
    values: NDArray[Any] = array.checked_chunk(chunk)
    return values[rows - chunk * array.layout.chunk_rows]


def _rows_of(array: StoredArray, rows: Rows) -> NDArray[Any]:
    """Rows of an array; StoreError where a chunk is not as it was committed."""
    values = [array.checked_chunk(chunk) for chunk in range(array.chunks)]
    return np.concatenate(values)[rows]


def require_complete(path: Path, complete: bool) -> None:
    """StoreError for a store that is not complete: rows may still be added to it."""
    if not complete:
        raise StoreError(
            f"{path} is not complete, expected a finished store; run the command that makes it again to finish it."
        )
