"""`grn store` as a user meets it: words, exit codes, and processes that are killed."""

import json
import shutil
import signal
import time

import pytest

from grncli import open_store
from grncli.store.captions import read_captions
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


@pytest.fixture(scope="module")
def tokenized(media_dir, run_dir, tmp_path_factory):
    """Photographs of classes a and b with captions, one of them twice, as two stores and as one."""
    folder = tmp_path_factory.mktemp("edited")
    shutil.copytree(media_dir / "a", folder / "media/a")
    shutil.copytree(media_dir / "b", folder / "media/b")
    shutil.copy(folder / "media/a/02.png", folder / "media/b/02.png")
    for path in (folder / "media").rglob("*.png"):
        path.with_suffix(".txt").write_text(f"number {path.stem}\n")
    tokenize(str(folder / "media"), folder / "all.zarr", run_dir, TokenizeSettings(workers=0, labels="dirs", flip=True))
    return folder


@pytest.fixture
def store(tokenized, tmp_path):
    return shutil.copytree(tokenized / "all.zarr", tmp_path / "all.zarr")


def test_dropped_samples_do_not_come_back(store, tokenized, run_dir, grn_inside, tmp_path):
    (tmp_path / "keys").write_text("a/00.png\nb/01.png#flip\n")
    done = grn_inside("store", "drop", store, "--keys", tmp_path / "keys", "--json")
    assert done.stderr == f"{store}: 2 samples dropped, 24 remain\n"
    assert json.loads(done.stdout)["dropped"] == 2
    assert "24 samples (2 dropped) of 13/13 sources" in grn_inside("info", store, "--verify").stdout
    again = grn_inside("tokenize", tokenized / "media", store, "--tokenizer", run_dir, "--labels", "dirs", "--flip")
    assert again.returncode == 0, again.stderr
    assert len(open_store(store)) == 24


def test_a_name_of_nobody_is_wrong_usage(store, grn_inside, tmp_path):
    (tmp_path / "keys").write_text("a/00.png\nnobody\n")
    done = grn_inside("store", "drop", store, "--keys", tmp_path / "keys")
    assert (done.returncode, len(open_store(store))) == (2, 26)
    assert done.stderr == (f"grn: {store}: has no key or source nobody; nothing was changed, correct the list\n")


def test_a_source_and_its_mirrored_copy_and_its_caption_stay_together(store, grn_inside, tmp_path):
    outs = tmp_path / "train.zarr", tmp_path / "test.zarr"
    done = grn_inside("store", "split", store, *outs, "--share", "0.7,0.3", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["samples"] for each in json.loads(done.stdout)["stores"]] == [18, 8]
    for out in outs:
        lines = list(open_store(out).records())
        sources = {line["source"] for line in lines}
        assert len(lines) == 2 * len(sources)
        assert set(read_captions(open_store(out))) == sources
        assert grn_inside("info", out, "--verify").returncode == 0


def test_merging_killed_again_and_again_gives_the_bytes_of_one_that_was_not(
    store, grn_inside, start_grn, read_tree, tmp_path
):
    outs = tmp_path / "one.zarr", tmp_path / "two.zarr"
    grn_inside("store", "split", store, *outs, "--share", "0.5,0.5")
    merge = ["store", "merge", *outs]
    assert grn_inside(*merge, tmp_path / "whole.zarr").returncode == 0
    for pause in (0.6, 1.0):
        with start_grn(*merge, tmp_path / "killed.zarr") as process:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
    done = grn_inside(*merge, tmp_path / "killed.zarr")
    assert done.returncode == 0, done.stderr
    assert read_tree(tmp_path / "killed.zarr") == read_tree(tmp_path / "whole.zarr")
    assert "nothing to do" in grn_inside(*merge, tmp_path / "whole.zarr").stderr


def test_compacting_in_place_leaves_only_the_new_store(store, grn_inside, tmp_path):
    (tmp_path / "keys").write_text("b/02.png\n")
    grn_inside("store", "drop", store, "--keys", tmp_path / "keys")
    done = grn_inside("store", "compact", store)
    assert done.stderr == f"{store}: 1 dropped sample removed, 25 samples\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.zarr", "keys"]
    assert grn_inside("info", store, "--verify").returncode == 0
    assert grn_inside("store", "compact", store).stderr == f"{store}: nothing to do, 25 samples\n"


@pytest.mark.parametrize("by", ["bits", "source"])
def test_copies_are_found_and_all_but_the_first_dropped(store, grn_inside, by):
    found = grn_inside("store", "dedupe", store, "--by", by, "--json")
    report = json.loads(found.stdout)
    assert (report["duplicates"], report["dropped"], report["unread"]) == (2, 0, [])
    assert {each["label"] for group in report["groups"] for each in group} == {"a", "b"}
    done = grn_inside("store", "dedupe", store, "--by", by, "--drop")
    groups = "2 groups" if by == "bits" else "1 group"
    assert f"2 of 26 samples are the same as an earlier one, in {groups}" in done.stderr
    assert "different labels; 2 dropped" in done.stderr
    keys = {line["key"] for line in open_store(store).records()}
    assert "a/02.png" in keys
    assert not keys & {"b/02.png", "b/02.png#flip"}
    assert json.loads(grn_inside("store", "dedupe", store, "--by", by, "--json").stdout)["duplicates"] == 0


def test_members_of_archives_are_compared_by_their_bytes(tokenized, run_dir, grn_inside, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "media"), "tar", tokenized / "media")
    tokenize(archive, tmp_path / "tar.zarr", run_dir, TokenizeSettings(workers=0))
    report = json.loads(grn_inside("store", "dedupe", tmp_path / "tar.zarr", "--by", "source", "--json").stdout)
    assert [[each["key"] for each in group] for group in report["groups"]] == [["a/02.png", "b/02.png"]]


def test_sources_that_moved_are_named_and_none_at_all_is_refused(store, tokenized, grn_inside, tmp_path):
    moved = shutil.move(tokenized / "media", tmp_path / "elsewhere")
    try:
        done = grn_inside("store", "dedupe", store, "--by", "source")
        assert (done.returncode, "none of its 13 sources is where it was" in done.stderr) == (2, True)
    finally:
        shutil.move(moved, tokenized / "media")
