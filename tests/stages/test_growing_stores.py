"""A store grows by sources wherever they sort: the rows it has stay, and what was removed or has changed is named."""

import json
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from itertools import count

import pytest

import grncli
from grncli import open_store
from grncli.media.writing import write_png
from grncli.runtime.errors import MediaError, StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.store import verify_store
from grncli.store.rows.row_writer import RowWriter
from grncli.tokenizing import sample_writer

FIRST = ["a/2.png", "a/4.png", "b/3.png", "b/7.png"]
LATER = ["a/1.png", "a/3.png", "b/5.png", "b/9.png"]


@pytest.fixture
def folder(tmp_path, draw_picture):
    """A folder with the first pictures, and a way to put pictures into it, as (height, width) or 16x16."""

    class Folder:
        path = tmp_path / "media"

        def put(self, *names, shape=(16, 16)):
            for name in names:
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                write_png(self.path / name, draw_picture(sum(name.encode()), *shape))

    folder = Folder()
    folder.put(*FIRST)
    return folder


@pytest.fixture
def tokenize(folder, run_dir, tmp_path):
    """The call, of the folder into s.zarr unless others are named; its messages are kept in ``said``."""

    def call(src=None, out="s.zarr", **options):
        call.said = []
        monitor = Monitor(say=call.said.append)
        options = {"workers": 0, "batch": 1, **options}
        return grncli.tokenize(src or folder.path, tmp_path / out, tokenizer=run_dir, progress=monitor, **options)

    return call


def keys(store):
    """Keys in the order in which they were written, part by part."""
    lines = (path.read_text().splitlines() for path in sorted(store.glob("part-*/samples.jsonl")))
    return [json.loads(line)["key"] for some in lines for line in some]


def samples(store):
    """Bits and label by key."""
    opened = open_store(store)
    named = [None if sample.label < 0 else opened.labels[sample.label] for sample in opened[:]]
    return {
        line["key"]: (sample.bits.tobytes(), name)
        for line, sample, name in zip(opened.records(), opened[:], named, strict=True)
    }


class Killed(BaseException):
    """In place of SIGKILL: nothing of ours catches it."""


@contextmanager
def dying_at(number):
    """Every group of sources is committed, but the commit of this number, from 0, does not come about."""
    write, calls = RowWriter._write_record, count()

    def dying(writer, **changes):
        if next(calls) == number:
            raise Killed
        write(writer, **changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_writer, "COMMIT_SECONDS", 0.0)
        patch.setattr(RowWriter, "_write_record", dying)
        yield


def commit(store, part=0):
    return json.loads((store / f"part-{part:05d}/commit.json").read_text())


def test_new_sources_follow_the_old_ones_wherever_they_sort(tokenize, folder, tmp_path):
    tokenize(labels="dirs")
    before = (tmp_path / "s.zarr/part-00000/samples.jsonl").read_text()
    folder.put(*LATER)
    summary = tokenize(labels="dirs")
    assert (summary.made, summary.samples, summary.sources, summary.done) == (4, 8, 8, 8)
    assert keys(tmp_path / "s.zarr") == FIRST + LATER
    assert (tmp_path / "s.zarr/part-00000/samples.jsonl").read_text().startswith(before)
    assert f"4 new sources added at the end, such as {folder.path}/a/1.png" in tokenize.said
    assert not verify_store(tmp_path / "s.zarr")
    tokenize(out="whole.zarr", labels="dirs")
    assert samples(tmp_path / "s.zarr") == samples(tmp_path / "whole.zarr")


def test_a_store_that_has_grown_is_left_alone(tokenize, folder, tmp_path, read_tree):
    tokenize()
    folder.put(*LATER)
    tokenize()
    before = read_tree(tmp_path / "s.zarr")
    assert tokenize().made == 0
    assert read_tree(tmp_path / "s.zarr") == before
    folder.put("a/0.png", "c/0.png")
    assert tokenize().made == 2
    assert keys(tmp_path / "s.zarr") == [*FIRST, *LATER, "a/0.png", "c/0.png"]


def test_sources_that_sort_last_keep_the_digest_of_the_order(tokenize, folder, tmp_path):
    tokenize()
    folder.put("c/1.png")
    tokenize()
    tokenize(out="whole.zarr")
    assert commit(tmp_path / "s.zarr") == commit(tmp_path / "whole.zarr")
    folder.put("a/1.png")
    tokenize()
    assert commit(tmp_path / "s.zarr")["digest"].startswith("set:")


def test_several_sources_in_another_order_are_the_same(tokenize, folder, tmp_path):
    tokenize([folder.path / "a", folder.path / "b"])
    assert tokenize([folder.path / "b", folder.path / "a"]).made == 0


