"""Reading a store: many parts and groups as one sequence of samples.

Samples are numbered part by part, in a part by group in their order, in a group by row; dropped ones have no number.
What is read is a snapshot of what was committed at opening; in a store that is written further, later openings may
number otherwise.
"""

import hashlib
import operator
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.overlap import in_threads
from grncli.store.rows.byte_source import ByteSource, OpenFiles
from grncli.store.rows.dropped_rows import DROPPED
from grncli.store.rows.schema import COMMIT, COMPLETE, Schema, parse_part, part_name
from grncli.store.rows.stored import ArrayReader, Segment
from grncli.store.rows.stored_part import StoredPart

View = TypeVar("View", bound="GroupView")


@dataclass(frozen=True)
class PartSummary:
    """What one part holds: ``position`` of its ``sources`` (None = unknown) are processed, ``failed`` unread.

    ``samples`` are those that remain beside ``dropped`` ones.
    """

    part: int
    samples: int
    position: int
    sources: int | None
    failed: int
    complete: bool
    dropped: int = 0


class RowStore(Generic[View]):
    """The committed samples of a store, as they were when it was opened.

    Holds no lock and, once pickled to a worker process, nothing but the commit records.

    Parameters
    ----------
    view : makes what ``group`` gives from the segments of one group

    Attributes
    ----------
    complete : whether every part was finished
    parts : a summary of each part
    strays : folders of parts that the store is not divided into, which are not read
    groups : samples of each group
    columns : dtype of each further number per sample, by name
    """

    def __init__(self, source: ByteSource, schema: Schema, view: Callable[[Sequence[Segment]], View]) -> None:
        self.source = source
        self.schema = schema
        # The marker first: a writer that resumes removes it before it changes its record.
        marked = source.size(COMPLETE) is not None
        names = source.list("")  # None where the source cannot tell
        there = {number: name for name in names or () if (number := parse_part(name)) is not None}
        self.strays = [name for number, name in sorted(there.items()) if number >= schema.parts]
        parts = [part for part in range(schema.parts) if names is None or part in there]
        documents = ((f"{part_name(part)}/{file}", None) for part in parts for file in (DROPPED, COMMIT))
        source.expect(documents, streamed=True)
        self._parts, self._digest = self._open_parts(parts)
        self.parts = [_summary(part, self._parts.get(part)) for part in range(schema.parts)]
        self.complete = marked and all(part.complete for part in self.parts)
        self.columns = next((dict(part.record.columns) for part in self._parts.values() if part.committed), {})
        self._segments: list[Segment] = []
        self._length = 0
        self._open_files, self._next_key = OpenFiles(), 0
        for part in self._parts.values():
            self._add_part(part)
        self._starts = [segment.start for segment in self._segments]
        by_group = defaultdict[str, list[Segment]](list)
        for segment in self._segments:
            by_group[segment.group].append(segment)
        self._views = {name: view(by_group[name]) for name in schema.in_order(by_group)}
        self.groups = {name: len(group) for name, group in self._views.items()}

    def __len__(self) -> int:
        return self._length

    def group(self, name: str) -> View:
        """The samples of one group; StoreError when there are none."""
        if name not in self._views:
            groups = ", ".join(self._views) or "none at all"
            raise StoreError(
                f"{self.source.where('')} has no samples of {self.schema.group_field} {name}, it has {groups}; "
                "choose one of these."
            )
        return self._views[name]

    def record(self, index: int) -> dict[str, Any]:
        """The line of one sample in ``samples.jsonl``; the first call reads through its part's file."""
        return next(self.records([index]))

    def records(self, indices: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """The lines of all samples in the order of the store, or of some in the order given."""
        if indices is None:
            self.source.expect((part.lines.to_expect() for part in self._parts.values()), streamed=True)
            for part in self._parts.values():
                yield from part.lines.records()
            return
        for segment, places in groupby(map(self._locate, indices), key=itemgetter(0)):
            yield from self._parts[segment.part].lines.of(segment.group, [segment.stored(row) for _, row in places])

    def failures(self) -> Iterator[dict[str, Any]]:
        """Sources that could not be read, and were not since: ``source``, ``position``, ``error``."""
        for part in self._parts.values():
            yield from part.failures().values()

    def stored_parts(self) -> Mapping[int, StoredPart]:
        """The parts that are there, as they lie on disk."""
        return self._parts

    def digest(self) -> str:
        """Hash of the commit records, hence of the checksums of all rows, and of what was dropped.

        A store that is made again has another one.
        """
        return self._digest

    def place_of(self, index: int) -> tuple[int, str, int]:
        """Part, group and stored row of one sample."""
        segment, row = self._locate(index)
        return segment.part, segment.group, segment.stored(row)

    def _open_parts(self, numbers: Sequence[int]) -> tuple[dict[int, StoredPart], str]:
        """These parts, and a hash of their records."""

        def open_part(number: int) -> tuple[StoredPart, list[bytes]]:
            seen = list[bytes]()
            return StoredPart(self.source, self.schema, number, seen.append), seen

        parts, digest = dict[int, StoredPart](), hashlib.sha256()
        for part, seen in in_threads(open_part, numbers):
            parts[part.number] = part
            for data in seen:
                digest.update(data)
        return parts, digest.hexdigest()

    def _add_part(self, part: StoredPart) -> None:
        for group, arrays in part.arrays.items():
            readers = {}
            for array in arrays:
                readers[array.layout.name] = ArrayReader(array, self._open_files, self._next_key)
                self._next_key += array.chunks
            segment = Segment(part.number, group, self._length, readers, part.dropped.kept(group, arrays[0].rows))
            if segment.rows:
                self._segments.append(segment)
                self._length += segment.rows

    def _locate(self, index: int) -> tuple[Segment, int]:
        """Segment and its row of one sample; negative numbers count from the end."""
        position = operator.index(index)
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        segment = self._segments[bisect_right(self._starts, position) - 1]
        return segment, position - segment.start

    def _locate_all(self, indices: ArrayLike) -> tuple[list[str], NDArray[np.int64]]:
        """Groups that the samples are of, and for each sample its row in the view of its group."""
        wanted = checked(indices, self._length)
        which = np.searchsorted(self._starts, wanted, "right") - 1
        rows, groups = np.empty_like(wanted), set()
        for i in np.unique(which).tolist():
            segment = self._segments[i]
            groups.add(segment.group)
            inside = which == i
            rows[inside] = wanted[inside] - segment.start + self._views[segment.group].start_of(segment)
        return self.schema.in_order(groups), rows


class GroupView:
    """All samples of one group; its rows count through the parts."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Use ``RowStore.group``."""
        self.name = segments[0].group
        self.layouts = {name: reader.array.layout for name, reader in segments[0].readers.items()}
        self._segments = segments
        self._skipping = any(segment.kept is not None for segment in segments)
        # First row of each segment, and the number of rows after the last.
        self._starts = np.cumsum([0, *(segment.rows for segment in segments)])
        self._first_rows = {segment.start: row for segment, row in zip(segments, self._starts.tolist(), strict=False)}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def indices(self) -> NDArray[np.int64]:
        """The store's number of each row, ascending."""
        return np.concatenate([np.arange(s.start, s.start + s.rows, dtype=np.int64) for s in self._segments])

    def read_rows(self, name: str, rows: ArrayLike) -> NDArray[Any]:
        """``rows`` of an array, in the order given."""
        places = checked(rows, len(self))
        layout = self.layouts[name]
        values = np.empty((len(places), *layout.row_shape), layout.dtype)
        target, size = values.reshape(-1).view(np.uint8).data, layout.row_bytes
        readers = [segment.readers[name] for segment in self._segments]
        self.expect_rows(name, places)
        for segment, chunk, first, place, count in self._runs(places, layout.chunk_rows):
            readers[segment].read_into(target[place * size : (place + count) * size], chunk, first)
        return values

    def chunks_of(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """First row and rows of one chunk file after the other: the fastest way through a whole store."""
        for start, segment in zip(self._starts.tolist(), self._segments, strict=False):
            for first, rows in segment.chunks(name):
                yield start + first, rows

    @property
    def is_remote(self) -> bool:
        """Whether it helps to say what is going to be read."""
        return next(iter(self._segments[0].readers.values())).array.source.is_remote

    def expect_rows(self, name: str, rows: ArrayLike) -> None:
        """Say that ``rows`` of an array are going to be read: the chunks of a remote store are fetched from here on."""
        if self.is_remote:
            source = self._segments[0].readers[name].array.source
            which, stored = self._stored(checked(rows, len(self)))
            chunks = np.unique(np.stack([which, stored // self.layouts[name].chunk_rows], axis=1), axis=0)
            arrays = [segment.readers[name].array for segment in self._segments]
            source.expect(arrays[segment].chunk_to_expect(chunk) for segment, chunk in chunks.tolist())

    def expect_column(self, name: str) -> None:
        """Say that an array is going to be read whole."""
        arrays = [segment.readers[name].array for segment in self._segments if name in segment.readers]
        if arrays and self.is_remote:
            arrays[0].source.expect(array.chunk_to_expect(chunk) for array in arrays for chunk in range(array.chunks))

    def column(self, name: str) -> NDArray[Any]:
        """A number of every row."""
        self.expect_column(name)
        return np.concatenate(list(in_threads(lambda segment: segment.column(name), self._segments)))

    def start_of(self, segment: Segment) -> int:
        """Row of this view at which a segment starts."""
        return self._first_rows[segment.start]

    def _runs(self, places: NDArray[np.int64], chunk_rows: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(segment, chunk, row in chunk, place in the result, count) of stretches that one read can fetch.

        In the order of the files, which disks and the kernel's read-ahead like best.
        """
        order = np.argsort(places, kind="stable")
        rows = places[order]
        which, stored = self._stored(rows)
        chunks, firsts = np.divmod(stored, chunk_rows)
        breaks = (np.diff(stored) != 1) | (np.diff(which) != 0) | (np.diff(order) != 1) | (firsts[1:] == 0)
        heads = np.flatnonzero(np.concatenate([[True], breaks])[: len(rows)])
        counts = np.diff(heads, append=len(rows))
        columns = (which[heads], chunks[heads], firsts[heads], order[heads], counts)
        return zip(*(column.tolist() for column in columns), strict=True)

    def _stored(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Segment of each row, and where in it the row lies on disk."""
        which = np.searchsorted(self._starts, rows, "right") - 1
        stored = rows - self._starts[which]
        for number in np.unique(which) if self._skipping else ():
            kept, inside = self._segments[number].kept, which == number
            if kept is not None:
                stored[inside] = kept[stored[inside]]
        return which, stored


def _summary(number: int, part: StoredPart | None) -> PartSummary:
    if part is None:
        return PartSummary(number, 0, 0, None, 0, complete=False)
    record, dropped = part.record, part.dropped.count
    remaining = record.samples - dropped
    return PartSummary(number, remaining, record.position, record.sources, record.failed, record.complete, dropped)


def checked(numbers: ArrayLike, length: int) -> NDArray[np.int64]:
    """Row or sample numbers as an array; negative ones do not count from the end."""
    wanted = np.asarray(numbers)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise ValueError(f"expected a sequence of integers, got {wanted.dtype} {wanted.shape}")
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < length:
        raise IndexError(f"{wanted.min()} to {wanted.max()} asked for, there are {length}")
    return wanted.astype(np.int64, copy=False)
