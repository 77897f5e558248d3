"""Counting different tokens: exact while they fit, close beyond, whatever their order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.bit_statistics.distinct import DistinctCounter


def numbered(count, width):
    """Tokens [count, width] that count upwards: as little random as tokens can be."""
    tokens = np.zeros((count, -(-width // 8) * 8), np.uint8)
    tokens.view("<u8")[:, 0] = np.arange(count)
    return tokens[:, :width]


@settings(max_examples=30)
@given(width=st.integers(1, 20), count=st.integers(1, 300), repeats=st.integers(1, 3), seed=st.integers(0, 9))
def test_exact_while_they_fit(width, count, repeats, seed):
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 4, (count, width), dtype=np.uint8)
    counter = DistinctCounter(kept=300)
    for _ in range(repeats):
        for piece in np.array_split(generator.permutation(tokens), 3):
            counter.add(piece)
    found = counter.result()
    assert (found.count, found.error, found.exact) == (len(np.unique(tokens, axis=0)), 0, True)


@pytest.mark.parametrize("more", [0, 1])
def test_exact_up_to_what_is_kept(more):
    counter = DistinctCounter(kept=256)
    counter.add(numbered(256 + more, 8))
    assert counter.result().exact is (more == 0)


@pytest.mark.parametrize("width", [2, 3, 4, 6, 8, 9, 16, 32])
def test_estimate_is_close(width):
    counter = DistinctCounter(kept=1000)
    for piece in np.array_split(numbered(60_000, width), 7):
        counter.add(piece)
        counter.add(piece[::-2])
    found = counter.result()
    assert not found.exact
    assert found.error == pytest.approx(1000**-0.5, rel=0.01)
    assert found.count == pytest.approx(60_000, rel=4 * found.error)


def test_order_does_not_matter():
    tokens = np.random.default_rng(0).integers(0, 256, (5000, 5), dtype=np.uint8)
    counts = set()
    for seed in range(3):
        counter = DistinctCounter(kept=500)
        for piece in np.array_split(np.random.default_rng(seed).permutation(tokens), 1 + 4 * seed):
            counter.add(piece)
        counts.add(counter.result().count)
    assert len(counts) == 1


def test_token_of_zeros_is_seen():
    counter = DistinctCounter()
    counter.add(np.zeros((3, 8), np.uint8))
    assert counter.result().count == 1


def test_token_of_ones_is_seen():
    """Its place among the recent ones starts with a mark of its own."""
    counter = DistinctCounter()
    counter.add(np.full((3, 8), 255, np.uint8))
    counter.add(np.zeros((3, 8), np.uint8))
    assert counter.result().count == 2
