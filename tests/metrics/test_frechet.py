"""The Fréchet distance beside its closed forms and other codes, and moments in one pass beside numpy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from grncli.metrics.frechet import Moments, frechet_distance
from grncli.runtime.errors import GrnError


class AsTheyAre(nn.Module):
    """Features are the input."""

    def __init__(self, dimensions):
        super().__init__()
        self.num_features = dimensions

    def forward(self, x):
        return x


def draw(n, dimensions, *, seed=0, offset=0.0):
    """Correlated features, float32."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dimensions, dimensions)) / dimensions**0.5
    return (generator.normal(size=(n, dimensions)) @ mixing + generator.normal(size=dimensions) + offset).astype("f4")


def spd(dimensions, seed):
    root = np.random.default_rng(seed).normal(size=(dimensions, dimensions))
    return root @ root.T / dimensions + 0.01 * np.eye(dimensions)


def orthonormal(dimensions, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dimensions, dimensions)))[0]


def moments_of(*batches):
    moments = Moments(batches[0].shape[1])
    for batch in batches:
        moments.add(batch)
    return moments


def gaussian(features):
    """What fits them, by numpy."""
    wide = features.astype(np.float64)
    return wide.mean(axis=0), np.cov(wide.T)


# Distance


def test_the_distance_in_one_dimension_is_that_of_means_and_deviations():
    found = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[25.0]]))
    assert found == pytest.approx(3**2 + (2 - 5) ** 2)


@pytest.mark.parametrize("turned", [False, True])
def test_the_distance_of_commuting_covariances_is_that_of_their_roots(turned):
    generator = np.random.default_rng(0)
    axes = orthonormal(7) if turned else np.eye(7)
    first, second = generator.uniform(0.1, 9, (2, 7))
    found = frechet_distance(np.zeros(7), axes * first @ axes.T, np.ones(7), axes * second @ axes.T)
    assert found == pytest.approx(7 + np.square(np.sqrt(first) - np.sqrt(second)).sum(), rel=1e-10)


def test_the_distance_to_itself_is_none():
    covariance = spd(20, 0)
    assert frechet_distance(np.ones(20), covariance, np.ones(20), covariance) == pytest.approx(0, abs=1e-10)


def test_a_shift_of_the_mean_counts_with_its_square():
    covariance, mean, shift = spd(20, 0), np.arange(20.0), np.linspace(-1, 2, 20)
    found = frechet_distance(mean, covariance, mean + shift, covariance)
    assert found == pytest.approx(np.square(shift).sum(), rel=1e-10)


def test_the_distance_is_the_same_both_ways():
    first, second = (np.ones(15), spd(15, 1)), (np.zeros(15), spd(15, 2))
    assert frechet_distance(*first, *second) == pytest.approx(frechet_distance(*second, *first), rel=1e-10)


@pytest.mark.parametrize("shared", [0, 2, 5])
def test_covariances_of_low_rank_have_their_closed_form(shared):
    """Of rank 5 in 64 dimensions; some of the axes are common to both, the others orthogonal."""
    axes = orthonormal(64)
    first, second = np.random.default_rng(1).uniform(1, 5, (2, 5))
    ours, theirs = axes[:, :5], axes[:, 5 - shared : 10 - shared]
    found = frechet_distance(np.zeros(64), ours * first @ ours.T, np.zeros(64), theirs * second @ theirs.T)
    common = np.sqrt(first[5 - shared :] * second[:shared]).sum()
    assert found == pytest.approx(first.sum() + second.sum() - 2 * common, abs=1e-5)


def test_two_points_have_the_distance_of_their_squares():
    nothing = np.zeros((3, 3))
    assert frechet_distance(np.zeros(3), nothing, np.array([1.0, 2, 2]), nothing) == 9


def test_fewer_samples_than_dimensions_shrunk_have_their_closed_form():
    features = draw(20, 64).astype(np.float64)
    mean, covariance = gaussian(features)
    found = frechet_distance(mean, covariance, *gaussian(0.25 * features))
    assert found == pytest.approx(0.75**2 * (mean @ mean + np.trace(covariance)), rel=1e-6)


