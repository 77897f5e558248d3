"""A store behind a URL reads as the local one, from a server that lists nothing and through a cache that is checked."""

import json
import pickle

import numpy as np
import pytest
import torch
from served_files import served
from small_stores import run
from torch.utils.data import DataLoader

from grncli import BitDataset, open_store
from grncli.runs.describing import describe
from grncli.runtime.errors import RemoteError, StoreError, UsageError
from grncli.runtime.remote_objects import Patience, RemoteObjects
from grncli.store import verify_store
from grncli.store.bit_store import BitStore
from grncli.store.captions import Caption, CaptionLine, read_captions, replace_captions
from grncli.store.feature_settings import FeatureSettings
from grncli.store.rows import remote_files
from grncli.store.rows.dropped_rows import DroppedRows
from grncli.store.rows.remote_files import RemoteFiles
from grncli.store.rows.store_places import store_cache
from grncli.store.text_features import open_feature_part, open_features, verify_features

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/grn/stores"


@pytest.fixture
def small_pieces(monkeypatch):
    """So that small files have several."""
    monkeypatch.setattr(remote_files, "PIECE", 64)


@pytest.fixture
def store(memory_disk, small_chunks):
    """Two parts with captions and a dropped row."""
    path = memory_disk / "s.zarr"
    for part in range(2):
        run(path, part=part, parts=2, sources=9 + 4 * part)
    DroppedRows({"1x2x3": ((1, 2),)}).write(path / "part-00001")
    replace_captions({path / "part-00000": [CaptionLine("0.png", (Caption(None, "an ant"),))]})
    return path


@pytest.fixture
def server(store):
    with served(store.parent) as server:
        yield server


@pytest.fixture
def url(server):
    return f"{server.url}/s.zarr"


def impatient(url):
    """The store with attempts that end soon."""
    return BitStore(open_store(url).path, RemoteFiles(RemoteObjects(url, Patience(2, 0.01, 0.3, 1.0)), store_cache()))


def test_it_reads_as_the_local_one(store, url, small_pieces):
    ours, theirs = open_store(url), open_store(store)
    assert str(ours.path) == url
    assert (len(ours), ours.grids, ours.parts, ours.complete) == (len(theirs), theirs.grids, theirs.parts, True)
    assert ours.digest() == theirs.digest()
    assert list(ours.records()) == list(theirs.records())
    assert list(ours.failures()) == list(theirs.failures())
    assert read_captions(ours).digest() == read_captions(theirs).digest()
    for grid in theirs.grids:
        mine, other = ours.grid(grid), theirs.grid(grid)
        rows = np.random.default_rng(0).permutation(len(other))
        assert np.array_equal(mine.read(rows), other.read(rows))
        assert np.array_equal(mine.labels(), other.labels())
        assert np.array_equal(mine.column("entropy"), other.column("entropy"))
    assert all(np.array_equal(ours[i].bits, theirs[i].bits) for i in range(len(theirs)))
    assert [ours.record(i) for i in (7, 0)] == [theirs.record(i) for i in (7, 0)]
    assert verify_store(url) == []


def test_it_is_described_as_the_local_one_but_for_its_place(store, url):
    ours = json.dumps(describe(url, verify=True)).replace(url, str(store))
    assert json.loads(ours) == {**describe(store, verify=True), "disk_bytes": None}


def test_each_chunk_is_fetched_once_by_all_that_read_it(store, url, server):
    def counts():
        opened = open_store(url)
        for grid in opened.grids:
            opened.grid(grid).read(range(len(opened.grid(grid))))
        assert len(list(opened.records())) == len(opened)
        return {name: count for name, count in server.asked.items() if "/c." in name or name.endswith("samples.jsonl")}

    first = counts()
    assert len(first) > 10
    assert counts() == first


def test_a_store_that_was_made_again_is_never_read_from_the_cache(store, url):
    opened = open_store(url)
    before = opened.read(opened.grid((2, 2, 2)).indices)
    run(store, part=0, parts=2, sources=5, overwrite=True)
    again = open_store(url)
    local = open_store(store)
    assert np.array_equal(again.read(again.grid((2, 2, 2)).indices), local.read(local.grid((2, 2, 2)).indices))
    assert len(again.grid((2, 2, 2))) < len(before)


def test_an_entry_of_the_cache_that_changed_is_fetched_again(store, url, cache):
    indices = open_store(store).grid((1, 2, 3)).indices
    expected = open_store(store).read(indices)
    assert np.array_equal(open_store(url).read(indices), expected)
    for entry in cache.iterdir():
        entry.write_bytes(bytes(len(entry.read_bytes())))
    assert np.array_equal(open_store(url).read(indices), expected)


