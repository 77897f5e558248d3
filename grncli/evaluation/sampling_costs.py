"""What samples cost to make, read from the store that ``grn sample`` left (paper Fig. 9)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grncli.decoding.outputs import file_name
from grncli.evaluation.picture_sources import choose_samples, is_store
from grncli.media.selection import ALL, Selection
from grncli.sampling.pictures import BITS
from grncli.sampling.sample_store import is_sample_store, nfe_of
from grncli.sampling.timing import read_timing
from grncli.store import BitStore, open_store


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What samples took to make."""

    samples: int
    steps: dict[int, int]  # steps: samples that took them
    mean_steps: float
    evaluations: float  # of the network, per sample
    seconds: float | None  # per sample, where a log of it was kept
    settings: dict[str, Any]


def cost_of(samples: Path, selection: Selection = ALL) -> Cost | None:
    """Steps, evaluations and seconds of the samples that ``grn sample`` made and are taken; None for others."""
    path = samples / BITS if (samples / BITS).is_dir() else samples
    if not is_store(str(path)):
        return None
    store = open_store(path)
    if not is_sample_store(store) or not len(store):
        return None
    steps: Counter[int] = Counter()
    # A folder's pictures are drawn by the names of their files.
    taken = choose_samples(store, selection) if path == samples else _of_files(store, selection)
    evaluations, count = 0, len(taken)
    for grid in store.grids:
        view = store.grid(grid)
        wanted = np.isin(view.indices, taken)
        steps.update(view.column("steps")[wanted].tolist())
        evaluations += int(nfe_of(store, grid)[wanted].sum())
    timing = read_timing(path)
    return Cost(
        samples=count,
        steps=dict(sorted(steps.items())),
        mean_steps=sum(number * samples for number, samples in steps.items()) / count,
        evaluations=evaluations / count,
        seconds=None if timing is None else timing.seconds_per_sample,
        settings=dict(store.fingerprint.preprocessing),
    )


def _of_files(store: BitStore, selection: Selection) -> Sequence[int]:
    names = (
        file_name(record, ".png" if store.grid_of(index)[0] == 1 else ".mp4")
        for index, record in enumerate(store.records())
    )
    return selection.places(names, len(store))
