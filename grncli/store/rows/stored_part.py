"""One part of a store as it lies on disk: what counts of it, what of that is dropped, its arrays and its lines."""

from collections.abc import Callable

import numpy as np

from grncli.store.rows.byte_source import ByteSource
from grncli.store.rows.dropped_rows import Rows, read_dropped, require_within
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.row_lines import Line, RowLines, read_failures, unresolved
from grncli.store.rows.schema import FAILURES, SAMPLES, Schema, part_name
from grncli.store.rows.stored import stored_arrays


class StoredPart:
    """A part as it was when it was opened; StoreError where its record, or its list of dropped rows, is damaged.

    Parameters
    ----------
    seen : called with the bytes of both files

    Attributes
    ----------
    committed : whether there is a record
    arrays : those of each group, with all rows that the record counts
    lines : without those of dropped rows, unless they are asked for
    """

    def __init__(
        self, source: ByteSource, schema: Schema, number: int, seen: Callable[[bytes], object] = lambda data: None
    ) -> None:
        folder = part_name(number)
        self.number = number
        self.dropped = read_dropped(source, number, seen)
        record = read_record(source, number, schema, seen)
        self.committed = record is not None
        self.record = record = record or PartRecord()
        require_within(self.dropped, record, source.where(folder))
        self.arrays = dict(stored_arrays(source, number, record, schema))
        rows = {name: group.rows for name, group in record.groups.items()}
        self.lines = RowLines(source, f"{folder}/{SAMPLES}", record.committed_lines, rows, schema, self.dropped)
        self._source = source
        self._failures = f"{folder}/{FAILURES}"

    def kept(self, group: str) -> Rows:
        """Stored rows of a group that are not dropped, ascending."""
        rows = self.record.groups[group].rows
        kept = self.dropped.kept(group, rows)
        return np.arange(rows) if kept is None else kept

    def failures(self) -> dict[str, Line]:
        """The latest line of each source that could not be read, and was not since."""
        return unresolved(read_failures(self._source, self._failures, self.record.committed_failures))
