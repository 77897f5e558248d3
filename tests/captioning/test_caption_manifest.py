"""Files of captions: every form is read, and a wrong line is named in one sentence."""

import json

import pytest

from grncli.captioning.caption_manifest import read_manifest
from grncli.media.listing.manifest_tables import MAX_LINE_BYTES
from grncli.runtime.errors import UsageError
from grncli.store.captions import Caption


def lines(path):
    return [line.captions for line in read_manifest(path)]


def write(path, *entries):
    path.write_bytes(b"".join(json.dumps(e).encode() + b"\n" if isinstance(e, dict) else e for e in entries))
    return path


def test_our_own_and_simple_forms_are_read(tmp_path):
    path = write(
        tmp_path / "c.jsonl",
        b"\xef\xbb\xbf",
        {"source": "1.png", "captions": [{"type": "long", "content": "a bee"}, {"content": "b"}], "begin": 0, "end": 2},
        b"\n",
        {"path": "2.png", "caption": "ein Käfer", "score": 0.5},
        {"file_name": "3.png", "text": "x", "caption": ["y", "z"]},
    )
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    own, simple, several = lines(path)
    assert own.captions == (Caption("long", "a bee"), Caption(None, "b"))
    assert (own.source, own.fields, own.span) == ("1.png", {"begin": 0, "end": 2}, (0, 2))
    assert (simple.source, simple.captions, simple.fields) == ("2.png", (Caption(None, "ein Käfer"),), {"score": 0.5})
    assert [caption.text for caption in several.captions] == ["y", "z", "x"]
    assert [line.place for line in read_manifest(path)] == [f"{path}:{number}" for number in (1, 3, 4)]


def test_the_manifests_of_the_release_are_read(tmp_path):
    picture = {"image_path": "a/1.jpg", "long_caption": "a long one", "text": "short", "width": 640, "height": 480}
    clip = {
        "video_path": "v/1.mp4", "begin_frame_id": 24, "end_frame_id": 72, "fps": 16, "width": 848, "height": 480,
        "quality_prompt": "The quality is very high!",
        "caption": [{"type": "short", "content": "s"}, {"type": "medium", "content": "m"}],
    }  # fmt: skip
    first, second = lines(write(tmp_path / "m.jsonl", picture, clip))
    assert first.captions == (Caption(None, "short"), Caption("long", "a long one"))
    assert (first.source, first.fields) == ("a/1.jpg", {"width": 640, "height": 480})
    assert second.captions == (Caption("short", "s"), Caption("medium", "m"))
    assert second.span == (1.5, 4.5)
    assert second.fields["quality_prompt"] == "The quality is very high!"
    assert second.fields["begin_frame_id"] == 24


CLIP = {"video_path": "1.mp4", "caption": "x"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"path": "1.png", "caption": "x"\n', "is no JSON object"),
        (b'{"path": "1.png", "caption": "caf\xe9"}\n', "is not valid UTF-8"),
        (b'{"path": "1.png", "caption": "x", "caption": "y"}\n', "the key 'caption' stands in it twice"),
        (b'{"path": "1.png", "caption": "x", "score": NaN}\n', "NaN is no number of JSON"),
        (b"[" * 100_000 + b"\n", "is nested too deeply"),
        (b'"text"\n', "holds 'text', expected a JSON object"),
        ({"caption": "x"}, "its source is named by none"),
        ({"path": "1.png", "source": "1.png", "caption": "x"}, "its source is named by source and path"),
        ({"path": "1.png", "width": 3}, "has no caption"),
        ({"path": "1.png", "caption": ""}, "a caption is empty"),
        ({"path": "1.png", "caption": "\ud800"}, "is not valid Unicode"),
        ({"path": "1.png", "caption": 3}, "a caption is 3"),
        ({"path": "1.png", "caption": None}, "has no caption, expected one of captions, caption"),
        ({"path": "1.png", "caption": []}, "field captions is []"),
        ({"path": "1.png", "caption": ["x", "x"]}, "has the caption 'x' twice"),
        ({"path": 3, "caption": "x"}, "field path is 3"),
        ({**CLIP, "begin_frame_id": 3, "end_frame_id": 9}, "fps 0, expected"),
        ({**CLIP, "begin_frame_id": 9, "end_frame_id": 3, "fps": 8}, "begin_frame_id is 9, end_frame_id 3"),
        ({**CLIP, "begin_frame_id": 0, "end_frame_id": 10**400, "fps": 8}, "expected two ascending numbers"),
        ({**CLIP, "begin_frame_id": True, "end_frame_id": 3, "fps": 8}, "begin_frame_id is True"),
        (b" " * (MAX_LINE_BYTES + 1), "is longer than 16 MiB"),
    ],
)
def test_a_wrong_line_is_named_in_one_sentence(tmp_path, bad, words):
    path = write(tmp_path / "c.jsonl", {"path": "0.png", "caption": "x"}, bad)
    with pytest.raises(UsageError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"\n \n", "has no line")])
def test_a_file_without_lines_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_manifest(tmp_path / "c.jsonl")
