"""Rows of a part that readers skip: ``dropped.json`` beside the commit record, whose rows stay as they are.

The file is replaced in one step. Rows keep their place on disk; readers number the ones that remain.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.files import replace_file
from grncli.runtime.jsonfiles import MAX_BYTES, brief
from grncli.store.rows.byte_source import ByteSource, read_document
from grncli.store.rows.record import PartRecord
from grncli.store.rows.schema import FORMAT, part_name

DROPPED = "dropped.json"

Rows = NDArray[np.int64]
Runs = tuple[tuple[int, int], ...]
"""Stretches (first, end) of rows, ascending, with rows between them."""

_REMEDY = "restore it from a copy"


@dataclass(frozen=True)
class DroppedRows:
    """What a part has dropped.

    Attributes
    ----------
    groups : stored rows of each group
    gone : keys of sources all of whose rows left when the store was compacted; they still count as processed
    """

    groups: Mapping[str, Runs] = field(default_factory=dict)
    gone: Sequence[str] = ()

    @property
    def count(self) -> int:
        """Rows that are skipped."""
        return sum(end - first for runs in self.groups.values() for first, end in runs)

    def rows(self, group: str) -> Rows:
        """Stored rows of a group that are dropped, ascending."""
        return np.concatenate([np.empty(0, np.int64), *(np.arange(*run) for run in self.groups.get(group, ()))])

    def kept(self, group: str, stored: int) -> Rows | None:
        """Those of ``stored`` rows that remain, ascending; None for all of them."""
        if not self.groups.get(group):
            return None
        return np.delete(np.arange(stored), self.rows(group))

    def write(self, part: Path) -> None:
        """Replace the file of a part; the caller holds its lock. StoreError as `encoded`."""
        replace_file(part / DROPPED, self.encoded(part))

    def encoded(self, part: Path) -> bytes:
        """What the file of a part holds; StoreError where it would be too large to read."""
        groups = {name: [list(run) for run in runs] for name, runs in self.groups.items() if runs}
        content = {"format": FORMAT, "grids": groups, **({"gone": list(self.gone)} if self.gone else {})}
        data = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        if len(data) > MAX_BYTES:
            raise StoreError(
                f"{part / DROPPED} would be larger than {MAX_BYTES >> 20} MiB, with {len(self.gone):,} sources that "
                "have left the store; drop fewer rows, or tokenize what is to remain into a new store."
            )
        return data


def runs_of(rows: Rows) -> Runs:
    """Rows, ascending and distinct, as stretches."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    ends = np.append(starts[1:], len(rows)) - 1
    return tuple(zip(rows[starts].tolist(), (rows[ends] + 1).tolist(), strict=True)) if len(rows) else ()


def read_dropped(source: ByteSource, part: int, seen: Callable[[bytes], object] = lambda data: None) -> DroppedRows:
    """What a part has dropped, by its file alone; StoreError when that is damaged.

    Read it before the commit record, which only grows: the rows are among those that the record counts then.
    ``seen`` is called with the bytes of the file.
    """
    name = f"{part_name(part)}/{DROPPED}"
    try:
        content = read_document(source, name, f"{_REMEDY}.", seen)
    except FileNotFoundError:
        return DroppedRows()
    where = source.where(name)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{where} is no list of dropped rows of format {FORMAT}; {_REMEDY}, or update grn.")
    groups, gone = content.get("grids"), content.get("gone", [])
    if not isinstance(groups, dict) or not all(map(_are_runs, groups.values())):
        raise StoreError(
            f"{where}: field grids is {brief(groups)}, expected ascending [first, end] of rows; {_REMEDY}."
        )
    if not isinstance(gone, list) or not all(isinstance(key, str) for key in gone):
        raise StoreError(f"{where}: field gone is {brief(gone)}, expected a list of keys; {_REMEDY}.")
    return DroppedRows({name: tuple((first, end) for first, end in runs) for name, runs in groups.items()}, gone)


def require_within(dropped: DroppedRows, record: PartRecord, where: str) -> None:
    """StoreError where rows of the part at ``where`` are dropped that its record does not count."""
    for name, runs in dropped.groups.items():
        rows = record.groups[name].rows if name in record.groups else 0
        if runs and runs[-1][1] > rows:
            raise StoreError(
                f"{where}/{DROPPED}: drops row {runs[-1][1] - 1} of {brief(name)}, which has {rows}; {_REMEDY}."
            )


def _are_runs(runs: object) -> bool:
    if not isinstance(runs, list):
        return False
    last = -1
    for run in runs:
        if not isinstance(run, list) or len(run) != 2 or not all(type(n) is int for n in run):
            return False
        if not last < run[0] < run[1] < 2**63:
            return False
        last = run[1]
    return True
