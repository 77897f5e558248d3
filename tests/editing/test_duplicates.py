"""Duplicates are found by their bits, and near ones by the share of coarse bits in which they differ."""

from itertools import combinations

import numpy as np
import pytest
from small_stores import GRIDS, fingerprint, random_bits

from grncli import dedupe_store, drop_samples, open_store
from grncli.editing import near_duplicates
from grncli.runtime.errors import UsageError
from grncli.store import open_part

ROUNDS, CHANNELS = 3, 10


@pytest.fixture
def similar(tmp_path, small_chunks):
    """Twelve samples of each of two grids: of every four, three that differ from one in a few bits."""
    path, generator = tmp_path / "similar.zarr", np.random.default_rng(1)
    with open_part(path, fingerprint()) as writer:
        for place, grid in enumerate(GRIDS[:2]):
            planes = np.unpackbits(random_bits(12, grid, seed=place), axis=-1, count=CHANNELS)
            planes = planes[np.arange(12) // 4 * 4]
            changed = generator.random(planes.shape) < np.array([0, 0, 0.04, 0.1] * 3)[:, None, None, None, None, None]
            bits = np.packbits(planes ^ changed, axis=-1)
            lines = [{"key": f"{place}.{i}", "source": f"{place}.{i // 8}.{i % 3}"} for i in range(12)]
            writer.append(grid, bits, np.arange(12) % 2, lines)
        writer.commit(1, "")
        writer.finish()
    return path


def pairs_by_hand(path, percent, rounds):
    store, found = open_store(path), []
    for grid in store.grids:
        numbers = store.grid(grid).indices.tolist()
        bits = np.unpackbits(store.read(numbers)[..., :rounds, :], axis=-1, count=CHANNELS).reshape(len(numbers), -1)
        for one, other in combinations(range(len(numbers)), 2):
            distance = (bits[one] != bits[other]).mean()
            lines = [store.record(numbers[i]) for i in (one, other)]
            if distance <= percent / 100 and lines[0]["source"] != lines[1]["source"]:
                found.append((distance, lines[0]["key"], lines[1]["key"]))
    return sorted(found)


@pytest.mark.parametrize(("percent", "rounds"), [(0, 1), (5, 1), (12, 2), (25, 3)])
@pytest.mark.parametrize(("compared", "block"), [(2048, 2048), (40, 5)])
def test_near_pairs_are_those_of_a_comparison_by_hand(similar, monkeypatch, percent, rounds, compared, block):
    monkeypatch.setattr(near_duplicates, "COMPARED_BITS", compared)
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    summary = dedupe_store(similar, near=percent, rounds=rounds)
    expected = pairs_by_hand(similar, percent, rounds)
    assert sorted((each.first.key, each.second.key) for each in summary.pairs) == sorted(pair[1:] for pair in expected)
    np.testing.assert_allclose([each.distance for each in summary.pairs], [pair[0] for pair in expected], atol=1e-6)
    assert summary.count == len(expected) > 0


def test_groups_have_all_samples_of_the_same_bits_in_their_order(similar):
    summary = dedupe_store(similar)
    groups = [[each.key for each in group] for group in summary.groups]
    assert [group[:2] for group in groups] == [[f"{grid}.{i}", f"{grid}.{i + 1}"] for grid in (0, 1) for i in (0, 4, 8)]
    assert summary.duplicates == sum(map(len, groups)) - len(groups)


def test_what_was_dropped_is_no_duplicate(similar):
    summary = dedupe_store(similar, drop=True)
    assert summary.dropped == summary.duplicates == 24 - len(open_store(similar))
    assert dedupe_store(similar).duplicates == 0
    drop_samples(similar, keys=["0.0"])
    assert dedupe_store(similar, near=0).count == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"near": 60}, "--near 60: expected 0 to 25"),
        ({"near": 5, "rounds": 4}, "holds 3 rounds"),
        ({"near": 5, "drop": True}, "only reports"),
        ({"rounds": 2}, "is for --near"),
        ({"by": "name"}, "--by name"),
    ],
)
def test_options_that_do_not_fit_are_refused(similar, options, words):
    with pytest.raises(UsageError, match=words):
        dedupe_store(similar, **options)


def test_the_pairs_of_all_samples_are_counted_once(similar, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", 4)
    told = []
    dedupe_store(similar, near=10, progress=lambda done, total, note: told.append((done, total)))
    pairs = sum(count * (count - 1) // 2 for count in open_store(similar).grids.values())
    assert told[-1] == (pairs, pairs)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
