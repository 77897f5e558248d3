"""Captions lie beside the bits: found by source, the same by every division, hostile lines named, bits untouched."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_stores import fingerprint, run, tree

from grncli.runtime.errors import StoreError
from grncli.store import open_part, open_store, verify_store
from grncli.store.captions import CAPTIONS, Caption, CaptionLine, Captions, read_captions, replace_captions, span_of


def line(source, *texts, kind=None, **fields):
    return CaptionLine(source, tuple(Caption(kind, text) for text in texts), fields)


@pytest.fixture
def store(tmp_path):
    run(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def write_lines(store, *lines, part=0):
    path = store / f"part-{part:05d}" / CAPTIONS
    path.write_bytes(b"".join(text if isinstance(text, bytes) else json.dumps(text).encode() + b"\n" for text in lines))
    return path


def test_a_store_without_captions_has_none(store):
    captions = read_captions(open_store(store))
    assert (len(captions), captions.of("0.png"), dict(captions.fields("0.png"))) == (0, (), {})
    assert captions.digest() == Captions().digest()


def test_captions_are_found_by_source_with_their_kinds_and_other_fields(store):
    entry = {"source": "1.png", "captions": [{"type": "long", "content": "a bee\non a rose"}, {"content": "蜂"}]}
    write_lines(
        store,
        {**entry, "quality_prompt": "High!", "odd": [1, None]},
        {"source": "3.png", "captions": [{"type": None, "content": "x"}]},
    )
    captions = read_captions(open_store(store))
    assert len(captions) == 2
    assert captions.of("1.png") == (Caption("long", "a bee\non a rose"), Caption(None, "蜂"))
    assert captions.fields("1.png") == {"quality_prompt": "High!", "odd": [1, None]}
    assert captions.of("2.png") == ()
    assert sorted(captions) == ["1.png", "3.png"]
    assert "3.png" in captions
    assert pickle.loads(pickle.dumps(captions)).digest() == captions.digest()


def test_a_window_has_the_captions_of_its_own_stretch():
    captions = Captions(
        [
            line("c.mp4", "the whole", quality="good"),
            line("c.mp4", "first", begin=0, end=2.0, quality="bad"),
            line("c.mp4", "second", begin=2.0, end=5),
        ]
    )
    assert [caption.text for caption in captions.of("c.mp4")] == ["the whole", "first", "second"]
    window = {"source": "c.mp4", "start": 1.5, "frames": 16, "fps": 8}
    assert span_of(window) == (1.5, 3.5)
    assert [caption.text for caption in captions.of_sample(window)] == ["the whole", "second"]
    assert [caption.text for caption in captions.of("c.mp4", (0, 1))] == ["the whole", "first"]
    assert [caption.text for caption in captions.of("c.mp4", (6, 7))] == ["the whole"]
    assert [caption.text for caption in captions.of_sample({"source": "c.mp4"})] == ["the whole", "first", "second"]
    assert captions.fields("c.mp4", (0, 1)) == {"quality": "good", "begin": 0, "end": 2.0}


sentences = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
lines = st.lists(
    st.builds(
        CaptionLine,
        sentences,
        st.lists(st.builds(Caption, st.none() | sentences, sentences), min_size=1, max_size=3, unique=True).map(tuple),
        st.dictionaries(st.sampled_from(["quality", "width"]), st.integers() | sentences | st.lists(sentences)),
    ),
    unique_by=lambda line: line.source,
    max_size=5,
)


@given(lines, st.randoms())
def test_what_is_written_is_read_and_neither_order_nor_parts_change_bytes_or_digest(memory_disk_once, lines, random):
    store, shuffled = memory_disk_once, random.sample(lines, len(lines))
    half = len(lines) // 2
    written = []
    for contents in ([lines, []], [shuffled, []], [shuffled[:half], shuffled[half:]]):
        replace_captions({store / f"part-{part:05d}": some for part, some in enumerate(contents)})
        captions = read_captions(open_store(store))
        assert {source: captions.of(source) for source in captions} == {one.source: one.captions for one in lines}
        assert all(captions.fields(one.source) == one.fields for one in lines)
        written.append(((store / "part-00000" / CAPTIONS).read_bytes(), captions.digest()))
    assert written[0] == written[1]
    assert written[0][1] == written[2][1]


@pytest.fixture(scope="module")
def memory_disk_once(tmp_path_factory):
    store = tmp_path_factory.mktemp("two") / "s.zarr"
    for part in range(2):
        run(store, part=part, parts=2)
    return store


def test_another_word_kind_or_field_is_another_digest():
    versions = [line("a", "x"), line("a", "y"), line("a", "x", kind="long"), line("b", "x"), line("a", "x", width=3)]
    versions += [line("a", "x", "y"), line("a", "y", "x")]
    assert len({Captions([one]).digest() for one in versions}) == len(versions)


GOOD = {"source": "1.png", "captions": [{"type": None, "content": "a bee"}]}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"source": "1.png", \n', "cannot be read as JSON"),
        (b"\xff\n", "cannot be read as JSON"),
        (b"[1]\n", "holds [1], expected a JSON object"),
        (b"[" * 100_000 + b"\n", "nested too deeply"),
        ({"captions": GOOD["captions"]}, "field source is None"),
        ({**GOOD, "source": "a\udcff"}, "expected the path of a source"),
        ({"source": "1.png"}, "field captions is None"),
        ({**GOOD, "captions": []}, "field captions is []"),
        ({**GOOD, "captions": {"content": "x"}}, "expected a list of captions"),
        ({**GOOD, "captions": ["a bee"]}, "a caption is 'a bee'"),
        ({**GOOD, "captions": [{"type": 3, "content": "x"}]}, "expected {\"type\": text or null"),
        ({**GOOD, "captions": [{"type": None, "content": None}]}, "expected {\"type\": text or null"),
        ({**GOOD, "captions": [{"content": " \n"}]}, "a caption is empty"),
        ({**GOOD, "captions": [{"content": "\ud800"}]}, "is not valid Unicode"),
        ({**GOOD, "captions": [{"content": "x"}, {"type": None, "content": "x"}]}, "has the caption 'x' twice"),
        ({**GOOD, "begin": 1}, "begin is 1 and end None"),
        ({**GOOD, "begin": 2, "end": 1.5}, "begin is 2 and end 1.5"),
        (json.dumps({**GOOD, "begin": 0, "end": float("inf")}).encode() + b"\n", "end inf"),
        ({**GOOD, "begin": False, "end": True}, "begin is False"),
    ],
)  # fmt: skip
def test_a_hostile_line_is_named(store, bad, words):
    path = write_lines(store, {**GOOD, "source": "0.png"}, bad)
    with pytest.raises(StoreError) as error:
        read_captions(open_store(store))
    assert words in str(error.value)
    assert f"{path}:2" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_source_with_two_lines_is_refused_also_in_two_parts(tmp_path):
    for part in range(2):
        run(tmp_path / "s.zarr", part=part, parts=2)
        write_lines(tmp_path / "s.zarr", GOOD, part=part)
    with pytest.raises(StoreError, match=r"'1\.png' has two lines"):
        read_captions(open_store(tmp_path / "s.zarr"))


def test_captions_change_nothing_else_and_no_digest_of_bits(store):
    before, digest = tree(store), open_store(store).digest()
    with open_part(store, fingerprint(), columns=[("seed", "int64"), ("entropy", "float32")]) as part:
        assert part.captions() == []
        part.write_captions([line("1.png", "a bee")])
        assert part.captions() == [line("1.png", "a bee")]
    after = tree(store)
    assert json.loads(after.pop(f"part-00000/{CAPTIONS}")) == GOOD
    assert after == before
    assert open_store(store).digest() == digest
    assert verify_store(store) == []
    assert open_store(store).complete


def test_where_nothing_can_be_written_the_captions_stay(store, monkeypatch):
    write_lines(store, GOOD)
    before = tree(store)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grncli.store.captions.fsync", full)
    with open_part(store, fingerprint(), columns=[("seed", "int64"), ("entropy", "float32")]) as part:
        with pytest.raises(StoreError, match="the disk is full"):
            part.write_captions([line("1.png", "another")])
    assert tree(store) == before


def test_a_store_that_is_made_again_loses_its_captions(store):
    write_lines(store, GOOD)
    run(store, overwrite=True)
    assert len(read_captions(open_store(store))) == 0
