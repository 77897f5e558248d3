"""Nothing outside of a store is written or removed through a link inside it."""

import json
import os

import pytest
from small_stores import fingerprint, run, tree

from grncli.runtime.errors import StoreError
from grncli.store import open_part, open_store

COLUMNS = [("seed", "int64"), ("entropy", "float32")]
PLACES = [
    "part-00000",
    "part-00000/2x2x2",
    "part-00000/2x2x2/bits",
    "part-00000/9x9x9",  # of which nothing is committed
    "part-00000/1x2x3/bits/c.0.0.0.0.0.0",
    "part-00000/samples.jsonl",
    "part-00000/failures.jsonl",
    "part-00000/.zarr.json.tmp",
    "part-00000/.lock",
    ".lock",
]


def moved_out(path, place, outside):
    """Put a link where something of an incomplete store was."""
    record = path / "part-00000" / "commit.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "complete": False}))
    inside = path / place
    if inside.exists():
        os.rename(inside, outside)
    elif place.endswith("x9"):
        outside.mkdir()
    else:
        outside.write_bytes(b"precious")
    if outside.is_dir():
        (outside / "c.7.0.0.0.0.0").write_bytes(b"precious")
    inside.symlink_to(outside)


@pytest.mark.parametrize("place", PLACES)
def test_resuming_through_a_link_is_refused_by_its_name(tmp_path, small_chunks, place):
    path, outside = tmp_path / "store", tmp_path / "outside"
    run(path, sources=4)
    moved_out(path, place, outside)
    before = tree(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(StoreError, match=rf"{path / place} is a link, and nothing is written or removed through links"):
        run(path)
    assert (tree(outside) if outside.is_dir() else outside.read_bytes()) == before


@pytest.mark.parametrize("place", PLACES[:-1])
def test_overwriting_removes_a_link_and_leaves_what_it_leads_to(tmp_path, small_chunks, place):
    path, outside = tmp_path / "store", tmp_path / "outside"
    run(path, sources=4)
    moved_out(path, place, outside)
    before = tree(outside) if outside.is_dir() else outside.read_bytes()
    run(path, overwrite=True)
    run(tmp_path / "fresh")
    assert tree(path) == tree(tmp_path / "fresh")
    assert (tree(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_a_link_in_place_of_what_a_killed_run_left_is_removed(tmp_path, small_chunks):
    path, outside = tmp_path / "store", tmp_path / "outside"
    run(path, sources=4)
    moved_out(path, "part-00000/.commit.json.tmp", outside)
    run(path)
    assert outside.read_bytes() == b"precious"
    assert not (path / "part-00000" / ".commit.json.tmp").is_symlink()


def test_the_store_itself_may_be_a_link(tmp_path, small_chunks):
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    run(tmp_path / "store", sources=4)
    run(tmp_path / "store", overwrite=True)
    run(tmp_path / "fresh")
    assert tree(tmp_path / "disk") == tree(tmp_path / "fresh")


def test_a_store_is_read_through_links_and_is_complete_as_it_is(tmp_path, small_chunks):
    path = tmp_path / "store"
    run(path)
    os.rename(path / "part-00000", tmp_path / "part")
    (path / "part-00000").symlink_to(tmp_path / "part")
    before = tree(tmp_path)
    run(path)
    assert len(list(open_store(path).records())) == 14
    assert tree(tmp_path) == before
    with open_part(path, fingerprint(), columns=COLUMNS) as writer, pytest.raises(StoreError, match="is a link"):
        writer.fail("1.png", 1, "broken")
