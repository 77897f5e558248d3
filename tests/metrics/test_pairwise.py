"""Figures over samples: mean, spread and the worst ones."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.metrics.pairwise import Tally

NAN = math.nan


def tally_of(samples, *, larger_is_better=True):
    """Samples, each the values of its frames, at the places they have in the list."""
    tally = Tally(larger_is_better=larger_is_better)
    for place, frames in enumerate(samples):
        tally.add(place, f"clip-{place}", frames)
    return tally


def test_samples_count_with_the_mean_over_their_frames():
    found = tally_of([[1.0, 3.0], [10.0], [4.0, 5.0, 6.0]]).spread()
    assert found.mean == pytest.approx((2 + 10 + 5) / 3)
    assert found.samples == 3


def test_the_deviation_is_that_over_samples():
    found = tally_of([[1.0, 3.0], [10.0], [4.0, 5.0, 6.0]]).spread()
    assert found.deviation == pytest.approx(np.std([2, 10, 5]))


def test_one_sample_does_not_deviate():
    assert tally_of([[3.0]]).spread().deviation == 0


def test_the_worst_samples_are_named_with_their_worst_frame():
    found = tally_of([[30.0, 20.0, 40.0], [10.0, 12.0], [50.0]]).spread()
    assert found.worst == [("clip-1", 0, 11.0), ("clip-0", 1, 30.0), ("clip-2", 0, 50.0)]


def test_the_worst_are_the_largest_where_smaller_is_better():
    found = tally_of([[0.3, 0.2, 0.7], [0.1], [0.9, 0.5]], larger_is_better=False).spread()
    assert [(name, frame) for name, frame, _ in found.worst] == [("clip-2", 0), ("clip-0", 2), ("clip-1", 0)]


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_ten_are_listed_worst_first(larger_is_better):
    values = np.random.default_rng(0).permutation(25).tolist()
    found = tally_of([[float(value)] for value in values], larger_is_better=larger_is_better).spread()
    worst = range(10) if larger_is_better else range(24, 14, -1)
    assert [value for _, _, value in found.worst] == list(worst)
    assert [name for name, _, _ in found.worst] == [f"clip-{values.index(value)}" for value in worst]


def test_samples_equally_bad_are_listed_by_their_place():
    tally = Tally(larger_is_better=True)
    for place in (7, 2, 11, 5):
        tally.add(place, f"{place}", [1.0])
    assert [name for name, _, _ in tally.spread().worst] == ["2", "5", "7", "11"]


samples = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3), min_size=1, max_size=14)


@given(samples, st.booleans(), st.randoms(use_true_random=False), st.integers(0, 14))
def test_order_and_processes_make_no_difference(values, larger_is_better, random, cut):
    whole = tally_of(values, larger_is_better=larger_is_better).spread()
    order = list(range(len(values)))
    random.shuffle(order)
    first, second = (Tally(larger_is_better=larger_is_better) for _ in range(2))
    for number, place in enumerate(order):
        (first if number < cut else second).add(place, f"clip-{place}", values[place])
    second.merge(first.rows())
    assert second.spread() == whole


def test_frames_without_a_value_are_left_out():
    found = tally_of([[1.0, NAN, 5.0], [NAN, 7.0]]).spread()
    assert found.mean == 5
    assert [value for _, _, value in found.worst] == [3, 7]


def test_samples_without_a_value_are_left_out():
    found = tally_of([[NAN, NAN], [4.0], [NAN]]).spread()
    assert (found.mean, found.deviation, found.samples) == (4, 0, 1)
    assert found.worst == [("clip-1", 0, 4.0)]


@pytest.mark.parametrize("larger_is_better", [True, False])
@pytest.mark.parametrize(
    "frames",
    [
        [2.0, NAN, 2.0],
        pytest.param(
            [NAN, 2.0],
        ),
    ],
)
def test_a_frame_without_a_value_is_not_the_worst(frames, larger_is_better):
    ((_, frame, _),) = tally_of([frames], larger_is_better=larger_is_better).spread().worst
    assert not math.isnan(frames[frame])


@pytest.mark.parametrize("values", [[], [[NAN], [NAN, NAN]]])
def test_what_is_defined_nowhere_has_no_figures(values):
    found = tally_of(values).spread()
    assert math.isnan(found.mean)
    assert math.isnan(found.deviation)
    assert (found.samples, found.worst) == (0, [])
