"""Captions of a file go to the sources that it means; where one is not clear nothing is changed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from grncli.captioning.captioning_stage import CaptioningSummary, caption_store
from grncli.runtime.errors import GrnError, StoreError, UsageError
from grncli.store import Fingerprint, open_part, open_store, verify_store
from grncli.store.captions import read_captions

SOURCES = ["data/a/1.png", "data/a/2.png", "data/b/1.png", "x.tar/c/3.mp4"]


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path):
    """Two parts of two sources each, every source with two samples."""
    path = tmp_path / "s.zarr"
    made = Fingerprint(rounds=1, channels=8, stride=(1, 4, 4), tokenizer={"name": "t", "sha256": "0"}, preprocessing={})
    for part in range(2):
        with open_part(path, made, part, 2) as writer:
            for source in SOURCES[2 * part : 2 * part + 2]:
                records = [{"key": f"{source}{flip}", "source": source} for flip in ("", "#flip")]
                writer.append((1, 2, 2), np.zeros((2, 1, 2, 2, 1, 1), np.uint8), None, records)
            writer.commit(2, "d", 2)
            writer.finish()
    return path


def give(store, *entries, name="c.jsonl"):
    file = store.parent / name
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return caption_store(store, file)


def texts(store):
    captions = read_captions(open_store(store))
    return {source: [caption.text for caption in captions.of(source)] for source in captions}


def files(store):
    return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/a/1.png", "data/a/1.png"),
        ("a/1.png", "data/a/1.png"),
        ("./b/1.png", "data/b/1.png"),
        ("../b/1.png", "data/b/1.png"),
        ("/mnt/disk/data/b/1.png", "data/b/1.png"),
        ("2.png", "data/a/2.png"),
        ("c/3.mp4", "x.tar/c/3.mp4"),
    ],
)
def test_a_source_is_found_by_its_path_or_by_an_end_that_only_it_has(store, path, source):
    give(store, {"path": path, "caption": "x"})
    assert texts(store) == {source: ["x"]}


def test_a_file_of_the_same_name_in_another_folder_is_another_one(store):
    summary = give(
        store,
        {"path": "other/2.png", "caption": "of another picture"},
        {"path": "/data/c/3.mp4", "caption": "of another clip"},
        {"path": "z/1.png", "caption": "of none"},
        {"path": "a/1.png", "caption": "x"},
    )
    assert texts(store) == {"data/a/1.png": ["x"]}
    assert summary == CaptioningSummary(
        lines=4,
        captions=1,
        added=1,
        replaced=0,
        unchanged=0,
        lone=3,
        first_lone="other/2.png",
        sources=4,
        uncaptioned=3,
    )


def test_captions_are_added_replaced_and_left_alone(store):
    give(store, {"path": "a/1.png", "caption": "one"}, {"path": "3.mp4", "captions": [{"type": "s", "content": "m"}]})
    before = files(store)
    again = give(store, {"path": "a/1.png", "caption": "one"})
    assert (again.added, again.replaced, again.unchanged) == (0, 0, 1)
    assert files(store) == before
    summary = give(store, {"path": "a/1.png", "caption": ["uno", "eins"]}, {"path": "a/2.png", "caption": "two"})
    assert (summary.added, summary.replaced, summary.unchanged, summary.uncaptioned) == (1, 1, 0, 1)
    assert texts(store) == {"data/a/1.png": ["uno", "eins"], "data/a/2.png": ["two"], "x.tar/c/3.mp4": ["m"]}
    assert verify_store(store) == []


def test_stretches_of_one_clip_have_lines_of_their_own(store):
    windows = [{"video_path": "3.mp4", "begin_frame_id": 8 * i, "end_frame_id": 8 * i + 8, "fps": 8} for i in range(2)]
    give(store, *({**window, "caption": f"part {i}"} for i, window in enumerate(windows)))
    captions = read_captions(open_store(store))
    assert [caption.text for caption in captions.of("x.tar/c/3.mp4", (1.0, 2.0))] == ["part 1"]
    with pytest.raises(UsageError, match=r"c\.jsonl:2: gives captions of x\.tar/c/3\.mp4 again, as .*c\.jsonl:1 does"):
        give(store, *({**windows[0], "caption": text} for text in "xy"))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"path": "1.png", "caption": "x"}], r"c\.jsonl:1: 1\.png may be data/a/1\.png or data/b/1\.png"),
        ([{"path": "a/1.png", "caption": "x"}, {"path": "a/1.png", "caption": "y"}], r"c\.jsonl:2: gives .* again"),
        ([{"path": "a/1.png", "caption": "x"}, {"path": "/data/a/1.png", "caption": "y"}], r"c\.jsonl:2: gives"),
        ([{"path": "a/1.png", "caption": "x"}, {"path": "a/2.png", "caption": " "}], r"c\.jsonl:2: a caption is empty"),
        ([{"path": "q.png", "caption": "x"}], r"names none of the 4 sources .*it names q\.png, the store has data/a/1"),
    ],
)  # fmt: skip
def test_what_is_not_clear_changes_nothing(store, entries, words):
    give(store, {"path": "b/1.png", "caption": "kept"})
    before = files(store)
    with pytest.raises(UsageError, match=words):
        give(store, *entries)
    assert files(store) == before


def test_a_damaged_line_of_the_store_is_named_and_stays(store):
    damaged = store / "part-00001/captions.jsonl"
    damaged.write_text('{"source": 3}\n')
    before = files(store)
    with pytest.raises(StoreError, match=r"part-00001/captions\.jsonl:1: field source is 3"):
        give(store, {"path": "a/1.png", "caption": "x"})
    assert files(store) == before


HOLD = """
import sys
from pathlib import Path
from grncli.store.rows.claiming import lock_part
lock_part(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_part_that_is_being_written_is_refused_by_another_process_and_others_are_not(store):
    command = [sys.executable, "-c", HOLD, str(store / "part-00000")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(GrnError, match="part-00000 is being written by another process"):
            give(store, {"path": "a/1.png", "caption": "x"}, {"path": "3.mp4", "caption": "y"})
        assert texts(store) == {}
        give(store, {"path": "3.mp4", "caption": "y"})
        holder.stdin.close()
    assert texts(store) == {"x.tar/c/3.mp4": ["y"]}
    give(store, {"path": "a/1.png", "caption": "x"})
    assert len(texts(store)) == 2