def test_an_interrupted_store_takes_sources_in_between(tokenize, folder, tmp_path):
    with dying_at(2), pytest.raises(Killed):
        tokenize()
    folder.put(*LATER)
    assert tokenize().samples == 8
    assert sorted(keys(tmp_path / "s.zarr")) == sorted(FIRST + LATER)


# Killed and resumed


@pytest.mark.parametrize("number", range(4))
def test_a_growing_store_killed_and_resumed_has_the_same_bytes(tokenize, folder, tmp_path, read_tree, number):
    (folder.path / "a/4.png").write_bytes(b"bad")
    for out in ("s.zarr", "whole.zarr"):
        tokenize(out=out, batch=2)
    (folder.path / "a/4.png").unlink()
    folder.put("a/4.png", *LATER)
    (folder.path / "a/3.png").write_bytes(b"bad")
    with dying_at(number), pytest.raises(Killed):
        tokenize(batch=2, retry_failed=True)
    tokenize(batch=2, retry_failed=True)
    tokenize(out="whole.zarr", batch=2, retry_failed=True)
    assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / "whole.zarr")
    assert sorted(keys(tmp_path / "s.zarr")) == sorted({*FIRST, *LATER} - {"a/3.png"})


_KILLED_LATE = """
import os, signal, sys
from itertools import count
from grncli.__main__ import main
from grncli.store.rows.row_writer import RowWriter
from grncli.tokenizing import sample_writer

write, calls = RowWriter._write_record, count()

def killing(writer, **changes):
    write(writer, **changes)
    if next(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

sample_writer.COMMIT_SECONDS = 0.0
RowWriter._write_record = killing
main()
"""


def test_a_process_killed_while_a_store_grows_loses_nothing(tokenize, folder, run_dir, tmp_path, read_tree):
    tokenize()
    tokenize(out="whole.zarr")
    folder.put(*LATER)
    arguments = ["tokenize", folder.path, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0, "--batch", 1]
    killed = subprocess.run([sys.executable, "-c", _KILLED_LATE, *map(str, arguments)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert commit(tmp_path / "s.zarr")["position"] == 7
    assert tokenize().made == 1
    tokenize(out="whole.zarr")
    assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / "whole.zarr")


# Removed and changed sources


def test_removed_sources_are_named_and_kept_with_add(tokenize, folder, tmp_path, read_tree):
    tokenize()
    before = read_tree(tmp_path / "s.zarr")
    (folder.path / "a/4.png").unlink()
    (folder.path / "b/3.png").unlink()
    folder.put("a/1.png")
    with pytest.raises(StoreMismatch, match=r"samples of 2 sources that SRC does not list now \(such as .*a/4\.png\)"):
        tokenize()
    assert read_tree(tmp_path / "s.zarr") == before
    summary = tokenize(add=True)
    assert (summary.made, summary.samples, summary.sources, summary.done) == (1, 5, 5, 5)
    assert any("keeps the samples of 2 sources" in text for text in tokenize.said)
    assert keys(tmp_path / "s.zarr") == [*FIRST, "a/1.png"]
    assert tokenize(add=True).made == 0
    assert not verify_store(tmp_path / "s.zarr")


def test_add_takes_new_sources_alone(tokenize, folder, tmp_path):
    tokenize(labels="dirs")
    others = tmp_path / "others"
    folder.path, first = others, folder.path
    folder.put("b/1.png", "b/2.png")
    with pytest.raises(StoreMismatch, match="samples of 4 sources"):
        tokenize(labels="dirs")
    assert tokenize(labels="dirs", add=True).made == 2
    opened = open_store(tmp_path / "s.zarr")
    assert [opened.labels[sample.label] for sample in opened[:]] == ["a", "a", "b", "b", "b", "b"]
    assert tokenize([first, others], labels="dirs").made == 0


def test_a_new_class_is_refused_by_its_name_and_comes_last_with_add(tokenize, folder, tmp_path, read_tree):
    tokenize(labels="dirs")
    before = read_tree(tmp_path / "s.zarr")
    folder.put("aa/1.png")
    with pytest.raises(StoreMismatch, match=r"has 2 classes, and .* has others too \(such as aa\)"):
        tokenize(labels="dirs")
    assert read_tree(tmp_path / "s.zarr") == before
    with dying_at(0), pytest.raises(Killed):
        tokenize(labels="dirs", add=True)
    tokenize(labels="dirs")
    assert open_store(tmp_path / "s.zarr").labels == ("a", "b", "aa")
    tokenize(out="whole.zarr", labels="dirs")
    assert samples(tmp_path / "s.zarr") == samples(tmp_path / "whole.zarr")
    assert not verify_store(tmp_path / "s.zarr")


def test_changed_sources_are_named_and_stay_with_add(tokenize, folder, tmp_path, read_tree):
    tokenize()
    before, had = read_tree(tmp_path / "s.zarr"), (folder.path / "b/3.png").stat().st_size
    folder.put("b/3.png", shape=(32, 32))
    has = (folder.path / "b/3.png").stat().st_size
    with pytest.raises(StoreMismatch, match=rf"b/3\.png: has {has:,} bytes now, it had {had:,} when its samples"):
        tokenize()
    assert tokenize(add=True).made == 0
    assert any("the samples stay as they are" in text for text in tokenize.said)
    assert read_tree(tmp_path / "s.zarr") == before


@pytest.mark.parametrize("new", [False, True])
def test_sources_of_another_class_than_then_are_named_and_stay_with_add(tokenize, folder, tmp_path, new):
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"{name},{name[0]}\n" for name in FIRST + LATER))
    tokenize(labels=labels)
    before = samples(tmp_path / "s.zarr")
    labels.write_text(labels.read_text().replace("a/4.png,a", "a/4.png,b"))
    if new:
        folder.put("a/1.png")
    with pytest.raises(StoreMismatch, match=r"a/4\.png: has the label 'b' now, its samples in .* have 'a'; give"):
        tokenize(labels=labels)
    assert samples(tmp_path / "s.zarr") == before
    assert tokenize(labels=labels, add=True).made == new
    assert any("these stay as they are" in text for text in tokenize.said)


