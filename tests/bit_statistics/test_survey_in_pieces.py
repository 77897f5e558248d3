"""Statistics of bits where counters could overflow, chunks and grids meet, and work is left behind."""

import time

import numpy as np

from grncli.bit_statistics import survey as module
from grncli.bit_statistics.distinct import DistinctCounter
from grncli.bit_statistics.survey import STUCK_SHARE, bit_statistics
from grncli.store import Fingerprint, open_part, open_store
from grncli.store.rows import schema


def numbers(found):
    return {name: value for name, value in found.to_json().items() if name != "store"}


def test_long_chunks_are_counted_to_the_last_bit(tmp_path, make_store):
    """More than 255 blocks of bytes, and a rest."""
    planes = np.ones((901, 1, 64, 64, 1, 5), np.uint8)
    planes[::2, ..., 3] = 0
    found = bit_statistics(make_store(tmp_path / "s", planes))
    np.testing.assert_array_equal(found.ones, [[1, 1, 1, 450 / 901, 1]])


def test_chunks_make_no_difference_to_a_subsample(tmp_path, monkeypatch, make_store, draw_planes):
    monkeypatch.setattr(module, "SAMPLE_TOKENS", 100)
    monkeypatch.setattr(module, "COMPRESSED_BYTES", 500)
    planes, results = draw_planes(90, 3, 10), []
    for chunk_bytes in (97, 1000, 1 << 20):
        monkeypatch.setattr(schema, "CHUNK_BYTES", chunk_bytes)
        results.append(numbers(bit_statistics(make_store(tmp_path / str(chunk_bytes), planes))))
    assert 100 <= results[0]["correlation"]["tokens"] < 200
    assert results[0] == results[1] == results[2]


def test_grids_count_as_one(tmp_path, make_store, draw_planes):
    samples = [draw_planes(7, 3, 10, grid=grid, seed=i) for i, grid in enumerate([(1, 2, 3), (2, 2, 2)])]
    found = bit_statistics(make_store(tmp_path / "s", *samples))
    tokens = np.concatenate([planes.reshape(-1, 3, 10) for planes in samples])
    np.testing.assert_array_equal(found.ones, tokens.mean(axis=0))
    np.testing.assert_allclose(found.between_channels[2], np.corrcoef(tokens[:, 2], rowvar=False))
    assert (found.tokens, found.distinct.count) == (98, len(np.unique(tokens.reshape(98, -1), axis=0)))


def test_random_padding_does_not_count(tmp_path, make_store, draw_planes):
    """Nor makes tokens differ that are the same."""
    planes = np.concatenate([draw_planes(20, 2, 10)] * 2)
    clean = make_store(tmp_path / "clean", planes)
    dirty = np.packbits(planes, axis=-1)
    dirty[..., -1] |= np.random.default_rng(0).integers(0, 64, dirty.shape[:-1], dtype=np.uint8)
    with open_part(tmp_path / "dirty", Fingerprint(2, 10, (1, 4, 4), {"name": "toy", "sha256": "0"}, {})) as writer:
        writer.append((1, 4, 4), dirty, None, [{"key": str(i), "source": "s"} for i in range(40)])
        writer.commit(1, "")
        writer.finish()
    assert numbers(bit_statistics(open_store(tmp_path / "dirty"))) == numbers(bit_statistics(clean))


def test_nearly_constant_bits_are_stuck_below_one_in_a_thousand(tmp_path, make_store):
    planes = np.random.default_rng(0).integers(0, 2, (250, 1, 4, 4, 1, 9), dtype=np.uint8)  # 4000 tokens
    planes[..., 5:7] = 0
    planes[0, 0, 0, :3, 0, 5] = 1
    planes[0, 0, 0, :4, 0, 6] = 1  # exactly one in a thousand
    found = bit_statistics(make_store(tmp_path / "s", planes))
    assert [str(bit) for bit in found.stuck] == ["round 1 channel 5: 0 in 99.925% of tokens"]
    assert STUCK_SHARE == 0.001


def test_result_waits_for_what_is_counted_behind(tmp_path, monkeypatch, make_store, draw_planes):
    monkeypatch.setattr(schema, "CHUNK_BYTES", 400)
    planes = draw_planes(30, 4, 16)
    expected = len(np.unique(planes.reshape(-1, 64), axis=0))
    real = DistinctCounter.add

    def slow(self, tokens):
        time.sleep(0.02)
        real(self, tokens)

    monkeypatch.setattr(DistinctCounter, "add", slow)
    assert bit_statistics(make_store(tmp_path / "s", planes)).distinct.count == expected


def test_every_byte_of_a_long_token_tells(tmp_path):
    for byte in range(20):
        tokens = np.zeros((200, 20), np.uint8)
        tokens[:, byte] = np.arange(200)
        counter = DistinctCounter()
        counter.add(tokens)
        assert counter.result().count == 200
