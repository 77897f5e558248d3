"""Compacted, divided and merged stores have the same samples, and the stores they are made of stay as they were."""

import os

import numpy as np
import pytest
import torch
from small_stores import GRIDS, fingerprint, random_bits, records, run, tree
from store_contents import changed_files, contents
from test_store_resume import killed_at

from grncli import compact_store, dedupe_store, drop_samples, merge_stores, open_features, open_store, split_store
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.store import open_part, part_name, verify_store
from grncli.store.captions import Caption, CaptionLine, read_captions
from grncli.store.feature_settings import FeatureSettings
from grncli.store.rows import dropped_rows
from grncli.store.text_features import open_feature_part
from grncli.text.templates import prompt_digest


def without_parts(found):
    return {key: value for (_, key), value in found.items()}


def caption(store, part, *sources):
    columns = [("seed", np.int64), ("entropy", np.float32)]
    with open_part(store, open_store(store).fingerprint, part, len(open_store(store).parts), columns=columns) as writer:
        writer.write_captions([CaptionLine(name, (Caption(None, f"shows {name}"),)) for name in sources])


def single(path, first, last, **changes):
    """A store of sources numbered from ``first``, of one part."""
    with open_part(path, fingerprint(**changes)) as writer:
        for number in range(first, last):
            grid, n = GRIDS[number % 3], 1 + number % 3
            writer.append(grid, random_bits(n, grid, seed=number), np.full(n, number % 2), records(n, f"{number}.png"))
            writer.commit(number - first + 1, "a" * 64, last - first)
        writer.finish()
    return path


# Compacting


def test_a_compact_store_has_the_remaining_samples_with_captions_and_failures(store):
    for part in range(2):
        caption(store, part, *(("3.png", "4.png") if part else ("0.png", "3.png")))
    drop_samples(store, keys=["3.png", "5.png#0"])
    before, out = tree(store), store.parent / "out.zarr"
    with pytest.raises(StoreError, match="two lines"):
        read_captions(open_store(store))  # as the small store has its sources in both parts
    summary = compact_store(store, out)
    assert (summary.removed, summary.made) == (4, True)
    assert contents(out) == contents(store)
    assert list(open_store(out).failures()) == list(open_store(store).failures())
    assert sorted(read_captions(open_store(out))) == ["0.png", "4.png"]
    assert [part.position for part in open_store(out).parts] == [9, 13]
    assert verify_store(out) == []
    assert tree(store) == before
    assert open_store(out).fingerprint.versions["edited"].startswith("compact ")
    assert not compact_store(store, out).made


