"""Figures of pairs over many samples: mean, spread, the worst samples, and how far their features moved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from grncli.runtime.jsonfiles import or_null

WORST = 10


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over samples, each of which counts with the mean over its frames."""

    mean: float
    """NaN where it is defined for no sample."""
    deviation: float
    """Standard deviation over samples."""
    samples: int
    worst: list[tuple[str, int, float]]
    """Up to ten (name, worst frame, mean over frames) of the samples furthest from their originals, worst first."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        return {
            "mean": or_null(self.mean),
            "deviation": or_null(self.deviation),
            "samples": self.samples,
            "worst": [{"name": name, "frame": frame, "value": value} for name, frame, value in self.worst],
        }


class Tally:
    """One metric over the samples that it is defined for."""

    def __init__(self, *, larger_is_better: bool) -> None:
        self._sign = 1 if larger_is_better else -1
        self._rows: list[tuple[int, str, int, float]] = []  # place, name, worst frame, mean

    def add(self, place: int, name: str, frames: Sequence[float]) -> None:
        """Count one sample: its name and the values of its frames."""
        defined = {frame: value for frame, value in enumerate(frames) if not math.isnan(value)}
        if defined:
            worst = min(defined, key=lambda frame: self._sign * defined[frame])
            self._rows.append((place, name, worst, sum(defined.values()) / len(defined)))

    def merge(self, rows: Sequence[tuple[int, str, int, float]]) -> None:
        """Count what another process has counted."""
        self._rows.extend(rows)

    def rows(self) -> list[tuple[int, str, int, float]]:
        """Place, name, worst frame and mean of each sample so far."""
        return self._rows

    def spread(self) -> Spread:
        """The figures; they do not depend on the order in which samples were added."""
        rows = sorted(self._rows)
        values = torch.tensor([row[3] for row in rows], dtype=torch.float64)
        worst = sorted(rows, key=lambda row: (self._sign * row[3], row[0]))[:WORST]
        return Spread(
            mean=float(values.mean()) if rows else math.nan,
            deviation=float(values.std(correction=0)) if rows else math.nan,
            samples=len(rows),
            worst=[(name, frame, value) for _, name, frame, value in worst],
        )


@dataclass
class FeatureErrors:
    """How far features are from what they were before quantization: the largest, and the mean over all of them."""

    largest: float = 0.0
    total: float = 0.0
    features: int = 0

    def add(self, largest: float, mean: float, features: int) -> None:
        """Count a number of features with their largest and mean absolute error."""
        self.merge(largest, mean * features, features)

    def merge(self, largest: float, total: float, features: int) -> None:
        """Count what another process has counted."""
        self.largest = max(self.largest, largest)
        self.total += total
        self.features += features

    @property
    def mean(self) -> float:
        """Mean absolute error; NaN without features."""
        return self.total / self.features if self.features else math.nan
