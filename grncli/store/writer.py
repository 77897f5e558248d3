"""Writing one part of a bit store, so that a run killed anywhere and resumed leaves the same bytes.

The order that makes it so: data into its place, wait for the disk, replace the commit record, then let the
Zarr documents follow. What lies beyond the record is cut away when the part is opened again.
"""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.runtime.files import replace_file, sync_directory
from grncli.runtime.folders import HeldFolder
from grncli.store.claiming import Claim, Overwrite, claim_part, store_lock
from grncli.store.fingerprint import Fingerprint
from grncli.store.gridfiles import GridFiles
from grncli.store.layout import (
    COMMIT,
    COMPLETE,
    FAILURES,
    LABEL,
    OVERWRITING,
    SAMPLES,
    Grid,
    RowLayout,
    check_column,
    grid_layouts,
    grid_name,
    part_name,
)
from grncli.store.record import PartRecord, read_record, require_consistent
from grncli.store.segments import stored_arrays
from grncli.store.textlog import LineLog, encode_line, encode_lines, note_failure, read_failures, unresolved

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def open_part(
    path: str | Path,
    fingerprint: Fingerprint,
    part: int = 0,
    parts: int = 1,
    overwrite: bool = False,
    columns: Sequence[tuple[str, DTypeLike]] = (),
    *,
    goes_on: Callable[[int, str], bool] = lambda position, digest: True,
    discarding: Callable[[], object] = lambda: None,
) -> "PartWriter":
    """Open part ``part`` of ``parts`` for writing, created if need be, else where its last commit left it.

    Parameters
    ----------
    path : store directory
    fingerprint : settings of the command; a store made with others is refused
    overwrite : discard what the part holds, or with ``parts == 1`` the whole store whatever its settings; but go on
        with what an earlier call began to overwrite with the same settings and did not complete
    columns : further numbers per sample, as (name, dtype)
    goes_on : whether the sources are still those of an interrupted overwrite, of which (position, digest) are done
    discarding : called before anything is discarded, to remove what depends on it

    Raises
    ------
    StoreMismatch
        If the store was made with other settings; the message names each field.
    StoreError
        If another process writes the part, the directory is not a store, or the disk does not let us.
    """
    if not 0 <= part < parts:
        raise ValueError(f"part {part} is not one of {parts}")
    fingerprint = replace(fingerprint, parts=parts)
    declared = dict(check_column(name, dtype) for name, dtype in columns)
    store = Path(path)
    with explained(store, "what was committed is safe"):
        claim = claim_part(store, fingerprint, part, Overwrite(declared, goes_on, discarding) if overwrite else None)
        return PartWriter(store, fingerprint, part, declared, claim)