def test_full_chunks_before_the_first_dropped_row_are_the_same_files(store):
    drop_samples(store, keys=["11.png#2"])
    compact_store(store, store.parent / "out.zarr")
    inodes = {path.stat().st_ino for path in store.rglob("c.*")}
    shared = [path for path in store.parent.joinpath("out.zarr").rglob("bits/c.*") if path.stat().st_ino in inodes]
    arrays = [arrays[0] for part in open_store(store).stored_parts().values() for arrays in part.arrays.values()]
    assert len(shared) == sum(array.rows // array.layout.chunk_rows for array in arrays) - 1 > 5


def test_a_file_system_without_links_gets_copies(store, monkeypatch):
    compact_store(store, store.parent / "linked.zarr")

    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    compact_store(store, store.parent / "copied.zarr")
    assert tree(store.parent / "copied.zarr") == tree(store.parent / "linked.zarr")


def test_a_store_written_further_leaves_the_one_that_shares_its_files_alone(store):
    out = store.parent / "out.zarr"
    compact_store(store, out)
    before = tree(out)
    for part in range(2):
        run(store, part=part, parts=2, sources=20)
    assert tree(out) == before
    grown = tree(store)
    for part in range(2):
        run(out, part=part, parts=2, sources=17)
    assert tree(store) == grown
    assert verify_store(out) == []


def test_compacting_in_place_killed_anywhere_and_repeated_leaves_the_same_store(memory_disk, small_chunks):
    def prepared(folder):
        folder.mkdir()
        run(folder / "store.zarr", sources=5)
        drop_samples(folder / "store.zarr", keys=["1.png#0"])
        return contents(folder / "store.zarr")

    def compacted(folder):
        compact_store(folder / "store.zarr")

    remaining = prepared(memory_disk / "expected")
    compacted(memory_disk / "expected")
    expected = tree(memory_disk / "expected")
    assert contents(memory_disk / "expected/store.zarr") == remaining
    at, stopped = 0, True
    while stopped:
        at += 11
        folder = memory_disk / f"killed-{at}"
        prepared(folder)
        stopped = killed_at(folder, at, compacted)
        compacted(folder)
        assert tree(folder) == expected, f"stopped at change {at}"
    assert at > 100


def test_a_store_made_anew_between_the_renames_of_a_compaction_costs_neither(memory_disk, small_chunks, monkeypatch):
    store = single(memory_disk / "store.zarr", 0, 3)
    drop_samples(store, keys=["1.png"])
    rename = os.rename

    def killed(source, target):
        rename(source, target)
        if target == memory_disk / ".store.zarr.before-compact":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            compact_store(store)
    single(store, 5, 7)
    before = tree(memory_disk)
    with pytest.raises(StoreError, match="was made anew while the compaction of an earlier store"):
        compact_store(store)
    assert tree(memory_disk) == before
    store.rename(memory_disk / "new.zarr")
    compact_store(store)
    assert {line["source"] for line in open_store(store).records()} == {"0.png", "2.png"}


def test_more_sources_than_can_be_remembered_are_refused_before_anything_is_copied(store, monkeypatch, tmp_path):
    drop_samples(store, keys=["3.png"])
    monkeypatch.setattr(dropped_rows, "MAX_BYTES", 40)
    before = tree(tmp_path)
    for out in (None, tmp_path / "out.zarr"):
        with pytest.raises(StoreError, match=r"dropped\.json would be larger than .* with 1 sources that have left"):
            compact_store(store, out)
    assert tree(tmp_path) == before


def test_a_source_that_is_gone_is_remembered_as_done(store):
    drop_samples(store, keys=["3.png"])
    out = compact_store(store, store.parent / "out.zarr").store
    merged = merge_stores([out], store.parent / "merged.zarr").store
    for path in (out, merged):
        assert [part.dropped.gone for part in open_store(path).stored_parts().values()] == [["3.png#0"], ["3.png#0"]]
        assert contents(path) == contents(store)


# Dividing


def test_shares_are_drawn_by_source_and_have_every_sample_once(store):
    outs = [store.parent / name for name in ("a.zarr", "b.zarr", "c.zarr")]
    summary = split_store(store, outs, share=(0.5, 0.3, 0.2), seed=1)
    assert sum(summary.samples) == len(open_store(store))
    assert abs(summary.samples[0] - len(open_store(store)) / 2) <= 6
    found = [contents(out) for out in outs]
    assert {name: value for part in found for name, value in part.items()} == contents(store)
    sources = [{line["source"] for line in open_store(out).records()} for out in outs]
    assert not any(sources[i] & sources[j] for i in range(3) for j in range(i))
    failures = [line["source"] for out in outs for line in open_store(out).failures()]
    assert sorted(failures) == sorted(line["source"] for line in open_store(store).failures())
    for out in outs:
        assert verify_store(out) == []
    assert split_store(store, outs, share="0.5,0.3,0.2", seed=1).made is False
    with pytest.raises(StoreMismatch, match="did not make of the same data"):
        split_store(store, outs, share=(0.5, 0.3, 0.2), seed=2)


def test_a_list_goes_to_the_first_store_and_the_rest_to_the_second(store):
    outs = [store.parent / "listed.zarr", store.parent / "rest.zarr"]
    split_store(store, outs, keys=["3.png", "4.png#1"])
    keys = [{line["key"] for line in open_store(out).records()} for out in outs]
    assert keys[0] == {"3.png#0", "4.png#1"}
    assert not keys[0] & keys[1]
    only = split_store(store, [store.parent / "only.zarr"], keys=["3.png", "4.png#1"])
    assert only.samples == (len(open_store(outs[0])),)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": (0.5, 0.4)}, "sum to 1"),
        ({"share": (0.5, 0.25, 0.25)}, "3 shares for 2 new stores"),
        ({"share": (0.9999, 0.0001)}, "would have none of the 33 samples"),
        ({"share": "half"}, "--share half"),
        ({"keys": ["nobody"]}, "no key or source nobody"),
        ({}, "either --share"),
        ({"keys": ["3.png"], "seed": 1}, "--seed 1 is for --share"),
        ({"share": (0.5, 0.5), "keys": ["3.png"]}, "either --share"),
    ],
)
def test_a_division_that_cannot_be_is_refused_and_nothing_is_made(store, options, words):
    outs = [store.parent / "a.zarr", store.parent / "b.zarr"]
    with pytest.raises(UsageError, match=words):
        split_store(store, outs, **options)
    assert not any(out.exists() for out in outs)


