"""Subsamples: evenly spread, and the same however the tokens or bytes arrive."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.bit_statistics.counting import Spans, spread_picks

cuts = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@settings(max_examples=60)
@given(lengths=cuts, step=st.integers(1, 30))
def test_picks_do_not_depend_on_chunks(lengths, step):
    total, first, picked = sum(lengths), 0, []
    for length in lengths:
        picked += (spread_picks(first, length, step) + first).tolist()
        first += length
    assert picked == spread_picks(0, total, step).tolist()
    # One of each step tokens in a row; the last row may be cut off before its own.
    rows = [at // step for at in picked]
    assert rows[: total // step] == list(range(total // step))
    assert len(rows) == len(set(rows)) <= -(-total // step)


def test_picks_fall_everywhere():
    """Not on the same spot of every picture, as a fixed distance would."""
    spots = np.bincount(spread_picks(0, 256 * 2000, 256) % 256, minlength=256)
    assert (len(spots), spots.sum()) == (256, 2000)
    assert spots.max() < 30
    assert (spots > 0).sum() > 240


@settings(max_examples=60)
@given(lengths=cuts, wanted=st.integers(8, 100))
def test_spans_do_not_depend_on_chunks(lengths, wanted):
    row = np.random.default_rng(0).integers(0, 256, sum(lengths), dtype=np.uint8)
    spans = Spans(len(row), wanted, 4)
    for piece in np.split(row, np.cumsum(lengths)[:-1]):
        spans.add(piece)
    if len(row) <= wanted:
        assert spans.bytes() == row.tobytes()
    else:
        length = wanted // 4
        starts = np.linspace(0, len(row) - length, 4).astype(int)
        assert spans.bytes() == b"".join(row[start : start + length].tobytes() for start in starts)
