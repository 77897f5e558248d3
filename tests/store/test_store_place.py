"""What a writer says is there is there: stores that are moved, deleted or cannot be written; limits of the system."""

import errno
import os
import resource
import shutil

import numpy as np
import pytest
from small_stores import GRIDS, fingerprint, random_bits, records, run, tree

from grncli.runtime.errors import StoreError
from grncli.store import open_part, open_store, verify_store

GRID = GRIDS[0]
COLUMNS = [("seed", np.int64), ("entropy", np.float32)]


def move(path):
    path.rename(path.with_name("moved"))


def move_part(path):
    (path / "part-00000").rename(path / "moved")


def replace(path):
    move(path)
    run(path)


@pytest.mark.parametrize("change", [move, move_part, replace, shutil.rmtree])
@pytest.mark.parametrize("when", ["append", "commit", "finish"])
def test_a_store_that_leaves_its_place_is_an_error_and_not_written_on(tmp_path, small_chunks, change, when):
    path = tmp_path / "store"
    with open_part(path, fingerprint(), columns=COLUMNS) as writer:
        n = np.arange(2)
        writer.append(GRID, random_bits(2, GRID), None, records(2, "a"), seed=n, entropy=n)
        writer.commit(1, "")
        if when == "commit":
            writer.append(GRID, random_bits(2, GRID), None, records(2, "b"), seed=n, entropy=n)
        change(path)
        there = tree(path) if path.exists() else None
        calls = {
            "append": lambda: writer.append(GRID, random_bits(2, GRID), None, records(2, "b"), seed=n, entropy=n),
            "commit": lambda: writer.commit(2, ""),
            "finish": writer.finish,
        }
        with pytest.raises(StoreError, match="was moved, replaced or removed while it was written"):
            calls[when]()
        assert (tree(path) if path.exists() else None) == there


@pytest.mark.parametrize("name", ["samples.jsonl", "1x2x3/bits/c.0.0.0.0.0.0", "1x2x3/label/c.0"])
def test_a_store_that_lost_a_file_is_not_complete(tmp_path, small_chunks, name):
    run(tmp_path / "store", sources=4)
    (tmp_path / "store" / "part-00000" / name).unlink()
    with pytest.raises(StoreError, match=rf"{name} (is missing|has 0 bytes)"):
        run(tmp_path / "store", sources=4)
    with open_part(tmp_path / "new", fingerprint(), columns=COLUMNS) as writer:
        n = np.arange(2)
        writer.append(GRID, random_bits(2, GRID), None, records(2, "a"), seed=n, entropy=n)
        writer.commit(1, "")
        (tmp_path / "new" / "part-00000" / name).unlink()
        with pytest.raises(StoreError, match=name):
            writer.finish()
    assert not open_store(tmp_path / "new").complete


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_complete_part_that_cannot_be_written_is_done(tmp_path, small_chunks, monkeypatch, code):
    path = tmp_path / "store"
    run(path)
    before, real = tree(path), os.open

    def refusing(name, flags, *args, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(name))
        return real(name, flags, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        run(path)
        with open_part(path, fingerprint(), columns=COLUMNS) as writer:
            assert writer.complete
            with pytest.raises(StoreError, match=rf"\.lock cannot be written \({os.strerror(code)}\); fix that"):
                writer.fail("0.png", 0, "broken")
        with pytest.raises(StoreError, match=rf"cannot be written \({os.strerror(code)}\)"):
            run(path, overwrite=True)
        for channels in (9, 80):  # with 80, the record would have other numbers of chunks
            with pytest.raises(StoreError, match=f"made with channels=10; this command asks for {channels}"):
                open_part(path, fingerprint(channels=channels), columns=COLUMNS)
    assert tree(path) == before


@pytest.fixture(params=[0, 300], ids=["few others open", "many others open"])
def few_files(request):
    """As under ``ulimit -n 64``, whatever else is open: 30 files can be opened."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(request.param)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd"))) if os.path.isdir("/proc/self/fd") else 40 + request.param
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for fd in held:
        os.close(fd)


def test_more_grids_than_a_process_may_open_files(tmp_path, small_chunks, few_files):
    grids = [(1, 1, width) for width in range(1, 151)]
    with open_part(tmp_path / "store", fingerprint()) as writer:
        for grid in grids:
            writer.append(grid, random_bits(2, grid), None, records(2, str(grid)))
        writer.commit(1, "")
        writer.finish()
    stores = [open_store(tmp_path / "store") for _ in range(3)]
    for store in stores:
        for index in range(0, len(store), 2):
            np.testing.assert_array_equal(store[index].bits, random_bits(2, store.grid_of(index))[0])
    assert verify_store(tmp_path / "store") == []
