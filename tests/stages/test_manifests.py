"""Tokenizing what a manifest names: its labels, its captions, and stretches of clips, as a user meets them."""

import json

import numpy as np
import pytest

from grncli import open_store
from grncli.captioning.captioning_stage import caption_store
from grncli.runtime.errors import StoreMismatch
from grncli.store.captions import read_captions
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


@pytest.fixture
def manifest(media_dir):
    """Two pictures with several captions and a label, and two stretches of one clip."""
    path = media_dir / "list.jsonl"
    rows = [
        {"path": "b/01.png", "label": "owl", "caption": ["eine Eule", "an owl"], "score": 1},
        {"path": "a/02.png", "label": 0},
        {"path": "clips/0.mp4", "label": "owl", "caption": "it begins", "begin": 0, "end": 0.75},
        {"path": "clips/0.mp4", "caption": [{"type": "short", "content": "it ends"}], "begin": 0.75, "end": 1.6},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    yield path
    path.unlink()


def settings(**options):
    return TokenizeSettings(**{"workers": 0, "labels": "manifest", **options})


def test_labels_captions_and_stretches_of_a_manifest_are_in_the_store(manifest, run_dir, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nowl\n")
    summary = tokenize(str(manifest), tmp_path / "s.zarr", run_dir, settings(class_names=names))
    store = open_store(tmp_path / "s.zarr")
    assert (summary.sources, summary.failed, summary.captioned) == (4, 0, 3)
    assert (store.fingerprint.labels, store.fingerprint.preprocessing["labels"]) == (("ant", "owl"), "manifest")
    records = {record["key"]: record for record in store.records()}
    assert {key: record["label"] for key, record in records.items()} == {
        "b/01.png": "owl", "a/02.png": "ant", "clips/0@0-0.75.mp4": "owl", "clips/0@0.75-1.6.mp4": None,
    }  # fmt: skip
    assert [records[f"clips/0@{span}.mp4"]["start"] for span in ("0-0.75", "0.75-1.6")] == [0.0, 0.75]
    captions = read_captions(store)
    said = {key: [caption.text for caption in captions.of_sample(record)] for key, record in records.items()}
    assert said == {
        "b/01.png": ["eine Eule", "an owl"], "a/02.png": [],
        "clips/0@0-0.75.mp4": ["it begins"], "clips/0@0.75-1.6.mp4": ["it ends"],
    }  # fmt: skip
    assert captions.fields(records["b/01.png"]["source"])["score"] == 1


def test_the_command_reads_a_csv_with_columns_of_other_names(manifest, run_dir, tmp_path, grn_inside):
    path = manifest.with_name("of others.csv")
    path.write_text("file,what,path\nb/01.png,an owl,site/7\na/02.png,,site/8\n")
    try:
        arguments = [path, tmp_path / "s.zarr", "--tokenizer", run_dir, "--labels", "dirs", "--workers", 0]
        chosen = ["--columns", "path=file,caption=what"]
        assert grn_inside("tokenize", *arguments, *chosen).returncode == 0
        refused = grn_inside("tokenize", *arguments, "--columns", "path=nofile")
        assert refused.returncode == 2
        assert (
            "1: its source is named by none of its columns (file, what, path), expected one of nofile" in refused.stderr
        )
    finally:
        path.unlink()
    store = open_store(tmp_path / "s.zarr")
    assert {record["key"] for record in store.records()} == {"a/02.png", "b/01.png"}
    assert len(read_captions(store)) == 1


def test_names_of_classes_need_labels(manifest, run_dir, tmp_path, grn_inside):
    (tmp_path / "names.txt").write_text("ant\n")
    arguments = [manifest, tmp_path / "s.zarr", "--tokenizer", run_dir, "--class-names", tmp_path / "names.txt"]
    refused = grn_inside("tokenize", *arguments)
    assert (refused.returncode, "--class-names needs --labels" in refused.stderr) == (2, True)
    refused = grn_inside("tokenize", *arguments, "--labels", "manifest")
    assert refused.returncode == 2
    assert "b/01.png: has the label 'owl', which is not one of the names in --class-names (ant)" in refused.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_captions_given_later_find_their_stretch(manifest, run_dir, tmp_path):
    tokenize(str(manifest), tmp_path / "s.zarr", run_dir, settings(captions=False))
    table = tmp_path / "c.csv"
    table.write_text("path,begin,end,caption\n0.mp4,0.75,1.6,b\n0.mp4,0,0.75,a\n0.mp4,0,0.75,c\nno.mp4,,,x\n")
    summary = caption_store(tmp_path / "s.zarr", table)
    assert (summary.added, summary.lone, summary.first_lone) == (2, 1, "no.mp4")
    store = open_store(tmp_path / "s.zarr")
    captions = read_captions(store)
    said = {record["key"]: [c.text for c in captions.of_sample(record)] for record in store.records()}
    assert said["clips/0@0-0.75.mp4"] == ["a", "c"]
    assert said["clips/0@0.75-1.6.mp4"] == ["b"]


def test_other_class_names_are_another_store(manifest, run_dir, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nowl\n")
    tokenize(str(manifest), tmp_path / "s.zarr", run_dir, settings(class_names=names))
    names.write_text("bee\nowl\n")
    with pytest.raises(StoreMismatch, match=r"labels\[0\]=ant; this command asks for bee"):
        tokenize(str(manifest), tmp_path / "s.zarr", run_dir, settings(class_names=names))


def test_the_bits_of_a_stretch_are_those_of_a_clip_cut_there(manifest, run_dir, tmp_path):
    tokenize(str(manifest), tmp_path / "s.zarr", run_dir, settings(frames=5, clips=1))
    tokenize(str(manifest.parent / "clips/0.mp4"), tmp_path / "whole.zarr", run_dir, settings(labels="none", frames=5))
    cut, whole = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "whole.zarr")
    place = [record["key"] for record in cut.records()].index("clips/0@0-0.75.mp4#0")
    assert np.array_equal(cut[place].bits, whole[0].bits)
