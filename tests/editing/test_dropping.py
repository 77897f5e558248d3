"""Dropped samples are skipped by every reader, and nothing else of the store changes."""

import json

import numpy as np
import pytest
from small_stores import GRIDS, fingerprint, run, tree
from store_contents import changed_files, contents

from grncli import drop_samples, open_store
from grncli.runtime.errors import StoreError, UsageError
from grncli.store import open_part, verify_store


def test_every_way_of_reading_skips_what_was_dropped(store):
    before, keys = contents(store), ["4.png#1", "7.png#0", "11.png#0", "0.png#0"]
    old = open_store(store)
    summary = drop_samples(store, keys=keys)
    assert (summary.dropped, summary.already, summary.samples) == (7, 0, len(before) - 7)
    expected = {name: value for name, value in before.items() if name[1] not in keys}
    assert contents(store) == expected
    now = open_store(store)
    kept = [i for i, line in enumerate(old.records()) if line["key"] not in keys]
    assert [line["key"] for line in now.records()] == [old.record(i)["key"] for i in kept]
    assert len(now) == len(kept) == sum(part.samples for part in now.parts)
    assert [part.dropped for part in now.parts] == [3, 4]
    assert [sample.bits.tobytes() for sample in now[:]] == [old[i].bits.tobytes() for i in kept]
    assert now.nbytes == sum(old[i].bits.nbytes for i in kept)
    for grid in GRIDS:
        view, numbers = now.grid(grid), [i for i in kept if old.grid_of(i) == grid]
        bits = old.read(numbers)
        shuffled = np.random.default_rng(0).permutation(len(view))
        np.testing.assert_array_equal(view.read(shuffled), bits[shuffled])
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in view.chunks()]), bits)
        assert next(view.chunks())[0] == 0
        np.testing.assert_array_equal(view.labels(), [old[i].label for i in numbers])
    assert now.digest() != old.digest()
    assert verify_store(store) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": 1}, "is row 1 of 1x2x3, which is out of its place"),
        ({"grid": "9x9x9"}, "is row 0 of 9x9x9, which is out of its place"),
        ({"row": None}, "field row is None, expected a whole number from 0"),
        ({"grid": None}, "field grid is None, expected text"),
    ],
)
def test_a_line_with_another_number_than_its_row_drops_nothing(store, change, words):
    file = store / "part-00000/samples.jsonl"
    first, rest = file.read_text().split("\n", 1)
    # As many bytes as before: the white space is JSON too.
    file.write_text(json.dumps(json.loads(first) | change).ljust(len(first)) + "\n" + rest)
    before = tree(store)
    with pytest.raises(StoreError, match=f"samples.jsonl:1: {words}; restore the file"):
        drop_samples(store, keys=["0.png#0"])
    assert tree(store) == before


def test_a_source_names_all_its_samples_and_a_list_may_come_from_a_file(store, tmp_path):
    (tmp_path / "keys.txt").write_text("\ufeff8.png\r\n\n5.png#0\n")
    summary = drop_samples(store, keys=tmp_path / "keys.txt")
    lines = list(open_store(store).records())
    assert not [line for line in lines if line["source"] == "8.png" or line["key"] == "5.png#0"]
    assert [line for line in lines if line["key"] == "5.png#1"]
    assert summary.dropped == 8


def test_no_file_changes_but_the_list_of_a_part_that_has_such_samples(store):
    before = tree(store)
    drop_samples(store, keys=["11.png#0", "11.png#2"])
    assert changed_files(before, store) == {"part-00001/dropped.json"}
    document = json.loads((store / "part-00001/dropped.json").read_text())
    assert document == {"format": 1, "grids": {"1x1x5": [[6, 7], [8, 9]]}}


def test_dropping_again_changes_nothing_and_dropping_more_keeps_what_was(store):
    drop_samples(store, keys=["5.png#0"])
    once = tree(store)
    again = drop_samples(store, keys=["5.png"])
    assert (again.dropped, again.already) == (4, 2)
    assert changed_files(once, store) == {"part-00000/dropped.json", "part-00001/dropped.json"}
    before = tree(store)
    assert drop_samples(store, keys=["5.png"]).dropped == 0
    assert not changed_files(before, store)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["3.png#0", "nobody.png"], r"has no key or source nobody.png; nothing was changed"),
        (["x", "y"], r"no key or source x \(and 1 more\)"),
        ([f"{i}.png" for i in range(13) if i % 4 != 2], "all 33 samples would be dropped"),
    ],
)
def test_a_name_of_no_sample_and_the_last_sample_are_refused(store, keys, words):
    before = tree(store)
    with pytest.raises(UsageError, match=words):
        drop_samples(store, keys=keys)
    assert not changed_files(before, store)


def test_a_grid_without_samples_is_no_grid_of_the_store(store):
    old = open_store(store)
    keys = [old.record(i)["key"] for i in old.grid(GRIDS[1]).indices.tolist()]
    drop_samples(store, keys=keys)
    assert list(open_store(store).grids) == [grid for grid in sorted(GRIDS) if grid != GRIDS[1]]


def test_a_part_that_is_being_written_is_left_alone(store):
    columns = [("seed", np.int64), ("entropy", np.float32)]
    with open_part(store, fingerprint(), 1, 2, columns=columns), pytest.raises(StoreError, match="being written"):
        drop_samples(store, keys=["3.png#0"])


def test_a_writer_keeps_what_was_dropped_and_does_not_bring_it_back(store):
    drop_samples(store, keys=["3.png"])
    run(store, part=0, parts=2, sources=12)
    keys = {line["key"] for line in open_store(store).records()}
    assert "11.png#0" in keys
    assert "3.png#0" not in keys
    assert verify_store(store) == []


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        '{"format": 2}',
        '{"format": 1, "grids": {"1x1x5": [[2, 1]]}}',
        '{"format": 1, "grids": {"1x1x5": [[0, 99]]}}',
    ],
)
def test_a_damaged_list_is_an_error_and_found_by_verification(store, document):
    path = store / "part-00001/dropped.json"
    path.write_text(document)
    with pytest.raises(StoreError, match=r"part-00001/dropped\.json"):
        open_store(store)
    (problem,) = verify_store(store)
    assert problem.startswith(str(path))
