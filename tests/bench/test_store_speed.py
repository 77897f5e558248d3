"""Speed of the bit store, beside plain copies on the same machine: pytest -m bench -s tests/bench."""

import os
import time

import numpy as np
import pytest

from grncli.store import Fingerprint, open_part, open_store

pytestmark = pytest.mark.bench

GRID, ROUNDS, CHANNELS = (1, 16, 16), 4, 16
ROW = (*GRID, ROUNDS, 2)  # 2 KiB
ROWS = 1 << 17  # 256 MiB
BATCH = 256
MEGABYTE = 1e6


def fingerprint():
    return Fingerprint(ROUNDS, CHANNELS, (1, 16, 16), {"name": "bench", "sha256": "0"}, {})


@pytest.fixture(scope="module")
def blocks():
    """A few blocks of random records, reused: drawing 256 MiB takes longer than writing them."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (BATCH, *ROW), dtype=np.uint8) for _ in range(16)]


@pytest.fixture(scope="module")
def store(tmp_path_factory, blocks):
    path = tmp_path_factory.mktemp("speed") / "bits.zarr"
    write(path, blocks, commit_every=64)
    return open_store(path)


def write(path, blocks, commit_every):
    with open_part(path, fingerprint()) as writer:
        for number in range(ROWS // BATCH):
            records = [{"key": f"{number}-{i}", "source": "s"} for i in range(BATCH)]
            writer.append(GRID, blocks[number % len(blocks)], None, records)
            if (number + 1) % commit_every == 0:
                writer.commit(number + 1, "")
        writer.commit(ROWS // BATCH, "")
        writer.finish()


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def show(name, seconds, *, rows=ROWS, nbytes=None):
    rate = "" if nbytes else f"{rows / seconds / 1e3:8.0f} k records/s"
    print(f"\n{name:54s} {rate} {(nbytes or rows * 2048) / seconds / MEGABYTE:8.0f} MB/s", end="")


def best(action, times=3):
    return min(timed(action) for _ in range(times))


def test_memory_copy(blocks):
    source = np.concatenate(blocks * 16)
    target = np.empty_like(source)
    show("memory copy", best(lambda: np.copyto(target, source)), nbytes=source.nbytes)


def test_random_records_in_batches(store):
    view = store.grid(GRID)
    shuffled = np.random.default_rng(1).permutation(len(view))

    def read():
        for start in range(0, len(shuffled), 64):
            view.read(shuffled[start : start + 64])

    show("random records, GridView.read of 64", best(read))


def test_random_records_in_batches_of_two_rounds(store):
    view = store.grid(GRID)
    shuffled = np.random.default_rng(1).permutation(len(view))

    def read():
        for start in range(0, len(shuffled), 64):
            view.read(shuffled[start : start + 64], rounds=2)

    show("random records, GridView.read of 64, two rounds", best(read))


def test_random_records_one_by_one(store):
    shuffled = np.random.default_rng(2).permutation(len(store)).tolist()

    def read():
        for index in shuffled:
            store[index]

    show("random records, store[i]", best(read))


def test_whole_chunks(store):
    show("whole chunks", best(lambda: sum(1 for _ in store.grid(GRID).chunks())))


def test_writes(tmp_path, blocks, monkeypatch):
    show("writes, a commit every 32 MiB", timed(lambda: write(tmp_path / "synced", blocks, 64)))
    show("writes, a commit every 2 MiB", timed(lambda: write(tmp_path / "often", blocks, 4)))
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    show("writes, a commit every 32 MiB, no fsync", timed(lambda: write(tmp_path / "unsynced", blocks, 64)))


def test_writes_of_clips(tmp_path, blocks):
    """128 KiB each, where the line of text per record does not weigh."""
    grid = (16, 32, 32)

    def write_clips():
        with open_part(tmp_path / "clips", fingerprint()) as writer:
            for number in range(ROWS // BATCH):
                clips = blocks[number % len(blocks)].reshape(4, *grid, ROUNDS, 2)
                writer.append(grid, clips, None, [{"key": f"{number}-{i}", "source": "s"} for i in range(4)])
                if number % 64 == 63:
                    writer.commit(number + 1, "")
            writer.finish()

    show("writes of clips, a commit every 32 MiB", timed(write_clips))


@pytest.mark.parametrize("synced", [True, False])
def test_file_copy(tmp_path, blocks, synced):
    data = np.concatenate(blocks * 4).data.cast("B")  # 32 MiB

    def copy():
        with (tmp_path / "plain").open("wb") as file:
            for _ in range(ROWS * 2048 // len(data)):
                file.write(data)
                if synced:
                    os.fsync(file.fileno())

    show(f"plain file{', fsync every 32 MiB' if synced else ', no fsync'}", timed(copy))