@pytest.mark.parametrize(("n", "dimensions"), [(20, 64), (50, 300)])
def test_fewer_samples_than_dimensions_have_next_to_no_distance_to_themselves(n, dimensions):
    mean, covariance = gaussian(draw(n, dimensions))
    assert abs(frechet_distance(mean, covariance, mean, covariance)) < 1e-6 * np.trace(covariance)


def test_a_distance_is_not_negative():
    mean, covariance = gaussian(draw(50, 300))
    assert frechet_distance(mean, covariance, mean, covariance) >= 0


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_that_of_the_matrix_root(seed):
    linalg = pytest.importorskip("scipy.linalg")
    first, second = spd(24, 2 * seed), spd(24, 2 * seed + 1)
    mean = np.random.default_rng(seed).normal(size=24)
    expected = mean @ mean + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    assert frechet_distance(mean, first, np.zeros(24), second) == pytest.approx(expected, rel=1e-8)


def test_the_distance_of_samples_is_that_of_torchmetrics():
    ours, theirs = draw(300, 16, seed=1), draw(200, 16, seed=2)
    metric = FrechetInceptionDistance(feature=AsTheyAre(16))
    metric.update(torch.from_numpy(theirs), real=True)
    metric.update(torch.from_numpy(ours), real=False)
    found = [moments_of(features) for features in (ours, theirs)]
    distance = frechet_distance(found[0].mean, found[0].covariance, found[1].mean, found[1].covariance)
    assert distance == pytest.approx(float(metric.compute()), rel=1e-5)


def test_features_of_other_lengths_have_no_distance():
    with pytest.raises(ValueError, match="features of 2 and 3 dimensions"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))


# Moments


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_are_numpys_however_far_from_zero(offset):
    features = draw(500, 12, offset=offset)
    mean, covariance = gaussian(features)
    found = moments_of(*np.array_split(features, 7))
    assert np.allclose(found.mean, mean, rtol=1e-12, atol=1e-10)
    assert np.allclose(found.covariance, covariance, rtol=0, atol=1e-10)


@settings(max_examples=30)
@given(st.data())
def test_moments_do_not_depend_on_batches_processes_and_their_order(data):
    features = draw(40, 3, offset=100, seed=data.draw(st.integers(0, 99)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 40), max_size=6)))
    processes = [Moments(3) for _ in range(3)]
    for batch in np.split(features, cuts):
        processes[data.draw(st.integers(0, 2))].add(batch)
    together = Moments(3)
    for i in data.draw(st.permutations(range(3))):
        together.merge(processes[i].state())
    mean, covariance = gaussian(features)
    assert together.count == 40
    assert np.allclose(together.mean, mean, rtol=1e-12)
    assert np.allclose(together.covariance, covariance, rtol=0, atol=1e-10)


def test_merging_one_that_counted_nothing_changes_nothing():
    found = moments_of(draw(10, 3))
    before = found.state()
    found.merge(Moments(3).state())
    assert np.array_equal(found.state(), before)


def test_one_that_counted_nothing_takes_over_another():
    other, empty = moments_of(draw(10, 3)), Moments(3)
    empty.merge(other.state())
    assert np.array_equal(empty.state(), other.state())


def test_more_can_be_counted_after_merging():
    features = draw(30, 3)
    found = moments_of(features[:10])
    found.merge(moments_of(features[10:20]).state())
    found.add(features[20:])
    assert np.allclose(found.covariance, gaussian(features)[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_and_not_counted(value):
    found = moments_of(draw(10, 3))
    before = found.state()
    damaged = draw(5, 3)
    damaged[3, 1] = value
    with pytest.raises(GrnError, match="not finite"):
        found.add(damaged)
    assert np.array_equal(found.state(), before)


def test_counting_leaves_the_features_as_they_are():
    features = draw(10, 3).astype(np.float64)
    before = features.copy()
    moments_of(features)
    assert np.array_equal(features, before)
