"""Writing one part of a bit store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from grncli.runtime.errors import StoreError
from grncli.runtime.files import replace_file
from grncli.store.bits import BITS, LABEL, BitSchema, Grid, grid_name, grid_of
from grncli.store.captions import CaptionLine, read_part_captions, replace_captions
from grncli.store.fingerprint import Fingerprint, read_fingerprint
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.claiming import Claim, Overwrite, claim_part, explained, store_lock
from grncli.store.rows.claiming import is_interrupted as is_part_interrupted
from grncli.store.rows.row_writer import RowWriter
from grncli.store.rows.schema import METADATA, group_document


def open_part(
    path: str | Path,
    fingerprint: Fingerprint,
    part: int = 0,
    parts: int = 1,
    overwrite: bool = False,
    columns: Sequence[tuple[str, DTypeLike]] = (),
    *,
    resumes: Callable[[int, str], bool] = lambda position, digest: True,
    discarding: Callable[[], object] = lambda: None,
) -> "PartWriter":
    """Open part ``part`` of ``parts`` for writing, created if need be, else where its last commit left it.

    Parameters
    ----------
    path : store directory
    fingerprint : settings of the command; a store made with others is refused
    overwrite : discard what the part holds, or with ``parts == 1`` the whole store whatever its settings; but resume
        what an earlier call began to overwrite with the same settings and did not complete
    columns : further numbers per sample, as (name, dtype)
    resumes : whether an interrupted overwrite, of which the sources (position, digest) are done, fits those of now
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
    schema = BitSchema(replace(fingerprint, parts=parts))
    declared = schema.declare(columns)
    store = Path(path)
    with explained(store, "what was committed is safe"):
        claim = claim_part(store, schema, part, Overwrite(declared, resumes, discarding) if overwrite else None)
        return PartWriter(store, schema, part, declared, claim)


def add_classes(path: str | Path, labels: Sequence[str]) -> None:
    """Let the class names of a store be ``labels``, which begin with those that it has; rows keep their numbers.

    Raises
    ------
    StoreError
        If the store has others, or cannot be written.
    """
    store, source = Path(path), LocalFiles(Path(path))
    with explained(store, "what was committed is safe"), store_lock(store):
        fingerprint = read_fingerprint(source)
        if fingerprint.labels != tuple(labels[: len(fingerprint.labels)]):
            raise StoreError(f"{store} has other classes now; run the same command again.")
        grown = BitSchema(replace(fingerprint, labels=tuple(labels)))
        replace_file(store / METADATA, group_document(grown.attributes()))


def is_interrupted(path: str | Path, fingerprint: Fingerprint, part: int, resumes: Callable[[int, str], bool]) -> bool:
    """Whether ``open_part`` with ``overwrite``, and no columns, would resume an earlier overwrite."""
    return is_part_interrupted(Path(path), BitSchema(fingerprint), part, Overwrite({}, resumes))


class PartWriter(RowWriter):
    """The one writer of a part of a bit store. Leaving its ``with`` block drops what was not committed.

    Attributes
    ----------
    position, digest, sources : as given to the last ``commit``
    failures : the latest line of each source that failed and was not read since
    """

    def __init__(self, store: Path, schema: BitSchema, part: int, columns: dict[str, str], claim: Claim) -> None:
        """Use ``open_part``."""
        super().__init__(store, schema, part, columns, claim)
        self.fingerprint = schema.fingerprint

    @property
    def grids(self) -> dict[Grid, int]:
        """Committed rows of each grid."""
        return {grid_of(name): rows for name, rows in self.groups.items()}

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
        labels = np.full(len(bits), -1) if labels is None else labels
        self.append_rows(grid_name(grid), {BITS: bits, LABEL: labels, **columns}, records)

    def captions(self) -> list[CaptionLine]:
        """The captions that the part has; StoreError as ``read_captions``."""
        return list(read_part_captions(self._source, self.part))

    def write_captions(self, lines: Iterable[CaptionLine]) -> None:
        """Replace the part's captions at once, also those of a complete part: no commit record counts them."""
        if self._obstacle:
            raise StoreError(self._obstacle)
        with self._breakable():
            self._require_in_place()
            replace_captions({self.directory: lines})
