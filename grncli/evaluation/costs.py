"""What samples cost to make, read from the store that ``grn sample`` left (paper Fig. 9)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grncli.evaluation.pictures import is_store
from grncli.sampling.pictures import BITS, COLUMNS
from grncli.sampling.timing import read_timing
from grncli.store import open_store


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What samples took to make."""

    samples: int
    steps: dict[int, int]  # steps: samples that took them
    mean_steps: float
    evaluations: float  # of the network, per sample
    seconds: float | None  # per sample, where a log of it was kept
    settings: dict[str, Any]


def cost_of(samples: Path, limit: int | None = None) -> Cost | None:
    """Steps, evaluations and seconds of the (first) samples that ``grn sample`` made; None for others."""
    path = samples / BITS if (samples / BITS).is_dir() else samples
    if not is_store(str(path)):
        return None
    store = open_store(path)
    if set(store.columns) != {name for name, _ in COLUMNS} or not len(store):
        return None
    steps: Counter[int] = Counter()
    evaluations, count = 0, min(len(store), limit or len(store))
    for grid in store.grids:
        view = store.grid(grid)
        wanted = view.indices < count
        steps.update(view.column("steps")[wanted].tolist())
        evaluations += int(view.column("evaluations")[wanted].sum())
    timing = read_timing(path)
    return Cost(
        samples=count,
        steps=dict(sorted(steps.items())),
        mean_steps=sum(number * samples for number, samples in steps.items()) / count,
        evaluations=evaluations / count,
        seconds=None if timing is None else timing.seconds_per_sample,
        settings=dict(store.fingerprint.preprocessing),
    )
