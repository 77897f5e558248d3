"""Which sources a part has done, and the digests of their keys."""

import hashlib
import itertools

import pytest
from small_stores import GRIDS, fingerprint, random_bits

from grncli.runtime.errors import StoreError
from grncli.store import open_part
from grncli.store.done_sources import DoneSource, KeySet, OrderedKeys, StoredSources, is_of_a_set, source_key

KEYS = ["a.png", "b/ä.png", "c\udcff.png"]


def test_the_digest_of_a_set_does_not_depend_on_the_order():
    digests = {KeySet(order).digest() for order in itertools.permutations(KEYS)}
    assert len(digests) == 1
    assert is_of_a_set(digests.pop())
    later = KeySet(KEYS[:1])
    later.add(KEYS[1:])
    assert later.digest() == KeySet(KEYS).digest()
    assert len({KeySet(some).digest() for some in ([], KEYS[:1], KEYS[1:], KEYS)}) == 4


def test_the_digest_of_an_order_depends_on_it():
    assert OrderedKeys(KEYS).digest() != OrderedKeys(KEYS[::-1]).digest()
    assert not is_of_a_set(OrderedKeys(KEYS).digest())
    assert OrderedKeys(["a.png"]).digest() == hashlib.sha256(b'"a.png"').hexdigest()


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ({"key": "a.png"}, "a.png"),
        ({"key": "a#1.png#flip"}, "a#1.png#flip"),
        ({"key": "a.png#flip", "flip": True}, "a.png"),
        ({"key": "a.mp4#0", "clip": 0}, "a.mp4"),
        ({"key": "a#3#12#flip", "clip": 12, "flip": True}, "a#3"),
    ],
)
def test_the_key_of_a_source_is_that_of_its_samples_without_window_and_mirror(line, key):
    assert source_key(line) == key


def test_a_part_names_what_it_has_read_and_what_failed(tmp_path):
    with open_part(tmp_path / "s.zarr", fingerprint()) as writer:
        lines = [{"key": f"a.mp4#{i}", "source": "in/a.mp4", "clip": i, "bytes": 7} for i in range(2)]
        writer.append(GRIDS[0], random_bits(2, GRIDS[0]), None, lines)
        writer.fail("in/b.mp4", 1, "broken", key="b.mp4")
        writer.fail("in/c.mp4", 2, "broken", key="c.mp4")
        writer.fail("in/c.mp4", 2, None, key="c.mp4")
        writer.fail("old.mp4", 3, "broken")
        writer.commit(4, "", 4)
        writer.append(GRIDS[0], random_bits(1, GRIDS[0]), None, [{"key": "d.mp4", "source": "in/d.mp4"}])
    stored = StoredSources(tmp_path / "s.zarr", fingerprint())
    assert list(stored.of(0)) == [
        DoneSource("a.mp4", "in/a.mp4", 7, failed=False),
        DoneSource("a.mp4", "in/a.mp4", 7, failed=False),
        DoneSource("b.mp4", "in/b.mp4", None, failed=True),
        DoneSource("old.mp4", "old.mp4", None, failed=True),
    ]


@pytest.mark.parametrize("field", ["grid", "row"])
def test_a_line_that_does_not_say_which_row_it_is_of_is_an_error(tmp_path, field):
    with open_part(tmp_path / "s.zarr", fingerprint()) as writer:
        writer.append(GRIDS[0], random_bits(1, GRIDS[0]), None, [{"key": "d.mp4", "source": "in/d.mp4"}])
        writer.commit(1, "", 1)
    file = tmp_path / "s.zarr/part-00000/samples.jsonl"
    file.write_text(file.read_text().replace(f'"{field}"', f'"{field[:-1]}_"'))
    with pytest.raises(StoreError, match=f"samples.jsonl:1: has no field {field}"):
        list(StoredSources(tmp_path / "s.zarr", fingerprint()).of(0))
