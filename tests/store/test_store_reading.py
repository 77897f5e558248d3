"""What was committed is what is read, through every door of the reader."""

import json
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_stores import GRIDS, fingerprint, random_bits, records, run

from grncli.runtime.errors import StoreError
from grncli.store import open_part, open_store, verify_store
from grncli.store.rows import schema

batches = st.lists(
    st.tuples(st.sampled_from(GRIDS), st.integers(0, 7), st.sampled_from(["", "commit", "reopen"])), max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(batches, min_size=1, max_size=3),
    rounds=st.integers(1, 4),
    channels=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_committed_samples_are_read_back_in_order(tmp_path_factory, small_chunks, parts, rounds, channels, seed):
    path = tmp_path_factory.mktemp("round-trip") / "store"
    settings_ = fingerprint(rounds=rounds, channels=channels, labels=())
    expected = []
    for part, given_batches in enumerate(parts):
        expected += write_part(path, settings_, part, len(parts), given_batches, seed)
    check(open_store(path), expected, rounds)
    assert verify_store(path) == []


def write_part(path, settings_, part, parts, given_batches, seed):
    """Samples as (grid, bits, label, key) in the order of the store."""
    written = {}
    writer = open_part(path, settings_, part, parts)
    for number, (grid, n, after) in enumerate(given_batches):
        bits = random_bits(n, grid, settings_.rounds, settings_.channels, seed + number)
        labels = np.arange(n) + number
        lines = records(n, f"{part}/{number}")
        writer.append(grid, bits, labels, lines)
        written.setdefault(grid, []).extend(zip(bits, labels, lines, strict=True))
        if after:
            writer.commit(number + 1, str(number))
        if after == "reopen":
            writer.finish()
            writer.close()
            writer = open_part(path, settings_, part, parts)
    writer.commit(len(given_batches), "")
    writer.finish()
    writer.close()
    return [(grid, *sample) for grid in sorted(written) for sample in written[grid]]


def check(store, expected, rounds):
    assert store.complete
    assert len(store) == len(expected)
    assert [line["key"] for line in store.records()] == [line["key"] for *_, line in expected]
    for index, (grid, bits, label, line) in enumerate(expected):
        sample = store[index]
        assert (sample.index, sample.grid, sample.label) == (index, grid, label)
        np.testing.assert_array_equal(sample.bits, bits)
        assert store.record(index)["key"] == line["key"]
    for grid, n in store.grids.items():
        view = store.grid(grid)
        all_bits = np.stack([bits for at, bits, *_ in expected if at == grid])
        assert len(view) == n == len(all_bits)
        order = np.random.default_rng(0).integers(0, n, 2 * n)
        for m in range(1, rounds + 1):
            np.testing.assert_array_equal(view.read(order, rounds=m), all_bits[order][..., :m, :])
        np.testing.assert_array_equal(store.read(view.indices[order]), all_bits[order])
        np.testing.assert_array_equal(view.read(range(n)), all_bits)
        np.testing.assert_array_equal(view.labels(), [label for at, _, label, _ in expected if at == grid])
        starts, chunks = zip(*view.chunks(), strict=True)
        np.testing.assert_array_equal(np.concatenate(chunks), all_bits)
        assert list(starts) == np.cumsum([0, *map(len, chunks)])[:-1].tolist()


@pytest.fixture
def store(tmp_path, small_chunks):
    for part in range(2):
        run(tmp_path / "store", part=part, parts=2)
    return open_store(tmp_path / "store")


def test_summary_tells_what_each_part_holds(store):
    assert store.complete
    assert [(p.part, p.samples, p.position, p.sources, p.failed, p.complete) for p in store.parts] == [
        (part, 14, 9, 9, 2, True) for part in range(2)
    ]
    assert store.grids == {(1, 1, 5): 12, (1, 2, 3): 4, (2, 2, 2): 12}
    assert store.nbytes == sum(n * np.prod(grid) * 3 * 2 for grid, n in store.grids.items())
    assert (store.rounds, store.channels, store.stride, store.labels) == (3, 10, (1, 16, 16), ("ant", "bee"))
    assert len(list(store.failures())) == 4


def test_columns_follow_the_rows(store):
    view = store.grid((2, 2, 2))
    sources = [int(store.record(int(i))["source"].removesuffix(".png")) for i in view.indices]
    np.testing.assert_array_equal(view.column("seed"), sources)
    np.testing.assert_array_equal(view.column("entropy"), np.float32(np.array(sources) / 3))
    assert store.columns == {"seed": "int64", "entropy": "float32"}
    with pytest.raises(StoreError, match="label, seed, entropy"):
        view.column("steps")


def test_negative_and_outside_numbers_behave_like_a_sequence(store):
    np.testing.assert_array_equal(store[-1].bits, store[len(store) - 1].bits)
    assert store[-1].index == len(store) - 1
    for read in (lambda: store[len(store)], lambda: store.record(-99), lambda: store.grid((2, 2, 2)).read([12])):
        with pytest.raises(IndexError):
            read()


@pytest.mark.parametrize(
    "chosen", [slice(3, 9), slice(None), slice(-2, None), slice(20, 2, -3), slice(5, 5), slice(99)]
)
def test_a_slice_reads_what_its_numbers_would_across_parts_and_grids(store, chosen):
    samples, numbers = store[chosen], range(len(store))[chosen]
    assert [(each.index, each.grid, each.label) for each in samples] == [
        (number, store[number].grid, store[number].label) for number in numbers
    ]
    for each in samples:
        np.testing.assert_array_equal(each.bits, store[each.index].bits)
        each.bits[:] = 255
    assert all(store[number].bits.min() < 255 for number in numbers)


def test_read_refuses_several_grids_wrong_rounds_and_unknown_grids(store):
    with pytest.raises(ValueError, match="1x1x5, 1x2x3"):
        store.read([0, 6])
    with pytest.raises(ValueError, match="1 to 3"):
        store.grid((2, 2, 2)).read([0], rounds=4)
    with pytest.raises(StoreError, match="it has 1x1x5, 1x2x3, 2x2x2"):
        store.grid((9, 9, 9))
    assert store.grid((2, 2, 2)).read([]).shape == (0, 2, 2, 2, 3, 2)


def test_bits_read_belong_to_the_caller(store):
    store[0].bits[:] = 255
    store.grid((1, 1, 5)).labels()[:] = 7
    assert store[0].bits.min() < 255
    assert store.grid((1, 1, 5)).labels().max() < 7


def test_store_stays_readable_with_few_file_descriptors(tmp_path, small_chunks):
    with open_part(tmp_path / "store", fingerprint()) as writer:
        bits = random_bits(300, (1, 2, 3))
        writer.append((1, 2, 3), bits, None, records(300, "a"))
        writer.commit(1, "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * open_now + 16, hard))
    try:
        store = open_store(tmp_path / "store")
        with ThreadPoolExecutor(4) as pool:
            rows = np.random.default_rng(0).permutation(300)
            for row, sample in zip(rows, pool.map(lambda i: store[i], rows), strict=True):
                np.testing.assert_array_equal(sample.bits, bits[row])
        held = len(os.listdir("/proc/self/fd")) - open_now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert held <= open_now + 8 + 1


def test_the_digest_is_that_of_what_was_committed_at_opening(tmp_path):
    run(tmp_path / "bits.zarr", sources=4)
    opened, same = (open_store(tmp_path / "bits.zarr") for _ in range(2))
    run(tmp_path / "bits.zarr", sources=6)
    assert opened.digest() == same.digest() != open_store(tmp_path / "bits.zarr").digest()


def test_pickle_holds_the_snapshot_and_little_else(store):
    store.record(0)
    store.grid((2, 2, 2)).labels()
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 12_000
    for index in range(len(store)):
        np.testing.assert_array_equal(copy[index].bits, store[index].bits)
    np.testing.assert_array_equal(copy.grid((2, 2, 2)).labels(), store.grid((2, 2, 2)).labels())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_the_same(store, method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        samples = pool.map(store.__getitem__, range(3))
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.bits, store[index].bits)


def test_store_is_read_while_another_process_writes_it(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from grncli.store.rows import schema; schema.CHUNK_BYTES = 100\n"
        "from small_stores import run\n"
        "run(sys.argv[1], sources=150, after_commit=lambda: print(flush=True))\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", code, tmp_path / "store", *folders]
    previous, seen = None, []
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        patch.setattr(schema, "CHUNK_BYTES", 100)
        process.stdout.readline()
        while process.poll() is None:
            store = open_store(tmp_path / "store")
            seen.append(len(store))
            assert [line["row"] for line in store.records()] == [row for n in store.grids.values() for row in range(n)]
            for grid in store.grids:
                rows = store.grid(grid).read(range(store.grids[grid]))
                if previous is not None and grid in previous.grids:
                    before = previous.grid(grid).read(range(previous.grids[grid]))
                    np.testing.assert_array_equal(before, rows[: len(before)])
            problems = verify_store(tmp_path / "store")
            # Between the last record and the marker, a check may come just in time to miss it.
            assert [problem for problem in problems if "COMPLETE is missing" not in problem] == []
            previous = store
        assert process.returncode == 0
        assert seen == sorted(seen)
        assert seen[0] < seen[-1]
        assert open_store(tmp_path / "store").complete


def test_importing_the_store_loads_neither_torch_nor_zarr():
    code = "import sys, grncli.store; print([m for m in ('torch', 'zarr', 'xarray') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "[]\n"


def test_names_that_are_not_unicode_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x9c.png")
    with open_part(tmp_path / "store", fingerprint()) as writer:
        writer.append((1, 1, 1), random_bits(1, (1, 1, 1)), [1], [{"key": "k", "source": name, "row": 99}])
        writer.fail(name, 0, "broken")
        writer.commit(1, "")
    store = open_store(tmp_path / "store")
    assert store.record(0) == {"grid": "1x1x1", "row": 0, "key": "k", "source": name}
    assert next(store.failures())["source"] == name
    for line in (tmp_path / "store/part-00000/samples.jsonl").read_bytes().splitlines():
        json.loads(line.decode("utf-8"))
