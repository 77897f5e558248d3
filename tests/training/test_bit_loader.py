"""Batches of bits: every sample once an epoch, the same after any interruption, split evenly among processes."""

from collections import Counter
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch

from grncli.runtime.errors import RecipeError, StoreError, StoreMismatch
from grncli.runtime.processes import Processes
from grncli.store import Fingerprint, GridView, open_part, open_store
from grncli.training import bit_loader as bits
from grncli.training.bit_loader import BitLoader, combine_stores

SQUARE, WIDE, CLIP = (1, 2, 2), (1, 2, 3), (2, 1, 2)
BLOCK = 3  # samples of SQUARE that are read at once
MANY_WINDOWS = 200  # bytes, which hold two such blocks
ONE_WINDOW = 1e9
BUFFERS = pytest.mark.parametrize("buffer", [ONE_WINDOW, MANY_WINDOWS], ids=["one window", "many windows"])


def make_store(path, counts, *, labels=("ant", "bee"), of_class=lambda row: row % 2, part=0, parts=1, **changes):
    """A store of random bits, so many samples of each grid; opened for reading."""
    made = {
        "rounds": 3,
        "channels": 10,
        "stride": (1, 16, 16),
        "tokenizer": {"name": "toy", "sha256": "3f9c" * 16},
        "preprocessing": {"size": 32},
    }
    fingerprint = Fingerprint(labels=labels, **{**made, **changes})
    generator = np.random.default_rng([part, *map(ord, path.name)])
    with open_part(path, fingerprint, part, parts) as writer:
        for grid, count in counts.items():
            planes = generator.integers(0, 2, (count, *grid, fingerprint.rounds, fingerprint.channels), np.uint8)
            classes = np.array([of_class(row) for row in range(count)], np.int32)
            records = [{"key": f"{grid}#{row}", "source": f"{grid}.png"} for row in range(count)]
            writer.append(grid, np.packbits(planes, axis=-1), classes, records)
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    return open_store(path)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A store of 26 samples of one grid."""
    return make_store(tmp_path_factory.mktemp("one") / "one.zarr", {SQUARE: 26})


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two stores, one of them in two parts, of three grids: 30, 12 and 6 samples."""
    folder = tmp_path_factory.mktemp("several")
    make_store(folder / "a.zarr", {SQUARE: 7, WIDE: 9}, part=0, parts=2)
    parted = make_store(folder / "a.zarr", {SQUARE: 12, CLIP: 6}, part=1, parts=2)
    return parted, make_store(folder / "b.zarr", {SQUARE: 11, WIDE: 3})


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few samples, where they were of about a chunk file."""
    monkeypatch.setattr(bits, "BLOCK_BYTES", 75)


def load(*stores, batch=4, buffer=ONE_WINDOW, **options):
    return BitLoader(combine_stores(stores)[1], batch=batch, buffer=buffer, **options)


def take(loader, count, first=0):
    with closing(loader.batches(first)) as batches:
        return list(islice(batches, count))


def keys_of(batches):
    return [key for batch in batches for key in batch.keys]


def keys_by_grid(batches):
    by_grid = {}
    for key in keys_of(batches):
        by_grid.setdefault(key.split()[-3], []).append(key)
    return by_grid


def named(stores, key):
    """Store, grid and row that a key names."""
    path, grid, _, row = key.rsplit(" ", 3)
    store = next(store for store in stores if str(store.path) == path)
    return store, tuple(map(int, grid.split("x"))), int(row)


def assert_equal_batches(found, expected):
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    for left, right in zip(found, expected, strict=True):
        for part in ("data", "labels", "numbers"):
            assert torch.equal(getattr(left, part), getattr(right, part)), part


# Epochs


@BUFFERS
def test_an_epoch_visits_every_sample_once(one, buffer):
    keys = keys_of(take(load(one, buffer=buffer), 13))
    assert len(set(keys[:26])) == len(set(keys[26:])) == 26


@BUFFERS
def test_an_epoch_visits_every_sample_of_every_store_part_and_grid_once(several, buffer):
    visited = keys_by_grid(take(load(*several, buffer=buffer), 24))
    for grid, count in {"1x2x2": 30, "1x2x3": 12, "2x1x2": 6}.items():
        assert len(set(visited[grid][:count])) == count, grid


def test_a_batch_larger_than_the_store_repeats_it(one):
    assert set(Counter(take(load(one, batch=52), 1)[0].keys).values()) == {2}


@BUFFERS
def test_two_epochs_differ_in_order(one, buffer):
    keys = keys_of(take(load(one, buffer=buffer), 13))
    assert keys[:26] != keys[26:]


@BUFFERS
def test_two_seeds_differ_in_order(one, buffer):
    first, second = (keys_of(take(load(one, buffer=buffer, seed=seed), 6)) for seed in (0, 1))
    assert first != second


@pytest.fixture
def reads(monkeypatch):
    """The rows of each reading from a store."""
    rows = []
    read = bits.GridSamples.read
    monkeypatch.setattr(bits.GridSamples, "read", lambda part, wanted: rows.append(wanted) or read(part, wanted))
    return rows


def test_a_store_larger_than_the_buffer_is_read_in_windows_of_its_size(one, reads):
    list(islice(load(one, buffer=MANY_WINDOWS)._read(0), 13))
    assert len(reads) == 2 * 5
    assert max(map(len, reads)) == 2 * BLOCK


def test_windows_are_made_of_whole_blocks(one, reads):
    list(islice(load(one, buffer=MANY_WINDOWS)._read(0), 13))
    for rows in reads:
        blocks, counts = np.unique(rows // BLOCK, return_counts=True)
        assert counts.tolist() == [min(BLOCK, 26 - BLOCK * block) for block in blocks]


def test_a_store_that_fits_into_the_buffer_is_read_once(one, reads):
    list(islice(load(one)._read(0), 13))
    assert [len(rows) for rows in reads] == [26]


# Grids


def test_a_batch_has_one_grid(several):
    batches = take(load(*several), 24)
    assert all(len(keys_by_grid([batch])) == 1 for batch in batches)


def test_every_grid_has_its_share_of_the_steps(several):
    shares = {"1x2x2": 30 / 48, "1x2x3": 12 / 48, "2x1x2": 6 / 48}
    visited = keys_by_grid(take(load(*several), 203))
    steps = {grid: len(keys) / 4 for grid, keys in visited.items()}
    assert steps == {grid: pytest.approx(203 * share, abs=1) for grid, share in shares.items()}


# Resuming


@BUFFERS
@pytest.mark.parametrize("first", [1, 6, 7, 15])
def test_batches_from_a_step_on_are_those_of_a_run_from_the_start(one, buffer, first):
    whole = take(load(one, buffer=buffer), 20)
    assert_equal_batches(take(load(one, buffer=buffer), 20 - first, first), whole[first:])


@BUFFERS
def test_resuming_keeps_the_turns_of_the_grids(several, buffer):
    whole = take(load(*several, buffer=buffer), 30)
    assert_equal_batches(take(load(*several, buffer=buffer), 13, 17), whole[17:])


def test_numbers_count_the_samples_of_the_run(one):
    numbers = torch.cat([batch.numbers for batch in take(load(one), 3, first=5)])
    assert numbers.tolist() == list(range(20, 32))


# Processes


@BUFFERS
@pytest.mark.parametrize("count", [2, 4])
def test_the_batches_of_all_processes_are_the_whole_batch(several, buffer, count):
    whole = take(load(*several, buffer=buffer), 20)
    shares = [take(load(*several, buffer=buffer, processes=Processes(rank, count)), 20) for rank in range(count)]
    for batch, *parts in zip(whole, *shares, strict=True):
        pairs = [pair for part in parts for pair in zip(part.numbers.tolist(), part.keys, strict=True)]
        assert sorted(pairs) == list(zip(batch.numbers.tolist(), batch.keys, strict=True))


def test_processes_have_equal_shares(one):
    shares = [take(load(one, processes=Processes(rank, 2)), 1)[0] for rank in range(2)]
    assert [len(share.data) for share in shares] == [2, 2]


# Samples


def test_keys_name_store_grid_and_row(one):
    expected = {f"{one.path} 1x2x2 row {row}" for row in range(26)}
    assert set(keys_of(take(load(one), 7))) == expected


@BUFFERS
def test_bits_are_those_of_the_named_rows(several, buffer):
    for batch in take(load(*several, buffer=buffer), 24):
        for key, data in zip(batch.keys, batch.data, strict=True):
            store, grid, row = named(several, key)
            index = store.grid(grid).indices[row]
            assert np.array_equal(data.numpy(), store.read([index])[0]), key


@BUFFERS
def test_labels_are_those_of_the_named_rows(several, buffer):
    for batch in take(load(*several, buffer=buffer), 24):
        for key, label in zip(batch.keys, batch.labels.tolist(), strict=True):
            store, grid, row = named(several, key)
            assert label == store.grid(grid).labels()[row], key


def test_classes_of_several_stores_are_merged_by_name(tmp_path):
    first = make_store(tmp_path / "1.zarr", {SQUARE: 3}, labels=("ant", "bee"), of_class=lambda row: row - 1)
    second = make_store(tmp_path / "2.zarr", {SQUARE: 4}, labels=("cat", "bee"))
    settings, (samples,) = combine_stores([first, second])
    assert settings.labels == ("ant", "bee", "cat")
    assert samples.labels.tolist() == [-1, 0, 1, 2, 1, 2, 1]


def test_samples_of_all_stores_are_counted_by_grid(several):
    assert combine_stores(several)[0].grids == {"1x2x2": 30, "1x2x3": 12, "2x1x2": 6}


def test_a_frame_rate_that_all_stores_share_is_noted(tmp_path):
    stores = [make_store(tmp_path / f"{i}.zarr", {CLIP: 1}, preprocessing={"fps": 8}) for i in range(2)]
    assert combine_stores(stores)[0].fps == 8


def test_frame_rates_that_differ_are_not_noted(tmp_path):
    stores = [make_store(tmp_path / f"{fps}.zarr", {CLIP: 1}, preprocessing={"fps": fps}) for fps in (8, 16)]
    assert combine_stores(stores)[0].fps is None


# Held-out samples


def held_out_keys(loader):
    return keys_of(loader.held_out())


@BUFFERS
def test_held_out_samples_are_never_trained_on(several, buffer):
    loader = load(*several, buffer=buffer, validation=5)
    assert not set(keys_of(take(loader, 60))) & set(held_out_keys(loader))


def test_so_many_samples_of_the_most_frequent_grid_are_held_out(several):
    keys = held_out_keys(load(*several, validation=5))
    assert {key.split()[-3] for key in keys} == {"1x2x2"}
    assert len(set(keys)) == len(keys) == 5


def test_what_is_not_held_out_is_trained_on(one):
    loader = load(one, validation=6)
    trained = keys_of(take(loader, 5))
    assert len(set(trained) | set(held_out_keys(loader))) == loader.epoch_samples + 6 == 26


def test_every_process_holds_out_the_same_samples(one):
    loaders = [load(one, validation=5, processes=Processes(rank, 2)) for rank in range(2)]
    assert held_out_keys(loaders[0]) == held_out_keys(loaders[1])


def test_nothing_is_held_out_unless_asked_for(one):
    assert held_out_keys(load(one)) == []


@pytest.mark.parametrize("validation", [26, 27])
def test_holding_out_every_sample_is_refused(one, validation):
    with pytest.raises(RecipeError, match=f"data.validation is {validation}, expected less than the 26 samples"):
        load(one, validation=validation)


# Refusals


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("tokenizer", {"tokenizer": {"name": "toy", "sha256": "81d0" * 16}}),
        ("rounds", {"rounds": 2}),
        ("channels", {"channels": 12}),
        ("stride", {"stride": (1, 8, 8)}),
    ],
)
def test_a_store_made_otherwise_is_refused_by_the_field(one, tmp_path, field, changes):
    other = make_store(tmp_path / "other.zarr", {SQUARE: 2}, **changes)
    facts = {
        "tokenizer": r"other\.zarr was made by tokenizer toy \(81d081d0.*one\.zarr was made by tokenizer toy \(3f9c3f9c"
    }
    sizes = rf"other\.zarr has {field}=.*one\.zarr {field}="
    with pytest.raises(StoreMismatch, match=facts.get(field, sizes)):
        combine_stores([one, other])


def test_a_renamed_tokenizer_is_the_same_tokenizer(one, tmp_path):
    renamed = make_store(tmp_path / "r.zarr", {SQUARE: 2}, tokenizer={"name": "moved", "sha256": "3f9c" * 16})
    assert combine_stores([one, renamed])[0].grids == {"1x2x2": 28}


def test_stores_without_a_sample_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no sample to train on"):
        combine_stores([make_store(tmp_path / "none.zarr", {})])


def test_a_store_without_a_sample_beside_others_is_ignored(one, tmp_path):
    empty = make_store(tmp_path / "none.zarr", {})
    assert len(set(keys_of(take(load(one, empty), 7)))) == 26


# Stores behind URLs


@BUFFERS
def test_batches_from_a_url_are_those_of_the_local_store(one, buffer, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    batches = take(load(remote(one), buffer=buffer), 20)
    for found, expected in zip(batches, take(load(one, buffer=buffer), 20), strict=True):
        for part in ("data", "labels", "numbers"):
            assert torch.equal(getattr(found, part), getattr(expected, part)), part


def test_the_next_window_of_a_url_is_expected_while_one_is_used(one, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = []
    monkeypatch.setattr(GridView, "expect_rows", lambda view, name, rows: expected.append(sorted(map(int, rows))))
    order = load(remote(one), buffer=MANY_WINDOWS)._orders[0]
    order.read(np.arange(4), np.arange(4))
    read, ahead = expected
    order.read(np.arange(4, 9), np.arange(5))
    assert len(read) == len(ahead) == 2 * BLOCK
    assert expected[2] == ahead != read


def remote(store):
    """The same store, by a URL."""
    from fsspec import filesystem

    place, memory = f"{store.path.parent.name}.zarr", filesystem("memory")
    for path in store.path.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/{place}/{path.relative_to(store.path)}", path.read_bytes())
    return open_store(f"memory://{place}")
