"""The cost of samples: steps, function evaluations and seconds, from the store of ``grn sample`` (paper Fig. 9)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.decoding.outputs import sample_file
from grncli.evaluation.picture_sources import choose_samples, is_store
from grncli.media.selection import ALL, Selection
from grncli.sampling.pictures import BITS
from grncli.sampling.sample_store import is_sample_store, nfe_of
from grncli.sampling.timing import read_timing
from grncli.store import BitStore, GridView, open_store


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of samples."""

    samples: int
    steps: dict[int, int]  # number of steps: samples that took so many
    mean_steps: float
    nfe: float  # number of function evaluations per sample
    seconds: float | None  # per sample, where a log of it was kept
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, whose objects have text for keys."""
        return vars(self) | {"steps": {str(steps): samples for steps, samples in self.steps.items()}}


def cost_of(samples: Path, selection: Selection = ALL) -> Cost | None:
    """What the selected samples of ``grn sample`` cost, from their store; None for other pictures."""
    path = samples / BITS if (samples / BITS).is_dir() else samples
    if not is_store(str(path)):
        return None
    store = open_store(path)
    if not is_sample_store(store) or not len(store):
        return None
    # A folder's pictures are drawn by the names of their files.
    selected = choose_samples(store, selection) if path == samples else _of_files(store, selection)
    steps: Counter[int] = Counter()
    for view, rows in _rows_of(store, selected):
        steps.update(view.column("steps")[rows].tolist())
    timing = read_timing(path)
    return Cost(
        samples=len(selected),
        steps=dict(sorted(steps.items())),
        mean_steps=sum(number * samples for number, samples in steps.items()) / len(selected),
        nfe=mean_nfe(store, selected),
        seconds=None if timing is None else timing.seconds_per_sample,
        settings=dict(store.fingerprint.preprocessing),
    )


def mean_nfe(store: BitStore, selected: Sequence[int]) -> float:
    """Number of function evaluations (NFE) per sample, of the samples at the indices ``selected``."""
    return sum(int(nfe_of(view)[rows].sum()) for view, rows in _rows_of(store, selected)) / len(selected)


def _rows_of(store: BitStore, selected: Sequence[int]) -> Iterator[tuple[GridView, NDArray[np.bool_]]]:
    """Each grid of a store, and which of its rows are selected."""
    for grid in store.grids:
        view = store.grid(grid)
        yield view, np.isin(view.indices, selected)


def _of_files(store: BitStore, selection: Selection) -> Sequence[int]:
    names = (sample_file(record, clip=store.grid_of(index)[0] > 1) for index, record in enumerate(store.records()))
    return selection.places(names, len(store))
