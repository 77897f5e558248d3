"""``grn store dedupe --near``: samples whose coarse bits are nearly the same, as a report.

The distance of two samples is the share of differing bits (Hamming distance) in their first rounds, which say on which
side of 0, of one half, ... each feature lies. All pairs of a latent grid are compared, by a product of matrices of +1
and -1; where a sample has many bits, a drawn part of them first, and all of them for the pairs that may be near.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.editing.duplicates import DuplicateSample, described
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.store import GridView, open_store

Indices = NDArray[np.int64]
Shares = NDArray[np.float64]

COMPARED_BITS = 2048  # of each sample in the first comparison
MARGIN = 4.0  # standard errors by which the drawn bits may show more than all
BLOCK = 2048  # samples: a product takes 16 MB
LISTED = 1000  # nearest pairs
FARTHEST = 25  # percent; of photographs 40 to 50 % of the bits differ


@dataclass(frozen=True)
class NearPair:
    """Two samples of different sources; ``distance`` is the share of bits that differ."""

    distance: float
    first: DuplicateSample
    second: DuplicateSample


@dataclass(frozen=True)
class NearSummary:
    """What ``near_duplicates`` found."""

    store: Path
    samples: int
    percent: float
    rounds: int
    count: int  # pairs
    pairs: Sequence[NearPair]
    """The nearest ones, at most `LISTED`."""

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "store": str(self.store),
            "samples": self.samples,
            "near": self.percent,
            "rounds": self.rounds,
            "count": self.count,
            "pairs": [
                {"distance": round(each.distance, 6), "samples": [each.first.to_json(), each.second.to_json()]}
                for each in self.pairs
            ],
        }


def near_duplicates(path: Path, percent: float, rounds: int = 1, *, monitor: Monitor | None = None) -> NearSummary:
    """Pairs of samples of one latent grid and different sources in which few bits differ.

    The work grows with the square of the samples.

    Parameters
    ----------
    percent : of the bits of the first ``rounds`` rounds that may differ

    Raises
    ------
    Unfinished
        If the monitor asks for it.
    UsageError, StoreError
    """
    monitor, store = monitor or Monitor(), open_store(path)
    if not 0 <= percent <= FARTHEST:
        raise UsageError(f"--near {percent:g}: expected 0 to {FARTHEST} percent of the bits")
    if not 1 <= rounds <= store.rounds:
        raise UsageError(f"--rounds {rounds}: {path} holds {store.rounds} rounds, expected 1 to {store.rounds}")
    sources = [line["source"] for line in store.records()]
    nearest: list[tuple[float, int, int]] = []
    found = 0
    total, before = sum(_pairs_of(count, count) for count in store.grids.values()), 0
    for grid, count in store.grids.items():
        view, bits = store.grid(grid), _CoarseBits(rounds, store.channels)
        numbers = view.indices.tolist()
        for done, distances, first, second in bits.pairs_below(view, percent / 100, monitor):
            pairs = zip(distances.tolist(), first.tolist(), second.tolist(), strict=True)
            named = ((distance, numbers[one], numbers[other]) for distance, one, other in pairs)
            new = [pair for pair in named if sources[pair[1]] != sources[pair[2]]]
            found += len(new)
            nearest = sorted([*nearest, *new])[:LISTED] if new else nearest
            monitor.progress(before + done, total, "pairs")
            monitor.require_time(f"after {before + done} of {total} pairs")
        before += _pairs_of(count, count)
    samples = described(store, [pair[1:] for pair in nearest])
    pairs_found = [NearPair(pair[0], *each) for pair, each in zip(nearest, samples, strict=True)]
    return NearSummary(path, len(store), percent, rounds, found, pairs_found)


@dataclass(frozen=True)
class _CoarseBits:
    """The bits of the first ``rounds`` rounds of ``channels`` channels."""

    rounds: int
    channels: int

    def pairs_below(
        self, view: GridView, most: float, monitor: Monitor
    ) -> Iterator[tuple[int, Shares, Indices, Indices]]:
        """Pairs compared so far, and for a block of them distances and rows of those up to ``most``."""
        drawn, width, total = self._drawn(view, monitor)
        limit = most if width == total else most + MARGIN * (max(most, 1 / width) * (1 - most) / width) ** 0.5
        for start in range(0, len(drawn), BLOCK):
            ours = _signs(drawn[start : start + BLOCK], width)
            for other in range(start, len(drawn), BLOCK):
                theirs = _signs(drawn[other : other + BLOCK], width)
                distances = (width - ours @ theirs.T) / (2 * width)
                one, two = np.nonzero(distances <= limit + 1e-6)
                first, second = one + start, two + other
                later = first < second
                first, second = first[later], second[later]
                exact = distances[one[later], two[later]].astype(np.float64)
                if width < total:
                    exact = self._distances(view, first, second, total)
                near = exact <= most + 1e-6
                whole = start + len(ours) if other + BLOCK >= len(drawn) else start
                yield _pairs_of(whole, len(drawn)), exact[near], first[near], second[near]

    def _drawn(self, view: GridView, monitor: Monitor) -> tuple[NDArray[np.uint8], int, int]:
        """Some bits of all samples, packed [n, bytes]; how many these are, and how many a sample has."""
        time, height, width, _, _ = view.row_shape
        total = time * height * width * self.rounds * self.channels
        picks = np.sort(np.random.default_rng(0).permutation(total)[:COMPARED_BITS])
        drawn = np.empty((len(view), -(-len(picks) // 8)), np.uint8)
        for start, rows in view.chunks():
            drawn[start : start + len(rows)] = np.packbits(self._bits(rows)[:, picks], axis=1)
            monitor.require_time(f"before any of {len(view)} samples was compared")
        return drawn, len(picks), total

    def _distances(self, view: GridView, first: Indices, second: Indices, total: int) -> Shares:
        """Share of all bits that differ, of pairs of rows."""
        shares = np.empty(len(first))
        for start in range(0, len(first), BLOCK):
            some = slice(start, start + BLOCK)
            differ = self._bits(view.read(first[some])) != self._bits(view.read(second[some]))
            shares[some] = differ.sum(axis=1) / total
        return shares

    def _bits(self, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Packed bits [n, t, h, w, M, bytes] as single ones [n, bits]."""
        return np.unpackbits(rows[..., : self.rounds, :], axis=-1, count=self.channels).reshape(len(rows), -1)


def _pairs_of(rows: int, count: int) -> int:
    """Pairs among ``count`` samples that the first ``rows`` of them are the first of."""
    return rows * (2 * count - rows - 1) // 2


def _signs(packed: NDArray[np.uint8], width: int) -> NDArray[np.float32]:
    return np.unpackbits(packed, axis=1, count=width).astype(np.float32) * 2 - 1
