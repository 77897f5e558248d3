"""Statistics of a store's bits, beside plain numpy on the unpacked bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.bit_statistics import survey as module
from grncli.bit_statistics.counting import correlation, count_ones, count_together, spread_picks
from grncli.bit_statistics.distinct import DistinctCounter
from grncli.bit_statistics.survey import bit_statistics
from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished
from grncli.store import Fingerprint, open_part, open_store
from grncli.store.rows import schema

GRID = (1, 3, 4)


def make_store(path, planes, *, parts=1, grid=GRID):
    """A store of 0/1 planes [n, *grid, M, C], its samples dealt out to ``parts`` in order."""
    rounds, channels = planes.shape[-2:]
    fingerprint = Fingerprint(rounds, channels, (1, 4, 4), {"name": "t", "sha256": "0"}, {})
    for part, chosen in enumerate(np.array_split(planes, parts)):
        with open_part(path, fingerprint, part, parts) as writer:
            records = [{"key": f"{part}-{i}", "source": "s"} for i in range(len(chosen))]
            writer.append(grid, np.packbits(chosen, axis=-1), None, records)
            writer.commit(len(chosen), "")
            writer.finish()
    return open_store(path)


def drawn(n=40, rounds=3, channels=10, seed=0, grid=GRID):
    generator = np.random.default_rng(seed)
    shares = generator.uniform(0.2, 0.8, (rounds, channels))
    return (generator.random((n, *grid, rounds, channels)) < shares).astype(np.uint8)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_unpacked_bits(tokens, rounds, channels, seed):
    planes = np.random.default_rng(seed).integers(0, 2, (tokens, rounds, channels), dtype=np.uint8)
    packed = np.packbits(planes, axis=-1)
    assert np.array_equal(count_ones(packed, channels), planes.sum(axis=0))
    of_rounds, of_channels = count_together(packed, channels)
    wide = planes.astype(np.int64)
    assert np.array_equal(of_rounds, np.einsum("nrc,nsc->crs", wide, wide))
    assert np.array_equal(of_channels, np.einsum("nrc,nrd->rcd", wide, wide))


def test_shares_and_correlations_are_numpys(tmp_path):
    planes = drawn()
    found = bit_statistics(make_store(tmp_path / "s", planes))
    flat = planes.reshape(-1, 3, 10)
    assert np.allclose(found.ones, flat.mean(axis=0))
    assert np.allclose(found.between_channels[1], np.corrcoef(flat[:, 1].T))
    assert np.allclose(found.between_rounds[4], np.corrcoef(flat[:, :, 4].T))
    share = flat.mean(axis=0)
    assert np.allclose(found.entropy, -share * np.log2(share) - (1 - share) * np.log2(1 - share))
    assert (found.samples, found.tokens, found.sampled) == (40, 480, 480)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_division_into_parts_and_chunks_changes_nothing(tmp_path, monkeypatch, parts):
    planes = drawn()
    whole = bit_statistics(make_store(tmp_path / "whole", planes)).to_json()
    monkeypatch.setattr(schema, "CHUNK_BYTES", 500)
    divided = bit_statistics(make_store(tmp_path / "divided", planes, parts=parts)).to_json()
    assert {**whole, "store": ""} == {**divided, "store": ""}


def test_stuck_bits_are_named(tmp_path):
    planes = drawn()
    planes[..., 1, 7] = 1
    planes[..., 2, 3] = 0
    found = bit_statistics(make_store(tmp_path / "s", planes))
    assert [str(bit) for bit in found.stuck] == ["round 2 channel 7: always 1", "round 3 channel 3: always 0"]
    assert np.isnan(found.between_channels[1][7]).all()
    assert found.to_json()["correlation"]["between_channels"][1][7][0] is None


def test_a_planted_correlation_is_found(tmp_path):
    planes = drawn()
    planes[..., 0, 2] = planes[..., 0, 5]
    planes[..., 2, 6] = 1 - planes[..., 1, 6]
    found = bit_statistics(make_store(tmp_path / "s", planes))
    assert found.between_channels[0, 2, 5] == pytest.approx(1)
    assert found.between_rounds[6, 1, 2] == pytest.approx(-1)


def test_padding_does_not_count(tmp_path):
    planes = drawn(channels=9)
    store = make_store(tmp_path / "s", planes)
    file = tmp_path / "s/part-00000/1x3x4/bits/c.0.0.0.0.0.0"
    dirty = np.frombuffer(file.read_bytes(), np.uint8).reshape(-1, 2).copy()
    dirty[:, 1] |= 0x7F
    file.write_bytes(dirty.tobytes())
    found = bit_statistics(store)
    assert np.allclose(found.ones, planes.reshape(-1, 3, 9).mean(axis=0))
    assert found.distinct.count == len(np.unique(planes.reshape(-1, 27), axis=0))


def test_distinct_tokens_are_counted_exactly_while_they_fit(tmp_path):
    planes = drawn(rounds=1, channels=6)
    found = bit_statistics(make_store(tmp_path / "s", planes))
    assert found.distinct.exact
    assert found.distinct.count == len(np.unique(planes.reshape(-1, 6), axis=0))


def test_more_distinct_tokens_are_estimated_within_their_error():
    counter, generator = DistinctCounter(kept=1024), np.random.default_rng(0)
    tokens = np.arange(100_000, dtype="<u8").view(np.uint8).reshape(-1, 8)
    for _ in range(2):  # repeats do not count
        for block in np.array_split(generator.permutation(tokens), 7):
            counter.add(block)
    found = counter.result()
    assert not found.exact
    assert abs(found.count / 100_000 - 1) < 4 * found.error


def test_what_a_compressor_saves_is_none_of_noise_and_most_of_repetition(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (50, *GRID, 4, 16), dtype=np.uint8)
    assert max(bit_statistics(make_store(tmp_path / "noise", noise)).saved.values()) < 0.02
    same = np.repeat(noise[:1], 50, axis=0)
    assert min(bit_statistics(make_store(tmp_path / "same", same)).saved.values()) > 0.8


@given(st.integers(1, 50), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_a_subsample_takes_one_of_each_row_however_it_is_cut(step, lengths):
    picked, first = [], 0
    for length in lengths:
        picked += (spread_picks(first, length, step) + first).tolist()
        first += length
    assert picked == spread_picks(0, first, step).tolist()
    assert [place // step for place in picked] == sorted({place // step for place in picked})
    assert len(picked) >= first // step


def test_correlation_with_a_constant_is_not_defined():
    found = correlation(np.array([[4, 2], [2, 2]]), 4)
    assert np.isnan(found).tolist() == [[True, True], [True, False]]


def test_an_empty_store_is_refused(tmp_path):
    with open_part(tmp_path / "s", Fingerprint(1, 8, (1, 4, 4), {"name": "t", "sha256": "0"}, {})) as writer:
        writer.commit(0, "")
        writer.finish()
    with pytest.raises(StoreError, match="holds no samples"):
        bit_statistics(open_store(tmp_path / "s"))


def test_a_stop_ends_between_chunks(tmp_path, monkeypatch):
    class Asked(Stop):
        reason = "SIGTERM"

    monkeypatch.setattr(schema, "CHUNK_BYTES", 500)
    store = make_store(tmp_path / "s", drawn())
    with pytest.raises(Unfinished, match=r"SIGTERM: stopped after \d+ of 40 samples"):
        bit_statistics(store, monitor=Monitor(Asked()))


def test_correlations_of_a_large_store_come_from_a_subsample(tmp_path, monkeypatch):
    planes = drawn(200)
    monkeypatch.setattr(module, "SAMPLE_TOKENS", 500)
    found = bit_statistics(make_store(tmp_path / "s", planes))
    assert 500 <= found.sampled < 1000
    flat = planes.reshape(-1, 3, 10)
    assert np.allclose(found.ones, flat.mean(axis=0))
    assert np.abs(found.between_channels[0] - np.corrcoef(flat[:, 0].T)).max() < 0.25
