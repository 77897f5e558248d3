"""Stores that were edited take new sources, and no sample that was dropped comes back."""

import pytest

from grncli import compact_store, drop_samples, merge_stores, open_store, split_store, tokenize
from grncli.media.writing import write_png
from grncli.runtime.errors import StoreMismatch
from grncli.store import verify_store


@pytest.fixture
def folder(tmp_path, draw_picture):
    (tmp_path / "media").mkdir()
    for number in range(2, 10):
        write_png(tmp_path / f"media/{number}.png", draw_picture(number))
    return tmp_path / "media"


def keys(path):
    return sorted(line["key"] for line in open_store(path).records())


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("first", ["1", "99"])
def test_what_was_dropped_stays_away_while_the_store_grows(
    folder, run_dir, tmp_path, draw_picture, compacted, listed, first
):
    store = tokenize(folder, tmp_path / "s.zarr", tokenizer=run_dir, workers=0).out
    drop_samples(store, keys=["3.png", "4.png"])
    if compacted:
        compact_store(store)
    if not listed:
        (folder / "3.png").unlink()
    for number in (first, "5b"):  # wherever it sorts, twice
        write_png(folder / f"{number}.png", draw_picture(0))
        tokenize(folder, store, tokenizer=run_dir, workers=0)
    assert keys(store) == sorted([*(f"{n}.png" for n in (2, 5, 6, 7, 8, 9)), f"{first}.png", "5b.png"])
    assert verify_store(store) == []


def test_divided_and_merged_stores_take_what_they_lack(folder, run_dir, tmp_path, draw_picture):
    store = tokenize(folder, tmp_path / "s.zarr", tokenizer=run_dir, workers=0).out
    outs = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    split_store(store, outs, share=(0.5, 0.5))
    whole = merge_stores(outs, tmp_path / "whole.zarr").store
    write_png(folder / "1.png", draw_picture(0))
    for part in range(2):
        tokenize(folder, whole, tokenizer=run_dir, workers=0, part=(part, 2))
    assert keys(whole) == [f"{n}.png" for n in range(1, 10)]
    tokenize(folder, outs[0], tokenizer=run_dir, workers=0)
    assert keys(outs[0]) == [f"{n}.png" for n in range(1, 10)]
    (folder / "2.png").unlink()
    with pytest.raises(StoreMismatch, match=r"2\.png"):
        tokenize(folder, whole, tokenizer=run_dir, workers=0, part=(0, 2))
    assert verify_store(whole) == []


def test_a_sample_dropped_from_one_of_two_merged_stores_stays_in_the_other(folder, run_dir, tmp_path, draw_picture):
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    tokenize(folder, one, tokenizer=run_dir, workers=0)
    for path in list(folder.iterdir())[1:]:
        path.rename(tmp_path / path.name)
    [both] = [path.name for path in folder.iterdir()]
    tokenize(folder, other, tokenizer=run_dir, workers=0)
    for path in tmp_path.glob("*.png"):
        path.rename(folder / path.name)
    write_png(folder / "1.png", draw_picture(0))
    tokenize(folder, one, tokenizer=run_dir, workers=0)  # whose digest is that of a set from now on
    drop_samples(one, keys=[both])
    whole = merge_stores([one, other], tmp_path / "whole.zarr").store
    write_png(folder / "5b.png", draw_picture(1))
    for part in range(2):
        tokenize(folder, whole, tokenizer=run_dir, workers=0, part=(part, 2))
    assert keys(whole) == sorted([*(f"{n}.png" for n in range(1, 10)), "5b.png"])


@pytest.mark.parametrize("repaired", [0, 1, None])
def test_a_source_that_failed_in_merged_stores_is_tried_again_by_one_part_if_none_has_it(
    folder, run_dir, tmp_path, draw_picture, repaired
):
    stores = [tmp_path / f"{number}.zarr" for number in range(2)]
    paths = sorted(folder.iterdir())
    shared, good = paths[0], paths[0].read_bytes()
    for number, store in enumerate(stores):
        shared.write_bytes(good if number == repaired else b"bad")
        listed = tmp_path / f"{number}.txt"
        listed.write_text("".join(f"{path}\n" for path in [shared, *paths[1 + number :: 2]]))
        tokenize(listed, store, tokenizer=run_dir, workers=0)
    whole = merge_stores(stores, tmp_path / "whole.zarr").store
    shared.write_bytes(good)
    (tmp_path / "all.txt").write_text("".join(f"{path}\n" for path in paths))
    for part in range(2):
        tokenize(tmp_path / "all.txt", whole, tokenizer=run_dir, workers=0, part=(part, 2), retry_failed=True)
    assert keys(whole) == [str(path).lstrip("/") for path in paths]