class PartWriter:
    """The one writer of a part. Leaving its ``with`` block drops what was not committed.

    Attributes
    ----------
    position, digest, sources : as given to the last ``commit``
    failures : the latest line of each source that failed and was not read since
    """

    def __init__(self, store: Path, fingerprint: Fingerprint, part: int, columns: dict[str, str], claim: Claim) -> None:
        """Use ``open_part``."""
        self.store = store
        self.directory = store / part_name(part)
        self.fingerprint = fingerprint
        self.columns = columns
        self._usable = True
        self._changed: set[Grid] = set()
        self._obstacle = claim.obstacle
        self._grids = GridFiles(
            self.directory, fingerprint.rounds, fingerprint.channels, columns, self._require_in_place
        )
        with ExitStack() as opened:
            if claim.lock is not None:
                opened.callback(claim.lock.release)
            opened.callback(self._grids.close)
            self._held = [opened.enter_context(HeldFolder(path)) for path in (store, self.directory)]
            record = read_record(self.directory)
            self._require_columns(record)
            self._committed = record is not None
            self._record = record or PartRecord(columns=columns)
            require_consistent(self._record, self.directory, fingerprint.rounds, fingerprint.channels)
            self._samples, self._failed = self._open_logs()
            opened.callback(self._close_logs)
            self.failures = unresolved(read_failures(self._failed.path, self._record.failures_bytes))
            if not self._record.complete:
                with store_lock(store):
                    self._unmark_store()
                self._grids.restore(self._record)
            self._opened = opened.pop_all()

    def _open_logs(self) -> tuple[LineLog, LineLog]:
        """A complete part is opened without a change, so that one that cannot be written is done all the same."""
        record, writable = self._record, not self._record.complete
        samples = LineLog(self.directory / SAMPLES, record.samples_bytes, record.samples_crc32c, writable=writable)
        try:
            failures = self.directory / FAILURES
            return samples, LineLog(failures, record.failures_bytes, record.failures_crc32c, writable=writable)
        except BaseException:
            samples.close()
            raise

    def _close_logs(self) -> None:
        self._samples.close()
        self._failed.close()

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
    def grids(self) -> dict[Grid, int]:
        """Committed rows of each grid."""
        return {grid: record.rows for grid, record in self._record.grids.items()}

    def append(
        self,
        grid: Grid,
        bits: NDArray[np.uint8],
        labels: ArrayLike | None,
        records: Sequence[Mapping[str, Any]],
        **columns: ArrayLike,
    ) -> None:
        """Add n samples of one grid; they count from the next ``commit`` on.

        Parameters
        ----------
        grid : latent (t, h, w)
        bits : uint8 [n, t, h, w, M, ceil(C / 8)], packed most significant bit first
        labels : int [n], -1 = none; None for no label on any
        records : n mappings with at least ``key`` and ``source``, for ``samples.jsonl``
        columns : one array [n] for each declared column
        """
        blocks = self._blocks(grid, bits, labels, columns)
        if len(records) != len(blocks[0]):
            raise ValueError(f"{len(records)} records for {len(blocks[0])} samples")
        if not records:
            return
        lines = _sample_lines(grid, self._next_row(grid), records)
        with self._writing():
            for array, block in zip(self._grids.grid(grid), blocks, strict=True):
                array.append(block)
            self._samples.append(lines)
            self._changed.add(grid)

    def fail(self, source: str, position: int, error: str | None) -> None:
        """Log that a source could not be read, or with ``error=None`` that a retry has read it."""
        line = {"source": source, "position": position, "error": error}
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
            self._grids.sync()
            self._require_in_place()
            self._write_record(position=position, digest=digest, sources=sources)
            self._require_in_place()
            self._grids.write_documents(sorted(self._changed))
            self._changed.clear()

    def finish(self) -> None:
        """Declare the part complete, and the store when all its parts are. Harmless when it is already."""
        if self._pending():
            raise ValueError("commit before finish: something was added since the last commit")
        with self._breakable():
            self._require_in_place()
            if not self.complete:
                self._grids.settle()
                self._write_record(complete=True)
            self._require_stored()
            if not self._obstacle:
                (self.directory / OVERWRITING).unlink(missing_ok=True)
            self._mark_store()
            self._require_in_place()

    def close(self) -> None:
        """Drop what was not committed and let other processes write the part; harmless when repeated."""
        self._usable = False
        self._opened.close()

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """StoreError unless all that the record speaks of is there: a look at each file, none into it."""
        if read_record(self.directory) != self._record:
            raise StoreError(
                f"{self.directory / COMMIT} was changed by another program; run the same command again, "
                "or make the store again with --overwrite."
            )
        for grid in self._record.grids:
            for array in stored_arrays(
                self.directory, self._record, grid, self.fingerprint.rounds, self.fingerprint.channels
            ):
                array.require_files()
        self._samples.require_file()
        self._failed.require_file()

    def _require_columns(self, record: PartRecord | None) -> None:
        if record is not None and record.columns != self.columns:
            raise StoreMismatch(
                f"{self.directory} was made with the columns {_listed(record.columns)}; this command asks for "
                f"{_listed(self.columns)}. Use the same options, another OUT, or --overwrite."
            )

    def _blocks(
        self, grid: Grid, bits: NDArray[np.uint8], labels: ArrayLike | None, columns: Mapping[str, ArrayLike]
    ) -> list[NDArray[Any]]:
        """The arrays of one append in the order they are stored; ValueError when one does not fit."""
        n = len(bits)
        numbers = {LABEL: np.full(n, -1) if labels is None else labels, **columns}
        of_bits, *of_numbers = grid_layouts(grid, self.fingerprint.rounds, self.fingerprint.channels, self.columns)
        if set(numbers) != {layout.name for layout in of_numbers}:
            raise ValueError(f"got the columns {_listed(columns)}, declared were {_listed(self.columns)}")
        if bits.dtype != np.uint8 or bits.shape != (n, *of_bits.row_shape):
            raise ValueError(f"bits are {bits.dtype} {bits.shape}, expected uint8 {(n, *of_bits.row_shape)}")
        return [bits, *(_exact(layout, numbers[layout.name], n) for layout in of_numbers)]

    def _next_row(self, grid: Grid) -> int:
        arrays = self._grids.arrays.get(grid)
        return arrays[0].rows if arrays else self.grids.get(grid, 0)

    def _pending(self) -> bool:
        return bool(
            self._changed
            or self._samples.size != self._record.samples_bytes
            or self._failed.size != self._record.failures_bytes
        )

    def _write_record(self, **changes: Any) -> None:
        record = replace(
            self._record,
            grids=self._grids.records(),
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
            self._unmark_store()
            record.write(self.directory)
        self._record = record
        self._samples, self._failed = self._open_logs()
        self._grids.restore(record)

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

    def _mark_store(self) -> None:
        """Put the marker in place once every part is complete; last of all, so that it can be depended on."""
        marker = self.store / COMPLETE
        # First without the lock, which a store that cannot be written does not give: the part that is completed last
        # sees that all are.
        if marker.exists() or not self._all_complete():
            return
        with store_lock(self.store):
            if not marker.exists() and self._all_complete():
                replace_file(marker, b"")

    def _all_complete(self) -> bool:
        records = (read_record(self.store / part_name(part)) for part in range(self.fingerprint.parts))
        return all(record is not None and record.complete for record in records)

    def _unmark_store(self) -> None:
        if (self.store / COMPLETE).exists():
            (self.store / COMPLETE).unlink()
            sync_directory(self.store)


@contextmanager
def explained(store: Path, safe: str) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence that says what is safe."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _DISK_FULL:
            raise StoreError(
                f"{store}: the disk is full ({reason}); {safe}. Free space and run the same command again."
            ) from error
        where = error.filename or store
        if error.errno == errno.ELOOP:
            # Pictures beside a store are looked at with it.
            inside = Path(where).is_relative_to(store)
            raise StoreError(
                f"{where} is a link, and nothing is written or removed through links; {safe}. Put what it leads to "
                f"in its place{', or use --overwrite, which removes the link' if inside else ''}."
            ) from error
        raise StoreError(
            f"{where} cannot be written ({reason}); {safe}. Mend that and run the same command again."
        ) from error


def _sample_lines(grid: Grid, row: int, records: Sequence[Mapping[str, Any]]) -> bytes:
    """Lines that start with grid and row, which is where the reader looks for them."""
    name = grid_name(grid)
    lines = []
    for i, record in enumerate(records, start=row):
        if "key" not in record or "source" not in record:
            raise ValueError(f"a record has no key or no source: {dict(record)}")
        line = {"grid": name, "row": i, **record}
        if "grid" in record or "row" in record:  # a line taken over from another store
            line |= {"grid": name, "row": i}
        lines.append(line)
    return encode_lines(lines, first="grid")


def _exact(layout: RowLayout, values: ArrayLike, n: int) -> NDArray[Any]:
    """The values in the stored type; ValueError when that would change an integer."""
    given = np.asarray(values)
    stored = given.astype(layout.dtype)
    whole = layout.dtype.kind in "iu"
    if given.shape != (n,) or given.dtype.kind not in ("iu" if whole else "iuf"):
        raise ValueError(f"{layout.name} is {given.dtype} {given.shape}, expected {layout.dtype} {(n,)}")
    if whole and not np.array_equal(given, stored):
        raise ValueError(f"{layout.name} has values that do not fit {layout.dtype}")
    return stored


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