def test_no_cache_is_kept_where_its_size_is_nothing(store, url, cache, monkeypatch):
    monkeypatch.setenv("GRN_CACHE_GIB", "0")
    opened = open_store(url)
    assert np.array_equal(opened.read([0, 1]), open_store(store).read([0, 1]))
    assert not cache.exists()
    monkeypatch.setenv("GRN_CACHE_GIB", "big")
    with pytest.raises(UsageError, match="GRN_CACHE_GIB is big, expected a number of GiB"):
        open_store(url)


def test_other_processes_read_it_too(store, url):
    """Those of a DataLoader are forked from one whose threads and connections do not come along."""
    expected = [item["bits"] for item in BitDataset(store, fields=("bits",), grid=(1, 2, 3))]
    data = BitDataset(url, fields=("bits",), grid=(1, 2, 3))
    data[0]
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert all(torch.equal(ours, theirs["bits"]) for ours, theirs in zip(expected, loader, strict=True))
    assert np.array_equal(pickle.loads(pickle.dumps(data.store)).read([0]), data.store.read([0]))


def test_damage_is_said_as_of_a_local_store(store, url):
    bits = store / "part-00000/1x2x3/bits"
    chunks = sorted(bits.glob("c.*"))
    whole = chunks[0].read_bytes()
    chunks[0].write_bytes(whole[:-3])
    with pytest.raises(StoreError, match=rf"^{url}/part-00000/1x2x3/bits/{chunks[0].name} has .* bytes, expected "):
        open_store(url).grid((1, 2, 3)).read([0])
    chunks[0].write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(StoreError, match=r"has checksum .* its bytes changed"):
        open_store(url).grid((1, 2, 3)).read([0])
    assert any("has checksum" in problem for problem in verify_store(url))
    chunks[0].unlink()
    with pytest.raises(StoreError, match="is missing, expected"):
        open_store(url).grid((1, 2, 3)).read([0])


def test_where_there_is_no_store_is_said(server):
    with pytest.raises(StoreError, match=f"^{server.url}/none: there is no bit store"):
        open_store(f"{server.url}/none")
    with pytest.raises(StoreError, match=f"^{server.url}/none is not a store; give a features store"):
        open_features(f"{server.url}/none")


def test_a_server_that_falls_silent_ends_the_reading(url, server):
    opened = impatient(url)
    server.silent = {f"s.zarr/part-00000/1x2x3/bits/c.{i}.0.0.0.0.0" for i in range(9)}
    with pytest.raises(RemoteError, match=r"1x2x3/bits/c\.0\.0.*: cannot be reached"):
        opened.grid((1, 2, 3)).read([0])


def test_captions_too_are_read_in_pieces_by_their_place(store, url, server, small_pieces):
    name = "part-00000/captions.jsonl"
    data = (store / name).read_bytes()
    assert len(data) > remote_files.PIECE
    for _ in range(2):
        file = open_store(url).source.open(name)
        found = bytearray(len(data) - 20)
        file.read_into(memoryview(found), 7)
        assert (bytes(found), file.size) == (data[7:-13], len(data))
        with pytest.raises(EOFError):
            file.read_into(memoryview(found), 30)
    assert server.asked[f"s.zarr/{name}"] == 2  # its two pieces, once
    changed = Caption(None, "a bee, and so many words of it that they fill two pieces")
    replace_captions({store / "part-00000": [CaptionLine("0.png", (changed,))]})
    assert read_captions(open_store(url)).of("0.png") == (changed,)
    with pytest.raises(FileNotFoundError):
        open_store(url).source.open("part-00001/captions.jsonl")


def test_features_are_read_from_a_url(memory_disk, small_chunks):
    settings = FeatureSettings(encoder={"name": "toy", "sha256": "0" * 64}, width=3, dtype="float32", max_tokens=9)
    digests = [f"{number:064x}" for number in range(5)]
    features = torch.arange(5 * 2 * 3).float().reshape(5, 2, 3)
    with open_feature_part(memory_disk / "f.zarr", settings) as writer:
        writer.append(features, [f"prompt {number}" for number in range(5)], digests)
        writer.commit(5, "", 5)
        writer.finish()
    with served(memory_disk) as server:
        opened = open_features(f"{server.url}/f.zarr")
        assert torch.equal(torch.stack(opened.read(digests[::-1])), features.flip(0))
        assert verify_features(f"{server.url}/f.zarr") == []
        assert describe(f"{server.url}/f.zarr")["prompts"] == 5


def test_memory_of_fsspec_is_a_place_too(store):
    from fsspec import filesystem

    memory = filesystem("memory")
    for path in store.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/remote-stores/s.zarr/{path.relative_to(store)}", path.read_bytes())
    opened = open_store("memory://remote-stores/s.zarr")
    assert opened.digest() == open_store(store).digest()
    assert opened.parts == open_store(store).parts
