"""Captions of single samples are those that all captions of the store give, without reading these."""

import pickle

import pytest
from small_stores import run

from grncli.runtime.errors import StoreError
from grncli.store import open_store
from grncli.store.caption_index import CaptionIndex
from grncli.store.captions import Caption, CaptionLine, read_captions, replace_captions


def lines(*sources):
    return [CaptionLine(source, (Caption(None, f"of {source}"), Caption("long", "of it"))) for source in sources]


@pytest.fixture
def store(tmp_path, small_chunks):
    """The first part has captions of samples of both, the second one of one source; one has a line for a stretch."""
    for part in range(2):
        run(tmp_path / "s.zarr", part=part, parts=2, sources=9 + 4 * part)
    stretch = CaptionLine("0.png", (Caption(None, "the begin"),), {"begin": 0, "end": 1})
    replace_captions({tmp_path / "s.zarr" / "part-00000": [*lines("0.png", "3.png", "11.png"), stretch]})
    replace_captions({tmp_path / "s.zarr" / "part-00001": lines("12.png")})
    return tmp_path / "s.zarr"


def test_each_sample_has_the_captions_that_the_whole_store_gives_it(store):
    opened = open_store(store)
    index, every = CaptionIndex(opened), read_captions(opened)
    for number, record in enumerate(opened.records()):
        expected = every.of_sample(record)
        assert index.of_sample(opened.place_of(number)[0], record) == expected
        in_the_begin = {**record, "start": 0, "frames": 10, "fps": 10}
        assert index.of_sample(0, in_the_begin) == every.of_sample(in_the_begin)
    assert len(every.of_sample({"source": "0.png"})) == 3


def test_an_index_travels_to_another_process(store):
    index = CaptionIndex(open_store(store))
    index.of_sample(0, {"source": "3.png"})
    again = pickle.loads(pickle.dumps(index))
    assert again.of_sample(0, {"source": "3.png"}) == index.of_sample(0, {"source": "3.png"}) != ()


@pytest.mark.parametrize("damage", ["other", "short", "gone"])
def test_a_line_that_was_changed_is_an_error(store, damage):
    index = CaptionIndex(open_store(store))
    assert index.of_sample(1, {"source": "12.png"})
    file = store / "part-00001" / "captions.jsonl"
    if damage == "gone":
        index = pickle.loads(pickle.dumps(index))  # without the open file
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"of it", b"of us") if damage == "other" else b"{}\n")
    with pytest.raises(StoreError, match=r"captions\.jsonl was changed since its captions were counted"):
        index.of_sample(1, {"source": "12.png"})
