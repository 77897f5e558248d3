"""``grn decode`` from Python."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grncli import load_tokenizer, open_store
from grncli.decoding import DecodeSettings, decode, file_name, psnr
from grncli.errors import StoreMismatch, UsageError
from grncli.hbq import dequantize, unpack
from grncli.models.tokenizer import to_frames
from grncli.stopping import Stop, Stopped
from grncli.tokenizing import TokenizeSettings, tokenize


@pytest.fixture(scope="module")
def store(media_dir: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "bits.zarr"
    tokenize(str(media_dir), path, run_dir, TokenizeSettings(workers=0, flip=True))
    return path


def test_files_stand_where_the_sources_did(store: Path, run_dir: Path, tmp_path: Path) -> None:
    assert decode(store, tmp_path / "out", run_dir, DecodeSettings()).written == 32
    assert (tmp_path / "out/a/00.png").is_file()
    assert (tmp_path / "out/a/00-flip.png").is_file()
    assert (tmp_path / "out/clips/1.mp4").is_file()


@pytest.mark.parametrize("rounds", [None, 1, 3])
def test_pictures_are_the_decoder_s(rounds: int | None, store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=rounds, select=(0, 4, None)))
    bits, m = open_store(store), rounds or 4
    feature = dequantize(unpack(torch.from_numpy(bits[0].bits)[None], bits.channels, m), m)
    with torch.inference_mode():
        expected = to_frames(load_tokenizer(run_dir).decode(feature))[0, 0].numpy()
    name = file_name(bits.record(0)["key"], ".png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), expected)


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
        (Image.open(tmp_path / "out" / file_name(r["key"], ".png")), Image.open(media_dir / r["key"].split("#")[0]))
        for r in records
    ]
    by_hand = [
        psnr(np.asarray(ours), np.asarray(theirs)[:, ::-1] if record.get("flip") else np.asarray(theirs))
        for record, (ours, theirs) in zip(records, pairs, strict=True)
    ]
    assert np.allclose(quality.images, by_hand)


def test_sources_that_are_gone_are_counted(store: Path, run_dir: Path, media_dir: Path, tmp_path: Path) -> None:
    quality = decode(store, tmp_path / "out", run_dir, DecodeSettings(compare=str(media_dir / "b"))).quality
    assert quality.means() == {"not_compared": 32}


def test_contact_sheet_shows_sources_above_decodes(store: Path, run_dir: Path, media_dir: Path, tmp_path: Path) -> None:
    heights = []
    for compare in (None, str(media_dir)):
        sheet = tmp_path / f"{compare is None}.png"
        decode(store, tmp_path / "out", run_dir, DecodeSettings(compare=compare, sheet=sheet))
        heights.append(Image.open(sheet).height)
    assert heights[1] > 1.7 * heights[0]


def test_stopped_decoding_goes_on(store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable) -> None:
    class Soon(Stop):
        asked = 0

        @property
        def reason(self) -> str | None:
            self.asked += 1
            return "SIGTERM" if self.asked > 5 else None

    with pytest.raises(Stopped):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(), stop=Soon())
    summary = decode(store, tmp_path / "out", run_dir, DecodeSettings())
    assert (summary.written, summary.present) == (27, 5)
    decode(store, tmp_path / "whole", run_dir, DecodeSettings())
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


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
    with pytest.raises(UsageError, match="other bits or rounds"):
        decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=1, select=(0, 2, None)))
    decode(store, tmp_path / "out", run_dir, DecodeSettings(rounds=1, select=(0, 2, None), overwrite=True))


@pytest.mark.parametrize(
    ("key", "suffix", "name"),
    [
        ("a/1.png", ".png", "a/1.png"),
        ("a/1.jpg", ".png", "a/1.jpg.png"),
        ("x.mp4#3", ".mp4", "x-0003.mp4"),
        ("x.mkv#3#flip", ".mp4", "x.mkv-0003-flip.mp4"),
        ("../../etc/x.png", ".png", "_up/_up/etc/x.png"),
        ("/etc/x.png", ".png", "_root/etc/x.png"),
    ],
)
def test_outputs_stay_inside_their_folder(key: str, suffix: str, name: str) -> None:
    assert file_name(key, suffix) == name
