"""Parts that are missing, doubled, or of different lists are named by what the commit records say."""

import json
import shutil

import pytest
from small_stores import fingerprint, random_bits, run

from grncli.editing.merging import merge
from grncli.store import open_part, open_store
from grncli.store.part_faults import doubled_samples, part_faults, unfinished_parts, unlike_lists
from grncli.store.rows.byte_source import LocalFiles


def change(store, part, **fields):
    """Other values in the commit record of a part."""
    file = store / f"part-{part:05d}" / "commit.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture
def store(memory_disk, small_chunks):
    """Four complete parts of a list of 34 sources."""
    for part, sources in enumerate((9, 9, 8, 8)):
        run(memory_disk / "s.zarr", part=part, parts=4, sources=sources)
        change(memory_disk / "s.zarr", part, digest=f"{part:064x}")
    return memory_disk / "s.zarr"


def test_parts_of_one_list_have_no_fault(store):
    opened = open_store(store)
    assert part_faults(opened) == []
    assert unfinished_parts(opened) == ""


def test_missing_and_unfinished_parts_are_named(store):
    shutil.rmtree(store / "part-00002")
    change(store, 1, complete=False)
    (store / "part-00003" / "commit.json").unlink()
    opened = open_store(store)
    assert unfinished_parts(opened) == "part-00002 and part-00003 are missing, part-00001 is not complete"
    assert part_faults(opened) == []


def test_a_part_that_was_made_twice_is_named(store):
    change(store, 3, digest=f"{2:064x}")
    (fault,) = part_faults(open_store(store))
    assert "part-00002 and part-00003 hold the same sources" in fault
    assert "--part 3/4 --overwrite" in fault


def test_parts_of_lists_of_other_lengths_are_named(store):
    change(store, 2, sources=7)
    (fault,) = part_faults(open_store(store))
    assert "part-00000 was made of 9 sources and part-00002 of 7" in fault


@pytest.mark.parametrize("digest", ["", "set:" + "0" * 64])
def test_parts_that_were_merged_or_added_to_are_not_compared(store, digest):
    for part in range(4):
        change(store, part, digest=digest, sources=9 + part)
    assert part_faults(open_store(store)) == []


def test_parts_of_merged_stores_are_not_compared(memory_disk):
    """Their lists were of other lengths, and each part keeps the digest of its own."""
    for number, name in enumerate(("cats", "dogs")):
        with open_part(memory_disk / name, fingerprint()) as writer:
            writer.append((1, 1, 5), random_bits(1, (1, 1, 5)), [0], [{"key": name, "source": name}])
            writer.commit(1 + 2 * number, f"{number:064x}", 1 + 2 * number)
            writer.finish()
    merge([memory_disk / "cats", memory_disk / "dogs"], memory_disk / "pets")
    pets = open_store(memory_disk / "pets")
    assert {part.record.sources for part in pets.stored_parts().values()} == {1, 3}
    assert part_faults(pets) == []


def test_a_part_of_another_division_is_named(store):
    shutil.copytree(store / "part-00001", store / "part-00007")
    (fault,) = part_faults(open_store(store))
    assert fault == f"{store}/part-00007 is not one of the store's 4 parts; move it away."


def test_samples_of_one_key_are_named_with_their_parts(store):
    sentences = doubled_samples(open_store(store))  # the keys are those of the small store in each part
    assert "part-00000 has the sample '5.png#0' and part-00001 has it too" in sentences[0]
    assert sentences[-1].endswith("more samples have the key of another.")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], None),
        ([(0, 5), (1, 5), (2, 4), (3, 4)], None),
        ([(1, 5), (3, 4)], None),
        ([(0, 5), (1, 4), (2, 5)], (1, 2)),
        ([(0, 5), (1, 6)], (0, 1)),
        ([(0, 5), (2, 3)], (0, 2)),
    ],
)
def test_shares_of_one_list_are_as_long_or_one_shorter(counts, expected):
    assert unlike_lists(counts) == expected


def test_a_store_of_many_parts_opens_with_each_record_read_once(store, monkeypatch):
    read, stream, digest = [], LocalFiles.stream, open_store(store).digest()
    monkeypatch.setattr(LocalFiles, "stream", lambda self, name: (read.append(name), stream(self, name))[1])
    assert open_store(store).digest() == digest
    records = sorted(name for name in read if name.endswith("commit.json"))
    assert records == [f"part-{part:05d}/commit.json" for part in range(4)]