# Merging


def test_what_was_divided_is_merged_again(store):
    outs = [store.parent / "a.zarr", store.parent / "b.zarr"]
    split_store(store, outs, share=(0.6, 0.4))
    before = [tree(out) for out in outs]
    with pytest.raises(UsageError, match="both have a sample"):
        merge_stores([*outs, store], store.parent / "twice.zarr")
    whole = merge_stores(outs, store.parent / "whole.zarr")
    assert (whole.parts, whole.samples) == (4, len(open_store(store)))
    merged = contents(whole.store)
    assert {(part % 2, key): value for (part, key), value in merged.items()} == contents(store)
    assert verify_store(whole.store) == []
    assert [tree(out) for out in outs] == before


def test_merging_killed_anywhere_and_resumed_leaves_the_same_bytes(memory_disk, small_chunks):
    parts = [single(memory_disk / f"{name}.zarr", 4 * i, 4 * i + 4) for i, name in enumerate("ab")]
    before = [tree(part) for part in parts]

    def merged(out):
        merge_stores(parts, out)

    merged(memory_disk / "expected.zarr")
    at, stopped = 0, True
    while stopped:
        at += 9
        out = memory_disk / f"killed-{at}.zarr"
        stopped = killed_at(out, at, merged)
        merged(out)
        assert tree(out) == tree(memory_disk / "expected.zarr"), f"stopped at change {at}"
        assert [tree(part) for part in parts] == before
    assert at > 70


def test_merging_asked_to_stop_saves_what_it_copied_and_resumes(store, memory_disk):
    class Later(Stop):
        looks = 0

        @property
        def reason(self):
            self.looks += 1
            return "SIGTERM" if self.looks > 3 else None

    other = single(memory_disk / "other.zarr", 30, 40)
    plain = split_store(other, [memory_disk / "p.zarr", memory_disk / "q.zarr"], share=(0.5, 0.5)).stores
    out = memory_disk / "out.zarr"
    with pytest.raises(Stopped, match="stopped after"):
        merge_stores(plain, out, progress=Monitor(stop=Later()))
    assert 0 < len(open_store(out)) < len(open_store(other))
    merge_stores(plain, out)
    assert without_parts(contents(out)) == without_parts(contents(other))


def test_stores_of_the_same_keys_are_merged_under_the_names_of_their_stores(memory_disk, small_chunks):
    pair = [single(memory_disk / f"{name}.zarr", 0, 4) for name in ("one", "two")]
    out = merge_stores(pair, memory_disk / "out.zarr", prefix_keys=True).store
    keys = [line["key"] for line in open_store(out).records()]
    assert len(set(keys)) == len(keys) == 14
    assert {key.split("/")[0] for key in keys} == {"one", "two"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ("ant", "cat")}, r"class 1 is 'bee' in .*a.zarr and 'cat' in .*b.zarr"),
        (
            {"rounds": 3, "preprocessing": {"size": 128}},
            r"a.zarr and .*b.zarr were made other.*size is 256 and 128",
        ),
        ({"tokenizer": {"name": "toy", "sha256": "0" * 64}}, r"tokenizer.sha256 is"),
    ],
)
def test_stores_made_otherwise_are_refused_and_both_are_named(memory_disk, small_chunks, changes, words):
    pair = [single(memory_disk / "a.zarr", 0, 2), single(memory_disk / "b.zarr", 2, 4, **changes)]
    with pytest.raises(StoreMismatch, match=words):
        merge_stores(pair, memory_disk / "out.zarr")
    assert not (memory_disk / "out.zarr").exists()


def test_a_list_of_classes_may_go_on(memory_disk, small_chunks):
    pair = [single(memory_disk / "a.zarr", 0, 2), single(memory_disk / "b.zarr", 2, 4, labels=("ant", "bee", "cat"))]
    assert open_store(merge_stores(pair, memory_disk / "out.zarr").store).labels == ("ant", "bee", "cat")


