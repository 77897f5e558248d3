"""The cost of samples: steps, function evaluations and seconds, from the store of ``grn sample`` (paper Fig. 9)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.decoding.outputs import sample_file
from grncli.evaluation.measuring import Pictures
from grncli.evaluation.picture_sources import MediaPictures, StorePictures, is_store
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
    steps_by_entropy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    """Entropy (paper Eq. 8, in units of log K) and steps ``[n, 2]`` of each sample, for a plot."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, whose objects have text for keys; without the figures of each sample."""
        plain = {name: value for name, value in vars(self).items() if name != "steps_by_entropy"}
        return plain | {"steps": {str(steps): samples for steps, samples in self.steps.items()}}


def cost_of(pictures: Pictures) -> Cost | None:
    """What samples of ``grn sample`` cost, from their store or that of their folder; None for other pictures."""
    store, selected = _stored(pictures)
    return None if store is None or not is_sample_store(store) or not selected else store_cost(store, selected)


def store_cost(store: BitStore, selected: Sequence[int]) -> Cost:
    """What the samples at the indices ``selected``, one or more, of a store of ``grn sample`` cost."""
    pairs = [
        np.stack([view.column(name)[rows] for name in ("entropy", "steps")], axis=1)
        for view, rows in _rows_of(store, selected)
    ]
    steps_by_entropy = np.concatenate(pairs).astype(np.float64)
    steps = Counter(steps_by_entropy[:, 1].astype(int).tolist())
    timing = read_timing(Path(store.path))
    return Cost(
        samples=len(selected),
        steps=dict(sorted(steps.items())),
        mean_steps=sum(number * samples for number, samples in steps.items()) / len(selected),
        nfe=mean_nfe(store, selected),
        seconds=None if timing is None else timing.seconds_per_sample,
        settings=dict(store.fingerprint.preprocessing),
        steps_by_entropy=steps_by_entropy,
    )


def steps_by_place(pictures: Pictures) -> dict[int, tuple[int, float]]:
    """Steps and entropy of each of the selected samples that ``grn sample`` made, by its number among them."""
    store, selected = _stored(pictures)
    if store is None or not is_sample_store(store):
        return {}
    if isinstance(pictures, StorePictures):
        places = {index: place for place, index in enumerate(selected)}
    elif isinstance(pictures, MediaPictures):
        by_name = {source.relative: place for place, source in enumerate(pictures.sources)}
        names = enumerate(_file_names(store))
        places = {index: by_name[name] for index, name in names if name in by_name}
    else:
        return {}
    found = {}
    for grid in store.grids:
        view = store.grid(grid)
        columns = (view.indices, view.column("steps"), view.column("entropy"))
        for index, steps, entropy in zip(*(column.tolist() for column in columns), strict=True):
            if index in places:
                found[places[index]] = (steps, entropy)
    return found


def mean_nfe(store: BitStore, selected: Sequence[int]) -> float:
    """Number of function evaluations (NFE) per sample, of the samples at the indices ``selected``."""
    return sum(int(nfe_of(view)[rows].sum()) for view, rows in _rows_of(store, selected)) / len(selected)


def _rows_of(store: BitStore, selected: Sequence[int]) -> Iterator[tuple[GridView, NDArray[np.bool_]]]:
    """Each grid of a store, and which of its rows are selected."""
    for grid in store.grids:
        view = store.grid(grid)
        yield view, np.isin(view.indices, selected)


def _stored(pictures: Pictures) -> tuple[BitStore | None, Sequence[int]]:
    """The store that pictures are decoded from, or that lies beside them, and the indices of what is selected."""
    if isinstance(pictures, StorePictures):
        return pictures.store, pictures.places
    path = Path(pictures.src) / BITS
    if not is_store(str(path)):
        return None, ()
    store = open_store(path)
    # A folder's pictures are drawn by the names of their files.
    return store, pictures.selection.places(_file_names(store), len(store))


def _file_names(store: BitStore) -> Iterator[str]:
    """The file of each sample, below the folder of its store."""
    return (sample_file(record, clip=store.grid_of(index)[0] > 1) for index, record in enumerate(store.records()))