def test_members_of_an_archive_that_have_changed_are_named(tokenize, folder, tmp_path):
    def pack(*names):
        with zipfile.ZipFile(tmp_path / "media.zip", "w") as archive:
            for name in names:
                archive.write(folder.path / name, name)
        return tmp_path / "media.zip"

    tokenize(pack(*FIRST))
    folder.put(*LATER)
    assert tokenize(pack(*LATER, *FIRST)).made == 4
    folder.put("a/2.png", shape=(16, 24))
    with pytest.raises(StoreMismatch, match=r"media\.zip/a/2\.png: has .* bytes now"):
        tokenize(pack(*FIRST, *LATER))


def test_a_source_that_failed_may_be_removed(tokenize, folder):
    (folder.path / "a/3.png").write_bytes(b"bad")
    assert tokenize().failed == 1
    (folder.path / "a/3.png").unlink()
    folder.put("a/1.png")
    assert (tokenize().made, tokenize(retry_failed=True).made) == (1, 0)


def test_a_limit_below_what_is_done_is_refused(tokenize):
    tokenize()
    with pytest.raises(UsageError, match=r"--limit 3: .* holds 1 source that .* not among the first so many"):
        tokenize(limit=3)


def test_add_contradicts_overwrite(tokenize):
    with pytest.raises(UsageError, match="--add with --overwrite"):
        tokenize(add=True, overwrite=True)


# Failures


def test_failed_sources_are_tried_again_after_a_store_has_grown(tokenize, folder, tmp_path):
    for name in ("a/2.png", "b/7.png"):
        (folder.path / name).write_bytes(b"bad")
    tokenize()
    folder.put(*LATER)
    tokenize()
    folder.put("a/0.png", "b/7.png")
    summary = tokenize(retry_failed=True)
    assert (summary.made, summary.failed) == (2, 1)
    assert keys(tmp_path / "s.zarr")[-2:] == ["b/7.png", "a/0.png"]
    with pytest.raises(MediaError, match=r"a/2\.png.*recorded by an earlier run"):
        tokenize(strict=True)


def test_failures_are_known_when_the_folder_is_named_in_another_way(tokenize, folder, monkeypatch, tmp_path):
    (folder.path / "a/2.png").write_bytes(b"bad")
    (folder.path / "b/3.txt").write_text("a caption")
    tokenize()
    folder.put("a/2.png", "a/1.png")
    monkeypatch.chdir(tmp_path)
    summary = tokenize("media", retry_failed=True)
    assert (summary.made, summary.failed, summary.captioned) == (2, 0, 1)
    assert not list(open_store(tmp_path / "s.zarr").failures())


# Windows, mirrored copies, captions


def test_windows_and_mirrored_copies_belong_to_their_source(tokenize, folder, media_dir, tmp_path):
    (folder.path / "clips").symlink_to(media_dir / "clips")
    folder.put("a/9.png#0.png", "a/8#flip.png")
    tokenize(frames=5, flip=True)
    folder.put("a/1.png")
    assert tokenize(frames=5, flip=True).made == 2
    assert keys(tmp_path / "s.zarr")[-2:] == ["a/1.png", "a/1.png#flip"]
    assert tokenize(frames=5, flip=True).made == 0