def test_of_several_stores_the_two_that_contradict_each_other_are_named(memory_disk, small_chunks):
    classes = {"a": ("ant", "bee"), "b": ("ant", "bee", "cat"), "c": ("ant", "bee", "dog")}
    stores = [
        single(memory_disk / f"{name}.zarr", 2 * n, 2 * n + 2, labels=classes[name]) for n, name in enumerate("abc")
    ]
    with pytest.raises(StoreMismatch, match=r"class 2 is 'cat' in .*b\.zarr and 'dog' in .*c\.zarr"):
        merge_stores(stores, memory_disk / "out.zarr")


def test_different_captions_of_one_source_are_refused(memory_disk, small_chunks):
    pair = [single(memory_disk / f"{name}.zarr", 0, 3) for name in "ab"]
    for path, text in zip(pair, ("a cat", "a dog"), strict=True):
        with open_part(path, fingerprint()) as writer:
            writer.write_captions([CaptionLine("1.png", (Caption(None, text),))])
    with pytest.raises(StoreError, match=r"different captions of 1\.png"):
        merge_stores(pair, memory_disk / "out.zarr", prefix_keys=True)


def test_a_source_never_gets_the_captions_of_another_one_of_its_name(memory_disk, small_chunks):
    pair = [single(memory_disk / f"{name}.zarr", 0, 3) for name in "ab"]
    with open_part(pair[1], fingerprint()) as writer:
        writer.write_captions([CaptionLine("1.png", (Caption(None, "a dog"),))])
    for stores in (pair, pair[::-1]):
        with pytest.raises(StoreError, match=r"b\.zarr has captions of 1\.png, and .*a\.zarr has samples"):
            merge_stores(stores, memory_disk / "out.zarr", prefix_keys=True)
    with open_part(pair[0], fingerprint()) as writer:
        writer.write_captions([CaptionLine("1.png", (Caption(None, "a dog"),))])
    assert merge_stores(pair, memory_disk / "out.zarr", prefix_keys=True).made


def test_a_changed_byte_of_a_copied_chunk_is_found(store):
    drop_samples(store, keys=["0.png#0"])
    chunk = store / part_name(0) / "1x2x3/bits/c.0.0.0.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0\.0\.0 has checksum"):
        compact_store(store, store.parent / "out.zarr")


def test_an_incomplete_store_an_out_inside_and_another_store_as_out_are_refused(store, memory_disk):
    with pytest.raises(UsageError, match="lies in it"):
        compact_store(store, store / "part-00000/out.zarr")
    other = single(memory_disk / "other.zarr", 0, 3)
    before = tree(other)
    with pytest.raises(StoreMismatch, match="did not make of the same data"):
        compact_store(store, other)
    assert not changed_files(before, other)
    (store / "COMPLETE").unlink()
    with pytest.raises(StoreError, match="is not complete"):
        compact_store(store, memory_disk / "out.zarr")


# Features stores


def features(path, prompts):
    settings = FeatureSettings(encoder={"name": "toy", "sha256": "0" * 64}, width=4, dtype="float32", max_tokens=8)
    with open_feature_part(path, settings) as writer:
        for prompt in prompts:
            writer.append(torch.full((1, len(prompt), 4), len(prompt) / 8), [prompt], [prompt_digest(prompt)])
        writer.commit(len(prompts), "")
        writer.finish()
    return path


def test_features_are_dropped_compacted_and_merged_once_each(memory_disk):
    pair = [features(memory_disk / "a.zarr", ["cat", "dog", "horse"]), features(memory_disk / "b.zarr", ["dog", "ant"])]
    drop_samples(pair[0], keys=["horse"])
    assert prompt_digest("horse") not in open_features(pair[0])
    assert compact_store(pair[0]).removed == 1
    summary = merge_stores(pair, memory_disk / "out.zarr")
    assert (summary.samples, summary.repeated) == (3, 1)
    store = open_features(memory_disk / "out.zarr")
    assert [len(each) for each in store.read([prompt_digest(text) for text in ("ant", "dog", "cat")])] == [3, 3, 3]
    bits = single(memory_disk / "bits.zarr", 0, 2)
    with pytest.raises(StoreMismatch, match="is a bit store"):
        merge_stores([bits, pair[1]], memory_disk / "mixed.zarr")
    with pytest.raises(StoreError, match="is a features store but not a bit store"):
        dedupe_store(pair[1])
