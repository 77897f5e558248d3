"""The reader takes a store's bytes from any source: one that is no folder is read, refused and verified the same."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_stores import run, tree

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Unfinished
from grncli.store import BitStore, open_store, verify_store
from grncli.store.bits import BitSchema
from grncli.store.rows.remote_files import InMemory
from grncli.store.rows.verifying import verify_rows


@dataclass
class Memory:
    """A store as a remote one is seen: whole names, no folders."""

    files: dict[str, bytes]
    is_remote = False

    def where(self, name):
        return f"memory://{name}"

    def open(self, name, committed=None):
        if name not in self.files:
            raise FileNotFoundError(name)
        return InMemory(self.files[name])

    def stream(self, name, committed=None):
        return io.BytesIO(self.open(name).data)

    def size(self, name):
        return len(self.files[name]) if name in self.files else None

    def expect(self, wanted, *, streamed=False):
        pass

    def list(self, folder):
        below = f"{folder}/" if folder else ""
        return sorted({name.removeprefix(below).split("/")[0] for name in self.files if name.startswith(below)})


@pytest.fixture
def path(tmp_path, small_chunks):
    for part in range(2):
        run(tmp_path / "store", part=part, parts=2)
    return tmp_path / "store"


@pytest.fixture
def memory(path):
    return Memory({name: data for name, data in tree(path).items() if data is not None})


def test_a_store_elsewhere_reads_as_the_local_one(path, memory):
    local = open_store(path)
    store = pickle.loads(pickle.dumps(BitStore(Path("elsewhere"), memory)))
    assert (store.complete, store.parts, store.grids) == (True, local.parts, local.grids)
    assert store.digest() == local.digest()
    assert list(store.records()) == list(local.records())
    assert list(store.failures()) == list(local.failures())
    for index in range(len(local)):
        np.testing.assert_array_equal(store[index].bits, local[index].bits)
        assert store[index].label == local[index].label
        assert store.record(index) == local.record(index)
    for grid in local.grids:
        rows = np.random.default_rng(0).permutation(local.grids[grid])
        np.testing.assert_array_equal(store.grid(grid).read(rows, rounds=2), local.grid(grid).read(rows, rounds=2))
        np.testing.assert_array_equal(store.grid(grid).column("seed"), local.grid(grid).column("seed"))


def test_damage_elsewhere_is_an_error_that_names_its_place(path, memory):
    schema = BitSchema(open_store(path).fingerprint)
    assert verify_rows(memory, schema, Monitor()) == []
    chunk = "part-00001/2x2x2/bits/c.1.0.0.0.0.0"
    memory.files[chunk] = memory.files[chunk][:-1]
    expected = f"memory://{chunk} has 95 bytes, expected 96 bytes"
    assert any(expected in problem for problem in verify_rows(memory, schema, Monitor()))
    with pytest.raises(StoreError, match=expected):
        list(BitStore(Path("elsewhere"), memory).grid((2, 2, 2)).chunks())
    del memory.files["zarr.json"]
    with pytest.raises(StoreError, match="memory://"):
        BitStore(Path("elsewhere"), memory)


def test_a_check_that_should_stop_says_how_far_it_came(path):
    class Now:
        reason = "SIGTERM"

    with pytest.raises(Unfinished, match=r"SIGTERM: stopped after \d+ of \d+ bytes"):
        verify_store(path, Monitor(stop=Now()))
