"""``grn decode`` from Python."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grncli import load_tokenizer, open_store
from grncli.decoding.outputs import DEFAULT_FPS, OutputFolder, file_name
from grncli.decoding.store_decoding import DecodeSettings, StoreDecoder, decode
from grncli.evaluation.pair_names import match
from grncli.hbq import dequantize, unpack
from grncli.media.listing import list_sources
from grncli.media.writing import write_mp4, write_png
from grncli.metrics.quality import mean_over_frames, psnr
from grncli.models import tokenizer as tokenizer_module
from grncli.models.tokenizer import to_frames, unpatchify
from grncli.runtime.errors import LockError, MissingFolderError, StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.runtime.writer_status import read_status
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


@pytest.fixture(scope="module")
def store(media_dir: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "bits.zarr"
    tokenize(str(media_dir), path, run_dir, TokenizeSettings(workers=0, flip=True))
    return path


def test_files_stand_where_the_sources_did(store: Path, run_dir: Path, tmp_path: Path) -> None:
    assert decode(store, tmp_path / "out", run_dir, DecodeSettings()).written == 32
    assert (tmp_path / "out/a/00.png").is_file()
    assert (tmp_path / "out/a/00@flip.png").is_file()
    assert (tmp_path / "out/clips/1.mp4").is_file()


@pytest.mark.parametrize("rounds", [None, 1, 3])
def test_pictures_are_the_decoder_s(rounds: int | None, store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=rounds, select=(0, 4, None)))
    bits, m = open_store(store), rounds or 4
    feature = dequantize(unpack(torch.from_numpy(bits[0].bits)[None], bits.channels, m), m)
    with torch.inference_mode():
        expected = to_frames(load_tokenizer(run_dir).decode(feature))[0, 0].numpy()
    name = file_name(bits.record(0), ".png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), expected)


@pytest.fixture
def clip(store: Path) -> int:
    bits = open_store(store)
    return next(index for index in range(len(bits)) if bits.grid_of(index)[0] > 2)


def test_clips_are_the_whole_pass_of_the_decoder(clip: int, store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(clip, clip + 1, None)))
    bits, network = open_store(store), load_tokenizer(run_dir)
    feature = dequantize(unpack(torch.from_numpy(bits[clip].bits)[None], bits.channels, 4), 4)
    with torch.inference_mode():
        patches = network.decoder(network.from_feature(feature))
        expected = to_frames(unpatchify(patches, network.config.patch).clamp(-1, 1))[0].numpy()
    record = bits.record(clip)
    write_mp4(tmp_path / "expected.mp4", expected, record.get("fps") or DEFAULT_FPS)
    assert (tmp_path / "out" / file_name(record, ".mp4")).read_bytes() == (tmp_path / "expected.mp4").read_bytes()


def test_clips_in_parts_are_the_same_pictures(
    clip: int, store: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = StoreDecoder(open_store(store), load_tokenizer(run_dir), 4)
    whole = decoder.decode(decoder.read([clip])).astype(int)
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 1)
    monkeypatch.setattr(tokenizer_module, "MOST_DECODED", 1)
    difference = np.abs(decoder.decode(decoder.read([clip])) - whole)
    assert difference.max() <= 1
    assert difference.mean() < 1e-3  # a level that rounds the other way


def test_selection_is_a_slice(store: Path, run_dir: Path, tmp_path: Path) -> None:
    summary = decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(2, 9, 3)))
    assert summary.written == 3


def test_psnr_is_that_of_the_files_against_the_sources(
    store: Path, run_dir: Path, media_dir: Path, tmp_path: Path
) -> None:
    settings = DecodeSettings(compare=str(media_dir), select=(0, 24, None))
    quality = decode(store, tmp_path / "out", run_dir, settings).quality
    records = [open_store(store).record(i) for i in range(24)]
    pairs = [
        (Image.open(tmp_path / "out" / file_name(r, ".png")), Image.open(media_dir / r["key"].split("#")[0]))
        for r in records
    ]
    by_hand = []
    for record, (ours, theirs) in zip(records, pairs, strict=True):
        original = np.asarray(theirs)[:, ::-1] if record.get("flip") else np.asarray(theirs)
        by_hand.append(mean_over_frames(psnr, np.asarray(ours)[None], original[None]))
    assert np.allclose(quality.images, by_hand)


def test_sources_that_are_gone_are_counted(store: Path, run_dir: Path, media_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(media_dir / "b", tmp_path / "others")
    quality = decode(store, tmp_path / "out", run_dir, DecodeSettings(compare=str(tmp_path / "others"))).quality
    assert quality.means() == {"not_compared": 32}


def test_contact_sheet_shows_sources_above_decodes(store: Path, run_dir: Path, media_dir: Path, tmp_path: Path) -> None:
    heights = []
    for compare in (None, str(media_dir)):
        sheet = tmp_path / f"{compare is None}.png"
        decode(store, tmp_path / "out", run_dir, DecodeSettings(compare=compare, sheet=sheet))
        heights.append(Image.open(sheet).height)
    assert heights[1] > 1.7 * heights[0]


def test_decoding_that_is_stopped_again_and_again_comes_to_the_end(
    store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    decode(store, tmp_path / "whole", run_dir, DecodeSettings(batch=5))
    stopped = 0
    while stopped < 100:
        try:
            summary = decode(
                store, tmp_path / "out", run_dir, DecodeSettings(batch=5), monitor=Monitor(Stop(max_time=0))
            )
            break
        except Stopped:
            stopped += 1
    assert stopped > 5
    assert summary.written + summary.present == 32
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_the_folder_says_how_far_it_is_until_all_is_there(store: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        decode(store, tmp_path, run_dir, DecodeSettings(batch=5), monitor=Monitor(Stop(max_time=0)))
    stopped = read_status(tmp_path)
    assert stopped is not None
    assert (stopped.status.command, stopped.status.state, stopped.status.total) == ("decode", "stopped", 32)
    assert 0 < (stopped.status.done or 0) < 32
    decode(store, tmp_path, run_dir, DecodeSettings())
    assert read_status(tmp_path) is None


def test_another_tokenizer_is_refused(store: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(StoreMismatch, match="was made by tokenizer tiny"):
        decode(store, tmp_path / "out", make_run(tmp_path / "other", seed=1), DecodeSettings())
    assert not (tmp_path / "out").exists()


def test_more_rounds_than_there_are_is_refused(store: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds 4 rounds"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=5))


def test_folder_of_something_else_is_left_alone(store: Path, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="holds files that grn decode did not write"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(overwrite=True))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_folder_of_other_rounds_is_refused_unless_overwritten(store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 2, None)))
    with pytest.raises(UsageError, match="other settings or data"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=1, select=(0, 2, None)))
    decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=1, select=(0, 2, None), overwrite=True))


def test_bfloat16_is_close_to_float32_and_never_mixed_with_it(store: Path, run_dir: Path, tmp_path: Path) -> None:
    few = {"select": (0, 4, None)}
    for dtype in ("float32", "bfloat16"):
        decode(store, tmp_path / dtype, run_dir, DecodeSettings(dtype=dtype, **few))
    names = sorted(file.relative_to(tmp_path / "float32") for file in (tmp_path / "float32").rglob("*.png"))
    ours, theirs = (
        np.stack([np.asarray(Image.open(tmp_path / dtype / name)).astype(int) for name in names])
        for dtype in ("bfloat16", "float32")
    )
    assert 0 < np.abs(ours - theirs).mean() < 2
    with pytest.raises(UsageError, match="dtype"):
        decode(store, tmp_path / "float32", run_dir, DecodeSettings(dtype="bfloat16", **few))


def test_overwriting_removes_what_was_decoded_and_nothing_else(store: Path, run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(store, out, run_dir, DecodeSettings(select=(0, 3, None)))
    (out / "a/mine.png").write_bytes(b"keep")
    (out / "classes.txt").write_text("of mine, no shards are here\n")
    decode(store, out, run_dir, DecodeSettings(rounds=1, select=(1, 2, None), overwrite=True))
    assert (out / "classes.txt").exists()
    assert sorted(file.name for file in (out / "a").iterdir()) == ["00@flip.png", "mine.png"]


def test_bits_of_other_sources_are_other_bits(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    sources, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(media_dir / "a", sources)
    for name in ("00.png", "02.png"):
        shutil.copy(media_dir / "a" / name, sources / "00.png")
        tokenize(str(sources), tmp_path / "s.zarr", run_dir, TokenizeSettings(workers=0, overwrite=True))
        if name == "00.png":
            decode(tmp_path / "s.zarr", out, run_dir, DecodeSettings())
    with pytest.raises(UsageError, match="other settings or data"):
        decode(tmp_path / "s.zarr", out, run_dir, DecodeSettings())


def test_file_of_somebody_else_is_never_replaced(store: Path, run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(store, out, run_dir, DecodeSettings(select=(0, 1, None)))
    (out / "a/00@flip.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="was not written by grn decode"):
        decode(store, out, run_dir, DecodeSettings())
    assert (out / "a/00@flip.png").read_bytes() == b"mine"


@pytest.mark.parametrize("line", ['{"file": "../victim.png", "index": 0}', '{"index": 0}', "[]"])
def test_list_of_files_is_not_trusted(line: str, store: Path, run_dir: Path, tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim.png"
    decode(store, out, run_dir, DecodeSettings(select=(0, 1, None)))
    victim.write_bytes(b"keep")
    with (out / "decoded.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=r"decoded\.jsonl"):
        decode(store, out, run_dir, DecodeSettings(rounds=1, overwrite=True))
    assert victim.exists()


def test_half_a_line_of_a_killed_run_is_left_out(
    store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    decode(store, tmp_path / "whole", run_dir, DecodeSettings(select=(0, 4, None)))
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 2, None)))
    with (tmp_path / "out/decoded.jsonl").open("a") as file:
        file.write('{"index": 2, "key"')
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 4, None)))
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_selecting_nothing_is_refused(store: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="picks none of the 32 samples"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(40, 50, None)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["none/sheet.png", "folder"])
def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(
    name: str, store: Path, run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=f"{name}: .*, expected"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(sheet=tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_samples_whose_names_meet_get_files_of_their_own(draw_picture: Callable, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index, name in enumerate(["x.png", "x@flip.png"]):
        write_png(tmp_path / "in" / name, draw_picture(index))
    tokenize(str(tmp_path / "in"), tmp_path / "s.zarr", run_dir, TokenizeSettings(workers=0, flip=True))
    assert decode(tmp_path / "s.zarr", tmp_path / "out", run_dir, DecodeSettings()).written == 4
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("record", "suffix", "name"),
    [
        ({"key": "a/1.png"}, ".png", "a/1.png"),
        ({"key": "a/1.jpg"}, ".png", "a/1.jpg.png"),
        ({"key": "x.mp4#3", "clip": 3}, ".mp4", "x@0003.mp4"),
        ({"key": "x.mkv#3#flip", "clip": 3, "flip": True}, ".mp4", "x.mkv@0003@flip.mp4"),
        ({"key": "a#3.png"}, ".png", "a#3.png"),
        ({"key": "../../etc/x.png"}, ".png", "_up/_up/etc/x.png"),
        ({"key": "/etc/x.png"}, ".png", "_root/etc/x.png"),
    ],
)
def test_outputs_stay_inside_their_folder(record: dict[str, object], suffix: str, name: str) -> None:
    assert file_name(record, suffix) == name


def test_long_names_stay_apart_and_fit() -> None:
    names = {file_name({"key": "é" * 120 + end}, ".png") for end in ("1.jpg", "2.jpg")}
    assert len(names) == 2
    assert all(len(name.encode()) < 230 for name in names)


@pytest.mark.parametrize("at", [1, 2, 5, 9])
def test_a_full_disk_names_the_file_and_leaves_no_line_twice(
    at: int, store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, real, calls = DecodeSettings(select=(0, 6, None)), os.pwrite, 0

    def full(fd: int, data: bytes, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == at:
            real(fd, data[: len(data) // 2], offset)
        if calls >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    decode(store, tmp_path / "whole", run_dir, settings)
    with monkeypatch.context() as patch:
        patch.setattr("grncli.runtime.files.os.pwrite", full)
        if at <= 6:
            with pytest.raises(OSError, match="No space left") as caught:
                decode(store, tmp_path / "out", run_dir, settings)
            assert caught.value.filename == str(tmp_path / "out/decoded.jsonl")
    decode(store, tmp_path / "out", run_dir, settings)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_a_run_killed_before_a_listed_file_resumes(
    store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 4, None)))
    before = read_tree(tmp_path / "out")
    (tmp_path / "out/a/00@flip.png").unlink()
    assert decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 4, None))).written == 1
    assert read_tree(tmp_path / "out") == before


def test_two_at_once_are_kept_apart(store: Path, run_dir: Path, tmp_path: Path) -> None:
    with (
        OutputFolder(tmp_path / "out", open_store(store), 4, overwrite=False),
        pytest.raises(LockError, match="out is being written by this process"),
    ):
        decode(store, tmp_path / "out", run_dir, DecodeSettings())


@pytest.mark.parametrize(
    "name", ["a\u2028b.png", "a\x85b.png", "a\nb.png", os.fsdecode(b"\xff\xfe.png"), "日" * 83 + ".png"]
)
def test_any_name_is_decoded_and_found_again(
    name: str, draw_picture: Callable, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / name, draw_picture(0))
    tokenize(str(tmp_path / "in"), tmp_path / "s.zarr", run_dir, TokenizeSettings(workers=0))
    for written in (1, 0):
        summary = decode(tmp_path / "s.zarr", tmp_path / "out", run_dir, DecodeSettings(compare=str(tmp_path / "in")))
        assert (summary.written, summary.present, summary.quality.missing) == (written, 1 - written, 0)
    ours, theirs = (list_sources(str(tmp_path / folder)).sources for folder in ("in", "out"))
    assert match(ours, theirs, "in", "out") == [(ours[0], theirs[0])]


def test_what_lies_behind_a_link_is_neither_written_nor_removed(store: Path, run_dir: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    decode(store, out, run_dir, DecodeSettings(select=(0, 2, None)))
    os.rename(out / "a", outside)
    (out / "a").symlink_to(outside)
    before = sorted(outside.iterdir())
    for settings in (DecodeSettings(select=(0, 8, None)), DecodeSettings(rounds=1, overwrite=True)):
        with pytest.raises(OSError, match="is a link, and nothing is written or removed"):
            decode(store, out, run_dir, settings)
    assert sorted(outside.iterdir()) == before


def test_an_interrupted_overwrite_is_repeated_or_resumed(
    store: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Callable
) -> None:
    out, again = tmp_path / "out", DecodeSettings(rounds=1, select=(0, 4, None), overwrite=True)
    decode(store, tmp_path / "whole", run_dir, again)
    decode(store, out, run_dir, DecodeSettings(select=(0, 4, None)))
    with monkeypatch.context() as patch:
        patch.setattr("grncli.runtime.folders.write_json", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            decode(store, out, run_dir, again)
    decode(store, out, run_dir, replace(again, select=(0, 2, None)))
    assert decode(store, out, run_dir, again).present == 2
    assert read_tree(out) == read_tree(tmp_path / "whole")


@pytest.mark.parametrize("at", [1, 2])
def test_a_folder_that_is_moved_away_is_an_error(at: int, store: Path, run_dir: Path, tmp_path: Path) -> None:
    def move(done: int, total: int, note: str) -> None:
        if done == at:
            (tmp_path / "out").rename(tmp_path / "moved")

    with pytest.raises(MissingFolderError, match="out was moved, replaced or removed"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 2, None)), monitor=Monitor(progress=move))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"a":' * 9000, "\x00"])
def test_a_damaged_manifest_is_reported(content: str, store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(select=(0, 1, None)))
    (tmp_path / "out/decode.json").write_text(content)
    with pytest.raises(UsageError, match=r"decode\.json.*choose another DIR"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(overwrite=True))


def test_settings_without_a_reading_are_reported(store: Path, run_dir: Path, media_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "s.zarr")
    document = (tmp_path / "s.zarr/zarr.json").read_text()
    (tmp_path / "s.zarr/zarr.json").write_text(document.replace('"frames": null', '"frames": 4.5'))
    with pytest.raises(StoreError, match=r"zarr\.json: preprocessing: field frames\S* is 4\.5"):
        decode(tmp_path / "s.zarr", tmp_path / "out", run_dir, DecodeSettings(compare=str(media_dir)))
