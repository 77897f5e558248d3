"""KID, precision and recall, the Inception Score and the file of features, each beside plain numpy or other codes."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from grncli.metrics import distributions
from grncli.metrics.distributions import ClassScores, kid, precision, recall
from grncli.metrics.feature_files import ROWS, FeatureFile

quiet = pytest.mark.filterwarnings("ignore:Metric `.*` will save all:UserWarning")


def kept(features):
    file = FeatureFile(features.shape[1])
    for place, vector in enumerate(features.astype(np.float32)):
        file.put(np.array([place]), vector[None])
    return file


def normal(n, dimensions, *, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, dimensions)).astype(np.float32) + np.float32(shift)


# Kernel distance


@quiet
def test_kid_of_all_pictures_is_that_of_torchmetrics():
    ours, theirs = normal(60, 16), normal(60, 16, seed=1, shift=0.3)
    metric = KernelInceptionDistance(feature=nn.Identity(), subsets=2, subset_size=60)
    metric.update(torch.from_numpy(theirs).double(), real=True)
    metric.update(torch.from_numpy(ours).double(), real=False)
    mean, deviation, size = kid(kept(ours), kept(theirs))
    assert mean == pytest.approx(float(metric.compute()[0]), rel=1e-10)
    assert deviation == pytest.approx(0, abs=1e-10)
    assert size == 60


def test_kid_takes_as_many_as_the_smaller_set_has():
    ours, theirs = normal(30, 4), normal(12, 4, seed=1)
    assert kid(kept(ours), kept(theirs))[2] == 12
    assert kid(kept(theirs), kept(ours))[2] == 12


def test_kid_takes_subsets_of_a_thousand_at_most(monkeypatch):
    monkeypatch.setattr(distributions, "KID_SUBSETS", 1)
    assert kid(kept(normal(1100, 2)), kept(normal(1200, 2)))[2] == 1000


def test_kid_over_subsets_spreads_around_that_of_all(monkeypatch):
    monkeypatch.setattr(distributions, "KID_SUBSET", 50)
    ours, theirs = normal(400, 8), normal(400, 8, seed=1, shift=0.5)
    mean, deviation, _ = kid(kept(ours), kept(theirs))
    of_all = float(poly_mmd(torch.from_numpy(theirs).double(), torch.from_numpy(ours).double()))
    assert deviation > 0
    assert abs(mean - of_all) < 4 * deviation / math.sqrt(distributions.KID_SUBSETS)


@pytest.fixture
def small_subsets(monkeypatch):
    monkeypatch.setattr(distributions, "KID_SUBSETS", 5)
    monkeypatch.setattr(distributions, "KID_SUBSET", 20)


def test_a_seed_decides_about_the_subsets(small_subsets):
    ours, theirs = kept(normal(50, 4)), kept(normal(60, 4, seed=1))
    first = kid(ours, theirs, seed=3)
    assert kid(ours, theirs, seed=3) == first
    assert kid(ours, theirs, seed=4) != first


def test_the_order_in_which_pictures_came_does_not_change_kid(small_subsets):
    features, theirs = normal(50, 4), kept(normal(60, 4, seed=1))
    shuffled = FeatureFile(4)
    for place in np.random.default_rng(0).permutation(50).tolist():
        shuffled.put(np.array([place]), features[place][None])
    assert kid(shuffled, theirs) == kid(kept(features), theirs)


def test_kid_of_one_picture_is_not_defined():
    mean, deviation, size = kid(kept(normal(1, 4)), kept(normal(5, 4)))
    assert math.isnan(mean)
    assert math.isnan(deviation)
    assert size == 1


# Precision and recall


def by_brute_force(points, manifold, k=3):
    """With exact squared distances of whole numbers."""

    def squares(a, b):
        a, b = a.astype(np.int64), b.astype(np.int64)
        return np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T

    radii = np.sort(squares(manifold, manifold), axis=1)[:, k]  # the first is the distance to itself
    return (squares(points, manifold) <= radii).any(axis=1).mean()


def whole_numbers(n, dimensions=4, *, seed=0, spread=10):
    return np.random.default_rng(seed).integers(-spread, spread + 1, (n, dimensions)).astype(np.float32)


def test_precision_is_that_of_the_definition_worked_by_hand():
    """With three neighbours, 0 reaches 3 far, 1 and 2 reach 2, 3 reaches 3 and 10 reaches 9; the ends count."""
    manifold = np.array([[0], [1], [2], [3], [10]])
    points = np.array([[-3], [-3.5], [19], [19.5]])
    assert precision(kept(points), kept(manifold)) == 0.5


def test_precision_and_recall_are_those_of_brute_force_over_several_blocks():
    ours, theirs = whole_numbers(ROWS + 60, spread=12), whole_numbers(ROWS + 10, seed=1)
    covered, reached = by_brute_force(ours, theirs), by_brute_force(theirs, ours)
    assert 0.05 < covered < reached < 1
    assert precision(kept(ours), kept(theirs)) == covered
    assert recall(kept(ours), kept(theirs)) == reached


@pytest.mark.parametrize("neighbours", [1, 5])
def test_the_number_of_neighbours_may_be_chosen(neighbours):
    ours, theirs = whole_numbers(90), whole_numbers(80, seed=1)
    found = precision(kept(ours), kept(theirs), neighbours)
    assert found == by_brute_force(ours, theirs, neighbours) != by_brute_force(ours, theirs)


def test_a_set_lies_within_itself():
    features = normal(100, 8)
    assert precision(kept(features), kept(features)) == 1


def test_sets_far_apart_share_nothing():
    assert precision(kept(normal(50, 8)), kept(normal(60, 8, shift=100))) == 0


def test_repeated_pictures_have_balls_without_extent():
    """Four of the same: the third neighbour is at no distance, and so only the same again is within."""
    manifold = np.repeat(whole_numbers(3, seed=1), 4, axis=0)
    points = np.concatenate([manifold[::4], manifold[::4] + np.float32(0.25)])
    assert precision(kept(points), kept(manifold)) == 0.5


def test_features_far_from_zero_have_the_same_precision():
    ours, theirs = whole_numbers(300, 16, spread=9), whole_numbers(300, 16, seed=1, spread=7)
    expected = precision(kept(ours), kept(theirs))
    assert 0 < expected < 1
    assert precision(kept(ours + 10_000), kept(theirs + 10_000)) == expected  # exact in float32


@pytest.mark.parametrize(("points", "manifold"), [(0, 10), (10, 0), (10, 3)])
def test_too_few_pictures_have_no_precision(points, manifold):
    assert math.isnan(precision(kept(normal(points, 2)), kept(normal(manifold, 2))))


def test_one_picture_more_than_neighbours_is_enough():
    assert precision(kept(normal(10, 2)), kept(normal(4, 2))) >= 0


# Inception Score


def odds_of(n, classes, *, seed=0):
    logits = torch.from_numpy(2 * normal(n, classes, seed=seed)).double()
    return logits, logits.softmax(dim=1).numpy()


def scores_of(odds, splits=10):
    scores = ClassScores(odds.shape[1], splits)
    for place, row in enumerate(odds):
        scores.add(np.array([place]), row[None])
    return scores


def split_of(place):
    """Where a lone picture went."""
    alone = ClassScores(2)
    alone.add(np.array([place]), np.array([0.5, 0.5])[None])
    return int(alone.state()[:10].argmax())


@quiet
@pytest.mark.filterwarnings("ignore:std:UserWarning")  # theirs of one split
def test_the_score_of_one_split_is_that_of_torchmetrics():
    logits, odds = odds_of(70, 6)
    metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(logits)
    found = scores_of(odds, splits=1).score()
    assert found == (pytest.approx(float(metric.compute()[0]), rel=1e-10), 0, 1)


def test_the_score_of_splits_is_that_of_the_definition():
    _, odds = odds_of(200, 6)
    split = np.array([split_of(place) for place in range(200)])
    each = []
    for s in range(10):
        p = odds[split == s]
        each.append(np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean()))
    found = scores_of(odds).score()
    assert found == (pytest.approx(np.mean(each), rel=1e-10), pytest.approx(np.std(each), rel=1e-8), 10)


def test_sure_and_varied_pictures_score_the_number_of_classes():
    assert scores_of(np.tile(np.eye(4), (100, 1)), splits=1).score()[0] == pytest.approx(4)


def test_pictures_all_alike_score_one():
    assert scores_of(np.tile([0.7, 0.2, 0.1], (50, 1))).score()[:2] == (pytest.approx(1), pytest.approx(0, abs=1e-9))


def test_splits_without_pictures_do_not_count():
    found = scores_of(odds_of(3, 5)[1]).score()
    assert found == (pytest.approx(1), pytest.approx(0, abs=1e-9), 3)


def test_no_pictures_have_no_score():
    mean, deviation, splits = ClassScores(5).score()
    assert math.isnan(mean)
    assert math.isnan(deviation)
    assert splits == 0


def test_splits_are_even():
    counts = np.bincount([split_of(place) for place in range(1000)], minlength=10)
    assert counts.min() > 65  # three standard deviations of a draw below 100
    assert counts.max() < 135


def test_splits_of_ten_alternating_classes_hold_as_many_of_each():
    split = np.array([split_of(place) for place in range(3000)])
    for of_class in range(10):
        counts = np.bincount(split[of_class::10], minlength=10)
        assert counts.min() > 10  # of 30 on average
        assert counts.max() < 55


def shuffled_score(labels, classes):
    """The score of sure pictures in splits drawn at random, as other codes take them."""
    shuffled = np.random.default_rng(0).permutation(labels)
    shares = [np.bincount(part, minlength=classes) / len(part) for part in np.split(shuffled, 10)]
    return np.mean([np.exp(-(p * np.log(p.clip(min=1e-300))).sum()) for p in shares])


@pytest.mark.parametrize(
    ("classes", "each"),
    [
        (10, 200),
        (16, 100),
        (101, 30),
        *(
            pytest.param(
                classes,
                each,
            )
            for classes, each in ((55, 80), (89, 40), (144, 30), (1000, 10))
        ),
    ],
)
def test_alternating_classes_score_no_less_than_shuffled_ones(classes, each):
    labels = np.tile(np.arange(classes), each)
    scores, sure = ClassScores(classes), np.eye(classes)
    for place, label in enumerate(labels.tolist()):
        scores.add(np.array([place]), sure[label][None])
    assert scores.score()[0] > 0.97 * shuffled_score(labels, classes)


def test_scores_go_on_from_their_state():
    _, odds = odds_of(60, 5)
    half, taken = scores_of(odds[:30]), ClassScores(5)
    taken.restore(half.state())
    for place in range(30, 60):
        taken.add(np.array([place]), odds[place][None])
    assert taken.score() == scores_of(odds).score()
    assert np.array_equal(half.state(), scores_of(odds[:30]).state())


def test_states_of_processes_add_up():
    _, odds = odds_of(60, 5)
    parts = [ClassScores(5) for _ in range(3)]
    for place, row in enumerate(odds):
        parts[place % 3].add(np.array([place]), row[None])
    together = ClassScores(5)
    together.restore(np.sum([part.state() for part in parts], axis=0))
    assert together.score() == pytest.approx(scores_of(odds).score(), rel=1e-12)


# The file of features


@settings(max_examples=40)
@given(st.lists(st.integers(0, 15), max_size=25), st.integers(1, 9))
def test_features_come_in_the_order_of_places_and_those_of_one_place_as_they_came(places, size):
    file = FeatureFile(2)
    for number, place in enumerate(places):
        file.put(np.array([place]), np.array([place, number], np.float32)[None])
    expected = sorted([place, number] for number, place in enumerate(places))
    blocks = list(file.blocks(size))
    assert [row for block in blocks for row in block.tolist()] == expected
    assert all(len(block) == size for block in blocks[:-1])
    assert len(file) == len(places)


def test_features_may_be_put_after_some_were_read():
    file = FeatureFile(1)
    for place in (4, 2):
        file.put(np.array([place]), np.array([place], np.float32)[None])
    assert file.read([0, 1]).tolist() == [[2], [4]]
    file.put(np.array([3]), np.array([3], np.float32)[None])
    assert file.read(np.arange(3)).tolist() == [[2], [3], [4]]


@pytest.mark.parametrize("rows", [[], [3], [7, 0, 7], [4, 5, 6], [9, 8]])
def test_rows_come_as_they_are_asked_for(rows):
    features = normal(10, 3)
    assert np.array_equal(kept(features).read(np.array(rows, int)), features[np.array(rows, int)])


def test_what_was_read_may_be_written_to():
    file = kept(normal(5, 3))
    before = file.read(np.arange(5))
    for rows in (np.arange(5), [3, 1]):
        file.read(rows)[:] = 7
    assert np.array_equal(file.read(np.arange(5)), before)


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_many_features_do_not_fill_the_memory(order):
    n, dimensions = 20_000, 512  # 41 MB
    places = range(n) if order == "forward" else range(n - 1, -1, -1)
    vector = np.ones(dimensions, np.float32)
    tracemalloc.start()
    try:
        file = FeatureFile(dimensions)
        for place in places:
            file.put(np.array([place]), vector[None])
        rows = sum(len(block) for block in file.blocks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == n
    assert peak < 25e6
