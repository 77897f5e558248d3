"""The store that ``grn sample`` makes: a bit store with columns of its own, and what its samples say of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError, UsageError
from grncli.store import METADATA, BitStore, GridView, open_store

COLUMNS = {"number": "int64", "seed": "int64", "steps": "int32", "nfe": "int32", "entropy": "float32"}
OLD_NFE = "evaluations"  # what stores of earlier versions call it
# What records say of what a sample was made of, as far as it has it.
ASKED_FOR = ("class", "prompt", "prompt_number", "rewritten", "final_prompt", "first_frame", "first_frame_sha256")


class StoredSample(NamedTuple):
    """A sample of a store that ``grn sample`` made."""

    place: int  # in the store
    record: dict[str, Any]
    numbers: dict[str, Any]  # by column: seed, steps, ...

    def described(self) -> dict[str, Any]:
        """Its numbers, and what it was made of, for metadata."""
        return {**self.numbers, **asked_for(self.record)}


@dataclass(frozen=True)
class StoredSamples:
    """A store that ``grn sample`` made, and its samples by number."""

    store: BitStore
    entries: list[StoredSample]

    @classmethod
    def read(cls, path: Path) -> Self:
        """All that a store holds by now."""
        store = open_store(path)
        return cls(store, samples_of(store))


def asked_for(record: Mapping[str, Any]) -> dict[str, Any]:
    """Class, prompt and first frame of a sample, for metadata."""
    return {name: record[name] for name in ASKED_FOR if name in record}


def is_sample_store(store: BitStore) -> bool:
    """Whether a store has the columns that ``grn sample`` writes."""
    return {"nfe" if name == OLD_NFE else name for name in store.columns} == set(COLUMNS)


def nfe_of(view: GridView) -> NDArray[np.int32]:
    """Number of function evaluations of each sample of a grid, whatever the store calls it."""
    column: NDArray[np.int32] = view.column("nfe" if "nfe" in view.layouts else OLD_NFE)
    return column


def samples_of(store: BitStore) -> list[StoredSample]:
    """The samples of a store that ``grn sample`` made, by number; UsageError for any other store."""
    if not is_sample_store(store):
        raise UsageError(f"{store.path} is a bit store that grn sample did not make; choose another OUT")
    records, samples = list(store.records()), []
    for grid in store.grids:
        view = store.grid(grid)
        columns = {name: (nfe_of(view) if name == "nfe" else view.column(name)).tolist() for name in COLUMNS}
        for row, index in enumerate(view.indices.tolist()):
            numbers = {name: column[row] for name, column in columns.items()}
            samples.append(StoredSample(index, records[index], numbers))
    return sorted(samples, key=lambda sample: sample.numbers["number"])


def columns_beside(store: BitStore | None) -> dict[str, str]:
    """Columns of a part that is written into a store: like those of its other parts, which may be older."""
    old = store is not None and OLD_NFE in store.columns
    return {OLD_NFE if old and name == "nfe" else name: dtype for name, dtype in COLUMNS.items()}


def open_earlier(path: Path, *, overwrite: bool, parts: int) -> BitStore | None:
    """The store that samples are added to; None where there is none, or it is to be replaced as a whole."""
    if not (path / METADATA).exists() or (overwrite and parts == 1):
        return None
    try:
        return open_store(path)
    except StoreError:
        if overwrite:  # what is damaged is about to go
            return None
        raise
