"""Statistics of a store's bits: balance, entropy, correlation, repetition, and bits that never change.

One pass over the chunks, in memory that does not grow with the store. Exact over all bits: the shares
of ones, hence the entropies. Exact up to a size and bounded beyond it: the number of different tokens (see
``distinct.py``), the correlations (``SAMPLE_TOKENS``) and what a compressor saves (``COMPRESSED_BYTES``).
"""

import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from grncli.bit_statistics.counting import (
    Bytes,
    Floats,
    Spans,
    binary_entropy,
    clear_padding,
    correlation,
    count_ones,
    count_together,
    spread_picks,
)
from grncli.bit_statistics.distinct import Distinct, DistinctCounter
from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter, Prefetcher
from grncli.store import BitStore

STUCK_SHARE = 0.001  # a bit that takes its rarer value less often than this carries nothing
SAMPLE_TOKENS = 1 << 16  # up to twice as many for correlations, whose standard error is then below 0.004
COMPRESSED_BYTES, PIECES = 1 << 19, 16
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"zlib": zlib.compress, "lzma": lzma.compress}


@dataclass(frozen=True)
class StuckBit:
    """A bit that is (nearly) always the same; rounds count from 1 as in the paper, channels from 0."""

    round: int
    channel: int
    value: int
    share: float
    """Of tokens that have it at ``value``."""

    def __str__(self) -> str:
        how = f"always {self.value}" if self.share == 1 else f"{self.value} in {self.share:.3%} of tokens"
        return f"round {self.round} channel {self.channel}: {how}"


@dataclass(frozen=True, kw_only=True)
class BitStatistics:
    """The result of `bit_statistics`; M rounds, C channels. Correlations with a constant bit are NaN."""

    store: str
    complete: bool
    samples: int
    tokens: int
    nbytes: int
    ones: Floats
    """[M, C]: share of ones over all tokens."""
    between_rounds: Floats
    """[C, M, M]: correlation of the bits of one channel."""
    between_channels: Floats
    """[M, C, C]: correlation of the bits of one round."""
    sampled: int
    """Tokens that the correlations are of."""
    distinct: Distinct
    saved: dict[str, float]
    """Share of the bytes that each compressor saves."""
    compressed: int
    """Bytes that were compressed."""

    @cached_property
    def entropy(self) -> Floats:
        """[M, C]: bits of information in each bit by itself, 0 to 1."""
        return binary_entropy(self.ones)

    @cached_property
    def stuck(self) -> list[StuckBit]:
        """Bits that take their rarer value in less than ``STUCK_SHARE`` of tokens."""
        stuck = []
        for r, c in np.argwhere(np.minimum(self.ones, 1 - self.ones) < STUCK_SHARE).tolist():
            value = int(self.ones[r, c] > 0.5)
            stuck.append(StuckBit(r + 1, c, value, float(self.ones[r, c] if value else 1 - self.ones[r, c])))
        return stuck

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: matrices as nested lists, null for what is not defined."""
        return {
            "kind": "bits",
            "store": self.store,
            "complete": self.complete,
            "samples": self.samples,
            "tokens": self.tokens,
            "bytes": self.nbytes,
            "rounds": self.ones.shape[0],
            "channels": self.ones.shape[1],
            "ones": _listed(self.ones),
            "entropy": _listed(self.entropy),
            "stuck_below": STUCK_SHARE,
            "stuck": [vars(bit) for bit in self.stuck],
            "correlation": {
                "tokens": self.sampled,
                "between_rounds": _listed(self.between_rounds),
                "between_channels": _listed(self.between_channels),
            },
            "distinct_tokens": {**vars(self.distinct), "exact": self.distinct.exact},
            "compression": {"bytes": self.compressed, "saved": self.saved},
        }


def bit_statistics(store: BitStore, *, monitor: Monitor | None = None) -> BitStatistics:
    """Go once through all committed bits of a store.

    Raises
    ------
    StoreError
        If the store holds no sample, or a chunk is damaged.
    Unfinished
        If ``monitor`` asked for it, between two chunks.

    Shares, entropies and the number of different tokens do not depend on how the store is divided into parts and
    chunks. What is measured on a subsample does not depend on chunks, and not on parts while the subsample takes in all
    there is; beyond, it follows the order of the samples, which parts change.
    """
    if not len(store):
        raise StoreError(f"{store.path} holds no samples, so there are no bits to look at; tokenize something into it")
    monitor, survey = monitor or Monitor(), Survey(store)
    with Prefetcher(store_chunks(store), depth=1) as chunks, BackgroundWriter(depth=2) as writer:
        for chunk in chunks:
            # About as much work as all the rest, so that two cores are busy.
            writer.submit(partial(survey.distinct.add, chunk.tokens.reshape(len(chunk.tokens), -1)))
            survey.add(chunk)
            monitor.progress(survey.samples, len(store), "")
            if survey.samples < len(store):
                monitor.require_time(f"after {survey.samples} of {len(store)} samples")
        writer.wait()
    return survey.result()


class Chunk(NamedTuple):
    """One chunk of a store."""

    first: int
    """Number of its first token in the store."""
    samples: int
    tokens: Bytes
    """[n, M, bytes], bits behind the last channel at zero."""


class Survey:
    """The sums of one pass."""

    def __init__(self, store: BitStore) -> None:
        rounds, channels = store.rounds, store.channels
        self.store = store
        self.tokens = sum(math.prod(grid) * count for grid, count in store.grids.items())
        self.step = max(1, self.tokens // SAMPLE_TOKENS)
        self.samples = 0
        self.ones = np.zeros((rounds, channels), np.int64)
        self.sampled = 0
        shapes = ((channels, rounds, rounds), (rounds, channels, channels))
        self.together = tuple(np.zeros(shape, np.int64) for shape in shapes)
        self.distinct = DistinctCounter()
        self.spans = Spans(store.nbytes, COMPRESSED_BYTES, PIECES)

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk; its tokens go to ``distinct`` besides."""
        tokens, channels = chunk.tokens, self.store.channels
        self.samples += chunk.samples
        self.ones += count_ones(tokens, channels)
        picked = tokens[spread_picks(chunk.first, len(tokens), self.step)]
        self.sampled += len(picked)
        for total, counted in zip(self.together, count_together(picked, channels), strict=True):
            total += counted
        self.spans.add(tokens)

    def result(self) -> BitStatistics:
        """The statistics, once every chunk was added."""
        data = self.spans.bytes()
        return BitStatistics(
            store=str(self.store.path),
            complete=self.store.complete,
            samples=self.samples,
            tokens=self.tokens,
            nbytes=self.store.nbytes,
            ones=self.ones / self.tokens,
            between_rounds=correlation(self.together[0], self.sampled),
            between_channels=correlation(self.together[1], self.sampled),
            sampled=self.sampled,
            distinct=self.distinct.result(),
            saved={name: max(0.0, 1 - len(pack(data)) / len(data)) for name, pack in COMPRESSORS.items()},
            compressed=len(data),
        )


def store_chunks(store: BitStore) -> Iterator[Chunk]:
    """Every chunk of every grid."""
    first = 0
    for grid in store.grids:
        for _, bits in store.grid(grid).chunks():
            tokens = clear_padding(bits.reshape(-1, *bits.shape[-2:]), store.channels)
            yield Chunk(first, len(bits), tokens)
            first += len(tokens)


def _listed(array: Floats) -> Any:
    """Nested lists, with None for NaN, which JSON does not know."""
    values = np.round(array, 6).astype(object)
    values[np.isnan(array)] = None
    return values.tolist()
