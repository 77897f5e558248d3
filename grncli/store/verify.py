"""Checking a store against its commit records, in one pass over every file and a chunk at a time."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonfiles import read_json
from grncli.store.fingerprint import Fingerprint, read_fingerprint
from grncli.store.layout import (
    COMPLETE,
    FAILURES,
    LABEL,
    METADATA,
    SAMPLES,
    Grid,
    grid_name,
    parse_part,
    part_name,
)
from grncli.store.record import GridRecord, PartRecord, read_record
from grncli.store.segments import StoredArray, stored_arrays
from grncli.store.textlog import read_failures, read_lines

Report = Callable[[int, int], None]

_LOG_PIECE = 1 << 20


def verify_store(path: str | Path, report: Report | None = None) -> list[str]:
    """Check every committed byte of a store; the problems found, one sentence each, none when it is sound.

    Parameters
    ----------
    path : store directory; it may be incomplete, or be written meanwhile
    report : called with (bytes of arrays checked, bytes of arrays in all) as the check goes on

    Raises
    ------
    StoreError
        If there is no store at ``path``.
    """
    store = Path(path)
    fingerprint = read_fingerprint(store)
    marked = (store / COMPLETE).exists()
    problems: list[str] = []
    records: dict[Path, PartRecord] = {}
    for part in range(fingerprint.parts):
        directory = store / part_name(part)
        try:
            records[directory] = read_record(directory) or PartRecord()
        except StoreError as error:
            problems.append(str(error))
    progress = _Progress(report, fingerprint, records)
    for directory, record in records.items():
        problems += _part(directory, record, fingerprint, progress)
    return [*problems, *_marker(store, fingerprint, records, marked)]


class _Progress:
    def __init__(self, report: Report | None, fingerprint: Fingerprint, records: dict[Path, PartRecord]) -> None:
        self._report = report
        self._done = 0
        self._total = sum(
            array.nbytes
            for part, record in records.items()
            for grid in record.grids
            for array in stored_arrays(part, record, grid, fingerprint.rounds, fingerprint.channels)
        )

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        if self._report:
            self._report(self._done, self._total)


def _marker(store: Path, fingerprint: Fingerprint, records: dict[Path, PartRecord], marked: bool) -> Iterator[str]:
    whole = len(records) == fingerprint.parts and all(record.complete for record in records.values())
    if marked and not whole:
        yield f"{store / COMPLETE} says the store is complete, but not all of its parts are; remove that file."
    if whole and not (store / COMPLETE).exists():
        yield f"{store / COMPLETE} is missing though every part is complete; run the command that wrote it again."
    for entry in sorted(store.iterdir()):
        part = parse_part(entry.name)
        if part is not None and part >= fingerprint.parts:
            yield f"{entry} is not one of the store's {fingerprint.parts} parts; move it away."


def _part(directory: Path, record: PartRecord, fingerprint: Fingerprint, progress: _Progress) -> Iterator[str]:
    for grid, committed in record.grids.items():
        arrays = stored_arrays(directory, record, grid, fingerprint.rounds, fingerprint.channels)
        for array in arrays:
            yield from _chunks(array, committed, progress, len(fingerprint.labels))
        if record.complete:
            for array in arrays:
                yield from _settled(array)
    for name, size, crc, check in (
        (SAMPLES, record.samples_bytes, record.samples_crc32c, _samples),
        (FAILURES, record.failures_bytes, record.failures_crc32c, _failures),
    ):
        if size:
            yield from _log(directory / name, size, crc)
            yield from check(directory / name, record)


def _chunks(array: StoredArray, committed: GridRecord, progress: _Progress, classes: int) -> Iterator[str]:
    checksums = committed.crc32c.get(array.layout.name, [])
    if len(checksums) != array.chunks:
        yield (
            f"{array.directory} has {array.chunks} chunks, but the commit record has {len(checksums)} checksums; "
            "restore commit.json from a copy."
        )
        return
    for chunk, expected in enumerate(checksums):
        try:
            data = array.read_chunk(chunk)
        except StoreError as error:
            yield str(error)
            continue
        found = google_crc32c.value(data.reshape(-1).view(np.uint8))
        if found != expected:
            yield _changed(array.chunk_path(chunk), found, expected)
        elif array.layout.name == LABEL:
            yield from _labels(array.chunk_path(chunk), data, classes)
        progress.add(data.nbytes)


def _labels(path: Path, labels: NDArray[np.int32], classes: int) -> Iterator[str]:
    # Without class names any label may be meant.
    most = classes - 1 if classes else np.iinfo(np.int32).max
    if not -1 <= labels.min() <= labels.max() <= most:
        yield f"{path} has labels {labels.min()} to {labels.max()}, expected -1 to {most}; make the store again."


def _log(path: Path, size: int, expected: int) -> Iterator[str]:
    """Compare the committed bytes of a log with their checksum, a piece at a time."""
    found = 0
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            while size > 0 and (piece := file.read(min(size, _LOG_PIECE))):
                found, size = google_crc32c.extend(found, piece), size - len(piece)
    except OSError as error:
        yield f"{path} cannot be read ({error.strerror}); restore it from a copy."
        return
    if size > 0:
        yield f"{path} ends {size} bytes early; restore it from a copy."
    elif found != expected:
        yield _changed(path, found, expected)


def _changed(path: Path, found: int, expected: int) -> str:
    return (
        f"{path} has checksum {found:08x}, expected {expected:08x}: its bytes changed; "
        "restore it from a copy, or make the store again with --overwrite."
    )


def _settled(array: StoredArray) -> Iterator[str]:
    """What holds of a complete part only: files of exact size, no others, and documents that say the same."""
    size = array.layout.stored_chunk_rows(array.rows, complete=True) * array.layout.row_bytes
    for chunk in range(array.chunks):
        path = array.chunk_path(chunk)
        if path.exists() and path.stat().st_size != size:
            yield f"{path} has {path.stat().st_size} bytes, expected {size}; Zarr readers cannot read it."
    names = os.listdir(array.directory) if array.directory.is_dir() else []
    for name in sorted(names):
        if (array.layout.parse_chunk(name) or 0) >= array.chunks:
            yield f"{array.directory / name} was never committed; remove it."
    path = array.directory / METADATA
    try:
        found: Any = read_json(path, error=StoreError, remedy="restore it from a copy.")
    except FileNotFoundError:
        yield f"{path} is missing; restore it from a copy."
        return
    except StoreError as error:
        yield str(error)
        return
    if found != json.loads(array.layout.document(array.rows, complete=True)):
        yield f"{path} does not describe the {array.rows} committed rows; restore it from a copy."


def _samples(path: Path, record: PartRecord) -> Iterator[str]:
    """Each grid's lines come in the order of its rows, so a count per grid finds what is missing or doubled."""
    following: dict[str, int] = {grid_name(grid): 0 for grid in record.grids}
    wrong: set[str] = set()
    try:
        for number, line in enumerate(read_lines(path, record.samples_bytes), start=1):
            grid, row = str(line.get("grid")), line.get("row")
            if not all(isinstance(line.get(name), str) for name in ("key", "source")):
                yield f"{path}:{number} has no key or no source; restore the file from a copy."
            if grid not in wrong and row != following.get(grid):
                wrong.add(grid)
                yield f"{path}:{number} is row {row} of {grid}, expected row {following.get(grid)}; restore the file."
            following[grid] = following.get(grid, 0) + 1
    except StoreError as error:
        yield str(error)
        return
    for grid, n in _rows(record.grids).items():
        if grid not in wrong and following[grid] != n:
            yield f"{path} has {following[grid]} lines of grid {grid}, expected {n}; restore the file from a copy."


def _failures(path: Path, record: PartRecord) -> Iterator[str]:
    try:
        for _ in read_failures(path, record.failures_bytes):
            pass
    except StoreError as error:
        yield str(error)


def _rows(grids: dict[Grid, GridRecord]) -> dict[str, int]:
    return {grid_name(grid): committed.rows for grid, committed in grids.items()}
