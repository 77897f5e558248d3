"""How many different tokens there are, in bounded memory: exact as long as they fit, else an estimate.

Each token becomes a number of 64 bits that looks drawn at random. Of the different numbers seen, the smallest ``KEPT``
are kept ("k minimum values"): while they are fewer than that, their count is the answer; else the place of the largest
of them among all 64-bit numbers tells how densely they lie. What is kept does not depend on the order of the tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEPT = 1 << 19  # 4 MB

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]

# An odd multiplier and a shift of the upper half onto the lower: each step can be undone, so tokens of up to eight
# bytes never collide. Longer ones do with a chance of about n**2 / 2**65, 3 in a million for ten million tokens.
_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_RECENT = 1 << 19  # 4 MB
_TO_PLACE = np.uint64(64 - 19)
_BLOCK_BYTES = 1 << 18  # what is computed at a time stays in a core's cache


@dataclass(frozen=True)
class Distinct:
    """A number of different tokens; ``error`` is the relative standard error, 0 when it is exact."""

    count: int
    error: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether it was counted rather than estimated."""
        return self.error == 0


class DistinctCounter:
    """Counts different tokens as they pass; see the module's first lines."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._smallest: Hashes = np.empty(0, np.uint64)
        self._limit: np.uint64 | None = None  # larger hashes cannot matter any more
        self._waiting: list[Hashes] = []
        self._waiting_count = 0
        # The last hash that came by with the same first bits: most repeats end here, before anything is sorted.
        # At first each place holds a hash that belongs to another one.
        self._recent: Hashes = np.full(_RECENT, 2**64 - 1, np.uint64)
        self._recent[-1] = 0

    def add(self, tokens: Bytes) -> None:
        """Take tokens [n, bytes]."""
        hashes = token_hashes(tokens)
        if self._limit is not None:
            hashes = hashes[hashes <= self._limit]
        places = (hashes >> _TO_PLACE).astype(np.intp)
        new = self._recent[places] != hashes
        hashes = hashes[new]
        self._recent[places[new]] = hashes
        self._waiting.append(sorted_distinct(hashes))
        self._waiting_count += len(self._waiting[-1])
        if self._waiting_count >= self._kept:
            self._merge()

    def result(self) -> Distinct:
        """The count so far."""
        self._merge()
        if self._limit is None:
            return Distinct(len(self._smallest))
        share = (int(self._limit) + 1) / 2**64
        return Distinct(round((self._kept - 1) / share), (self._kept - 2) ** -0.5)

    def _merge(self) -> None:
        merged = sorted_distinct(np.concatenate([self._smallest, *self._waiting]))
        self._smallest = merged[: self._kept].copy()
        # Exactly KEPT of them is still an exact count.
        if len(merged) > self._kept or self._limit is not None:
            self._limit = self._smallest[-1]
        self._waiting, self._waiting_count = [], 0


def sorted_distinct(numbers: Hashes) -> Hashes:
    """What ``np.unique`` gives; from numpy 2.3 on that goes through a hash table, at a fortieth of the speed here."""
    ordered = np.sort(numbers)
    if not ordered.size:
        return ordered
    first = np.empty(ordered.shape, np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def token_hashes(tokens: Bytes) -> Hashes:
    """64-bit hashes of tokens [n, bytes], the same on every machine; of short tokens each different one only once.

    Tokens of one or two bytes are looked up in a table of all that there can be.
    """
    width = tokens.shape[1]
    if width <= 2:
        seen = np.zeros(256**width, np.bool_)
        seen[np.ascontiguousarray(tokens).view(f"<u{width}")] = True
        return _mixed(np.flatnonzero(seen).astype(np.uint64)[:, np.newaxis])
    hashes = np.empty(len(tokens), np.uint64)
    rows = max(1, _BLOCK_BYTES // width)
    for start in range(0, len(tokens), rows):
        hashes[start : start + rows] = _mixed(_words(tokens[start : start + rows]))
    return hashes


def _words(tokens: Bytes) -> NDArray[np.uint64]:
    """Tokens [n, bytes] as [n, words] of 64 bits, filled up with zeros."""
    count, width = tokens.shape
    if width % 8 == 0:
        return np.ascontiguousarray(tokens).view("<u8")
    if width == 4:
        return np.ascontiguousarray(tokens).view("<u4").astype(np.uint64)
    padded = np.zeros((count, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = tokens
    return padded.view("<u8")


def _mixed(words: NDArray[np.uint64]) -> Hashes:
    hashes = words[:, 0] * _ODD
    for column in range(1, words.shape[1]):
        hashes ^= hashes >> _HALF
        hashes ^= words[:, column]
        hashes *= _ODD
    hashes ^= hashes >> _HALF
    hashes *= _ODD
    return hashes