def test_captions_of_new_sources_follow(tokenize, folder, tmp_path):
    (folder.path / "a/4.txt").write_text("old")
    tokenize()
    folder.put("a/1.png")
    (folder.path / "a/1.txt").write_text("new")
    assert tokenize().captioned == 2
    lines = (tmp_path / "s.zarr/part-00000/captions.jsonl").read_text().splitlines()
    assert {json.loads(line)["captions"][0]["content"] for line in lines} == {"old", "new"}


# Parts


def tokenize_parts(tokenize, parts=3, **options):
    return [tokenize(part=(part, parts), **options) for part in range(parts)]


def test_each_new_source_comes_into_one_part(tokenize, folder, tmp_path):
    tokenize_parts(tokenize)
    new = [f"{letter}/{number}.png" for letter in "ab" for number in (0, 1, 5, 6)]
    folder.put(*new)
    assert sum(summary.made for summary in tokenize_parts(tokenize)) == 8
    assert sorted(keys(tmp_path / "s.zarr")) == sorted(FIRST + new)
    assert open_store(tmp_path / "s.zarr").complete
    assert not verify_store(tmp_path / "s.zarr")
    assert sum(summary.made for summary in tokenize_parts(tokenize)) == 0
    tokenize(out="whole.zarr")
    assert samples(tmp_path / "s.zarr") == samples(tmp_path / "whole.zarr")


def test_parts_grow_once_every_part_is_complete(tokenize, folder, tmp_path):
    tokenize(part=(0, 2))
    folder.put("a/1.png")
    for part in (0, 1):
        with pytest.raises(StoreMismatch, match="part-00001 is not complete, and SRC lists other sources"):
            tokenize(part=(part, 2))
    (folder.path / "a/1.png").unlink()
    tokenize(part=(1, 2))
    folder.put("a/1.png")
    assert sum(summary.made for summary in tokenize_parts(tokenize, 2)) == 1


def test_a_source_taken_by_one_part_is_not_taken_by_another_that_sees_nothing_new(tokenize, folder, tmp_path):
    folder.put("c/9.png")  # of part 0, as what follows the four others
    folder.path, whole = tmp_path / "four", folder.path
    folder.put(*FIRST)
    tokenize_parts(tokenize, 2)
    folder.path = whole
    assert tokenize(part=(0, 2)).made == 1
    folder.put("c/1.png")  # to part 1, c/9.png would follow its own in the list
    made = [summary.made for summary in tokenize_parts(tokenize, 2)]
    assert sum(made) == 1
    assert sorted(keys(tmp_path / "s.zarr")) == sorted([*FIRST, "c/1.png", "c/9.png"])


@pytest.mark.parametrize("number", range(3))
def test_a_part_killed_while_it_grows_does_not_stop_the_others(tokenize, folder, tmp_path, read_tree, number):
    for out in ("s.zarr", "whole.zarr"):
        tokenize_parts(tokenize, 2, out=out)
    folder.put(*(f"a/1{i}.png" for i in range(8)))
    with dying_at(number), pytest.raises(Killed):
        tokenize(part=(0, 2), retry_failed=True)
    for out in ("s.zarr", "whole.zarr"):
        for part in (1, 0):
            tokenize(part=(part, 2), out=out)
    assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / "whole.zarr")


# What a dry run says, and damage


def test_a_dry_run_says_how_many_would_be_added(tokenize, folder, grn_inside, run_dir, tmp_path, read_tree):
    tokenize()
    before = read_tree(tmp_path / "s.zarr")
    folder.put(*LATER)

    def say(*options):
        arguments = ("tokenize", folder.path, tmp_path / "s.zarr", "--tokenizer", run_dir, "--dry-run", *options)
        done = grn_inside(*arguments)
        return done.stderr.splitlines()[-1]

    assert "4 sources would be added to its 4" in say()
    (folder.path / "a/2.png").unlink()
    assert "samples of 1 source that SRC does not list now" in say()
    assert "4 sources would be added to its 4; " in say("--add")
    asked = {"tokenizer": run_dir, "workers": 0}
    costs = grncli.estimate_costs(grncli.tokenize, [folder.path], tmp_path / "s.zarr", add=True, **asked)
    assert costs.counts["sources"] == 4
    with pytest.raises(StoreMismatch, match="rounds=4"):
        grncli.estimate_costs(grncli.tokenize, folder.path, tmp_path / "s.zarr", rounds=2, **asked)
    assert read_tree(tmp_path / "s.zarr") == before


def test_lines_that_the_commit_record_does_not_count_are_damage(tokenize, folder, tmp_path):
    tokenize()
    folder.put("a/1.png")
    tokenize()
    lines = tmp_path / "s.zarr/part-00000/samples.jsonl"
    lines.write_text(lines.read_text().replace("a/4.png", "a/5.png"))
    with pytest.raises(StoreError, match="lines of other sources than its commit record counts"):
        tokenize(add=True)
