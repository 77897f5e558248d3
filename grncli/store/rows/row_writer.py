"""Writing one part of a store, so that a run killed anywhere and resumed leaves the same bytes.

The order that makes it so: data into its place, wait for the disk, replace the commit record, then let the
Zarr documents follow. What lies beyond the record is cut away when the part is opened again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.runtime.folders import HeldFolder
from grncli.runtime.jsonlines import encode_line
from grncli.store.rows.array_files import PartArrays
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.claiming import Agreement, Claim, explained, mark_complete, store_lock, unmark
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.row_lines import CommittedLines, encode_rows, note_failure, read_failures, unresolved
from grncli.store.rows.schema import COMMIT, FAILURES, OVERWRITING, SAMPLES, ArrayLayout, Schema, part_name
from grncli.store.rows.stored import StoredChunk, stored_arrays


class RowWriter:
    """The one writer of a part. Leaving its ``with`` block drops what was not committed.

    Attributes
    ----------
    position, digest, sources : as given to the last ``commit``
    failures : the latest line of each source that failed and was not read since
    """

    def __init__(self, store: Path, schema: Schema, part: int, columns: dict[str, str], claim: Claim) -> None:
        """Take over the part that ``claim_part`` gave; its lock is released with the writer."""
        self.store = store
        self.schema = schema
        self.part = part
        self.directory = store / part_name(part)
        self.columns = columns
        self._usable = True
        self._changed: set[str] = set()
        self._obstacle = claim.obstacle
        self._source = LocalFiles(store)
        self._arrays = PartArrays(self.directory, schema, columns, self._require_in_place)
        with ExitStack() as opened:
            if claim.lock is not None:
                opened.callback(claim.lock.release)
            opened.callback(self._arrays.close)
            self._held = [opened.enter_context(HeldFolder(path)) for path in (store, self.directory)]
            record = read_record(self._source, part, schema)
            self._require_columns(record)
            self._committed = record is not None
            self._record = record = record or PartRecord(columns=columns)
            self._samples = CommittedLines(self.directory / SAMPLES, record.samples_bytes, record.samples_crc32c)
            self._failed = CommittedLines(self.directory / FAILURES, record.failures_bytes, record.failures_crc32c)
            opened.callback(self._samples.close)
            opened.callback(self._failed.close)
            failures = read_failures(self._source, f"{part_name(part)}/{FAILURES}", record.committed_failures)
            self.failures = unresolved(failures)
            # A complete part is opened without a change, so that one that cannot be written is done all the same.
            if not record.complete:
                with store_lock(store):
                    unmark(store)
                self._restore()
            self._opened = opened.pop_all()

    def _restore(self) -> None:
        """Take the part back to its record, to write on from there."""
        self._samples.open()
        self._failed.open()
        self._arrays.restore(self._record)

    @property
    def position(self) -> int:
        """Sources of this part that are processed."""
        return self._record.position

    @property
    def sources(self) -> int | None:
        """Sources this part has, if known."""
        return self._record.sources

    @property
    def digest(self) -> str:
        """The caller's digest over the names of processed sources."""
        return self._record.digest

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was reached and nothing was added since."""
        return self._record.complete

    @property
    def samples(self) -> int:
        """Committed samples."""
        return self._record.samples

    @property
    def groups(self) -> dict[str, int]:
        """Committed rows of each group."""
        return {name: group.rows for name, group in self._record.groups.items()}

    def append_rows(
        self, group: str, values: Mapping[str, ArrayLike | StoredChunk], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add n samples of one group; they count from the next ``commit`` on.

        Parameters
        ----------
        values : [n, *row_shape] for each array of the group and each declared column, or a chunk of another store
        records : n mappings with at least the schema's required fields, for ``samples.jsonl``
        """
        layouts = self.schema.layouts(group, self.columns)
        names = {layout.name for layout in layouts}
        if set(values) != names:
            columns = [name for name in values if name not in self.schema.array_names]
            raise ValueError(f"got the columns {_listed(columns)}, declared were {_listed(self.columns)}")
        first = values[layouts[0].name]
        n = len(first) if isinstance(first, StoredChunk) else len(np.asarray(first))
        blocks = [_exact(layout, values[layout.name], n) for layout in layouts]
        if len(records) != n:
            raise ValueError(f"{len(records)} records for {n} samples")
        if not n:
            return
        lines = encode_rows(group, self._next_row(group), records, self.schema)
        with self._writing():
            for array, block in zip(self._arrays.group(group), blocks, strict=True):
                array.append(block)
            self._samples.append(lines)
            self._changed.add(group)

    def fail(self, source: str, position: int, error: str | None, *, key: str | None = None) -> None:
        """Log that a source could not be read, or with ``error=None`` that a retry has read it.

        ``key`` is what its samples would be called, where that is not ``source``.
        """
        line: dict[str, Any] = {"source": source, "position": position, "error": error}
        if key is not None:
            line["key"] = key
        encoded = encode_line(line)
        with self._writing():
            self._failed.append(encoded)
            note_failure(self.failures, line)

    def commit(self, position: int, digest: str, sources: int | None = None) -> None:
        """Make everything added so far count: ``position`` sources of this part are processed.

        ``sources``, the number the part has, stays as it was when None.
        """
        sources = self.sources if sources is None else sources
        same = (position, digest, sources) == (self.position, self.digest, self.sources)
        if self._committed and same and not self._pending():
            return
        with self._writing():
            self._require_in_place()
            self._samples.sync()
            self._failed.sync()
            self._arrays.sync()
            self._require_in_place()
            self._write_record(position=position, digest=digest, sources=sources)
            self._require_in_place()
            self._arrays.write_documents(self.schema.in_order(self._changed))
            self._changed.clear()

    def finish(self, agree: Agreement = lambda records: None) -> None:
        """Declare the part complete, and the store when all its parts are. Harmless when it is already.

        ``agree`` is called with the records of all parts before the store is complete, and raises where they do not go
        together.
        """
        if self._pending():
            raise ValueError("commit before finish: something was added since the last commit")
        with self._breakable():
            self._require_in_place()
            if not self.complete:
                self._arrays.settle()
                self._write_record(complete=True)
            self._require_stored()
            if not self._obstacle:
                (self.directory / OVERWRITING).unlink(missing_ok=True)
            mark_complete(self.store, self.schema, agree)
            self._require_in_place()

    def close(self) -> None:
        """Drop what was not committed and let other processes write the part; harmless when repeated."""
        self._usable = False
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_in_place(self) -> None:
        """StoreError where the paths no longer lead to the directories that are written."""
        for held in self._held:
            if not held.is_there():
                raise StoreError(
                    f"{held.path} was moved, replaced or removed while it was written; {self.samples} samples of "
                    f"{self.directory.name} were committed before that. Move it back and run the same command again."
                )

    def _require_stored(self) -> None:
        """StoreError unless every file that the record counts is there, with its size."""
        if read_record(self._source, self.part, self.schema) != self._record:
            raise StoreError(
                f"{self.directory / COMMIT} was changed by another program; run the same command again, "
                "or make the store again with --overwrite."
            )
        for _, arrays in stored_arrays(self._source, self.part, self._record, self.schema):
            for array in arrays:
                array.require_files()
        self._samples.require_file()
        self._failed.require_file()

    def _require_columns(self, record: PartRecord | None) -> None:
        if record is not None and record.columns != self.columns:
            raise StoreMismatch(
                f"{self.directory} was made with the columns {_listed(record.columns)}; this command asks for "
                f"{_listed(self.columns)}. Use the same options, another OUT, or --overwrite."
            )

    def _next_row(self, group: str) -> int:
        rows = self._arrays.rows(group)
        return self.groups.get(group, 0) if rows is None else rows

    def _pending(self) -> bool:
        return bool(
            self._changed
            or self._samples.size != self._record.samples_bytes
            or self._failed.size != self._record.failures_bytes
        )

    def _write_record(self, **changes: Any) -> None:
        record = replace(
            self._record,
            groups=self._arrays.records(),
            samples_bytes=self._samples.size,
            samples_crc32c=self._samples.crc,
            failures_bytes=self._failed.size,
            failures_crc32c=self._failed.crc,
            failed=len(self.failures),
            **changes,
        )
        record.write(self.directory)
        self._record, self._committed = record, True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around every change: a complete part is opened for more first."""
        if self._obstacle:
            raise StoreError(self._obstacle)
        with self._breakable():
            if self.complete:
                self._reopen()
            yield

    def _reopen(self) -> None:
        """Marker and record change under one lock: another part's writer may be about to set the marker."""
        record = replace(self._record, complete=False)
        with store_lock(self.store):
            unmark(self.store)
            record.write(self.directory)
        self._record = record
        self._restore()

    @contextmanager
    def _breakable(self) -> Iterator[None]:
        """After an error the rows counted here and those on disk may differ: only opening again is safe."""
        if not self._usable:
            raise StoreError(f"{self.directory} was closed or failed before; run the same command again.")
        self._usable = False
        safe = f"{self.samples} samples of {self.directory.name} are safe"
        with explained(self.store, safe):
            yield
        self._usable = True


def _exact(layout: ArrayLayout, values: ArrayLike | StoredChunk, n: int) -> NDArray[Any] | StoredChunk:
    """The values in the stored type; ValueError when that would change them, or when rows are of another shape.

    Numbers may be of any type that holds the same; rows of more than a number must have the stored one.
    """
    if isinstance(values, StoredChunk):
        assert len(values) == n == layout.chunk_rows
        assert values.array.layout == layout
        return values
    array, shape = np.asarray(values), (n, *layout.row_shape)
    whole = layout.dtype.kind in "iu"
    kinds = "iu" if whole else "iuf"
    if array.shape != shape or (array.dtype != layout.dtype if layout.row_shape else array.dtype.kind not in kinds):
        raise ValueError(f"{layout.name} is {array.dtype} {array.shape}, expected {layout.dtype} {shape}")
    stored = array.astype(layout.dtype, copy=False)
    if whole and not layout.row_shape and not np.array_equal(array, stored):
        raise ValueError(f"{layout.name} has values that do not fit {layout.dtype}")
    return stored


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
