"""``grn tokenize --budget``: pictures and clips of any aspect ratio in one store, and what is made of such a store."""

import json
import shutil
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grncli import open_store
from grncli.decoding.store_decoding import DecodeSettings, decode
from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.reconstruction import ReconSettings, reconstruction
from grncli.media import batches
from grncli.media.batches import BatchGatherer, ClipBatch
from grncli.media.budgets import Budget
from grncli.media.decoder import Done
from grncli.media.reading import Piece, parse_reading
from grncli.media.sources import Source
from grncli.media.writing import write_mp4, write_png
from grncli.models.aspect_ratios import TEMPLATES
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.tokenizing import sample_writer
from grncli.tokenizing.bit_encoder import BitEncoder
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize

PICTURES = 45
RECIPE = """\
kind: generator
network: {prediction: bit, depth: 1, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 0}
data: {batch: 4, validation: 2}
training: {steps: 30, log_every: 1, checkpoint_every: 30, dtype: float32}
"""


class Killed(BaseException):
    """The end of a run that saves nothing."""


class StopAfter(Stop):
    """Asks to stop once it was asked ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, draw_picture: Callable) -> Path:
    """Three pictures of each aspect ratio, of about 60x60, 48x48 and 24x24 pixels, in an order that mixes them."""
    folder = tmp_path_factory.mktemp("mixed") / "media"
    for number, place in enumerate(np.random.default_rng(0).permutation(PICTURES).tolist()):
        template, side = TEMPLATES[place % 15], (60, 48, 24)[place // 15]
        width = side / template**0.5
        picture = draw_picture(number, round(width * template), round(width))
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        write_png(folder / "ab"[number % 2] / f"{number:02d}.png", picture)
    return folder


@pytest.fixture(scope="module")
def store(mixed: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("budget") / "s.zarr"
    summary = tokenize(str(mixed), path, run_dir, settings(labels="dirs"))
    assert (summary.samples, summary.failed, summary.enlarged) == (PICTURES, 0, 15)
    return path


def settings(**options: Any) -> TokenizeSettings:
    return TokenizeSettings(**{"workers": 0, "budget": "32x32", **options})


def test_every_picture_goes_to_the_grid_of_its_ratio(store: Path) -> None:
    expected = Counter((1, *grid) for grid in Budget(32 * 32).grids(4).values() for _ in range(3))
    assert open_store(store).grids == expected
    assert len(expected) > 10


def test_samples_keep_the_order_of_their_sources_within_a_grid(store: Path) -> None:
    rows: dict[str, list[str]] = {}
    for record in open_store(store).records():
        rows.setdefault(record["grid"], []).append(record["source"].rsplit("/", 2)[1:])  # class, name
    assert all(keys == sorted(keys) for keys in rows.values())


@pytest.mark.parametrize("batches_encoded", [1, 9, 20])
def test_a_killed_run_resumes_to_the_same_bytes(
    batches_encoded: int,
    mixed: Path,
    run_dir: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_tree: Callable,
) -> None:
    whole, encode, left = tmp_path / "whole.zarr", BitEncoder.encode, batches_encoded

    def killed(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        encode(*arguments)

    monkeypatch.setattr(sample_writer, "COMMIT_SECONDS", 0)
    tokenize(str(mixed), whole, run_dir, settings(batch=2))
    with monkeypatch.context() as patch:
        patch.setattr(BitEncoder, "encode", killed)
        with pytest.raises(Killed):
            tokenize(str(mixed), tmp_path / "cut.zarr", run_dir, settings(batch=2))
    assert not open_store(tmp_path / "cut.zarr").complete
    with pytest.raises(Stopped):
        tokenize(str(mixed), tmp_path / "cut.zarr", run_dir, settings(batch=2), monitor=Monitor(StopAfter(2)))
    tokenize(str(mixed), tmp_path / "cut.zarr", run_dir, settings(batch=2))
    assert read_tree(tmp_path / "cut.zarr") == read_tree(whole)


def test_worker_processes_change_nothing(
    mixed: Path, run_dir: Path, store: Path, tmp_path: Path, read_tree: Callable
) -> None:
    summary = tokenize(str(mixed), tmp_path / "s.zarr", run_dir, settings(labels="dirs", workers=2))
    assert summary.enlarged == 15
    assert read_tree(tmp_path / "s.zarr") == read_tree(store)


def test_pixels_that_wait_for_their_batch_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "GROUP_PIXELS", 6_000)
    gatherer, alive, most, encoded = BatchGatherer(8, flip=False), [], 0, 0
    grids = sorted(set(Budget(32 * 32).grids(4).values()))
    for number in range(300):
        height, width = grids[number % len(grids)]
        piece = Piece(np.zeros((1, height * 4, width * 4, 3), np.uint8), None, None, None)
        alive = [(ref, pixels) for ref, pixels in alive if ref() is not None]
        alive.append((weakref.ref(piece.pixels), height * width * 16))
        events = list(gatherer.add(piece))
        del piece
        gatherer.end_source(number, Source(str(number), "image", "", None, 0, 0), Done(None, None))
        events += gatherer.end_group() if gatherer.is_full else []
        encoded += sum(len(event.clips) for event in events if isinstance(event, ClipBatch))
        del events
        most = max(most, sum(pixels for ref, pixels in alive if ref() is not None))
    assert 4_000 < most < 6_000 + 1_200
    assert encoded > 290


def test_windows_of_clips_go_to_their_ratios(run_dir: Path, tmp_path: Path, draw_picture: Callable) -> None:
    (tmp_path / "media").mkdir()
    for name, (height, width) in {"tall": (64, 36), "wide": (36, 64), "small": (16, 16)}.items():
        write_mp4(tmp_path / f"media/{name}.mp4", np.stack([draw_picture(1, height, width)] * 12), 8)
    tokenize(str(tmp_path / "media"), tmp_path / "s.zarr", run_dir, settings(frames=5, fps=8.0))
    made = open_store(tmp_path / "s.zarr")
    assert made.grids == {(3, 11, 6): 2, (3, 6, 11): 2, (3, 8, 8): 2}
    whole = tokenize(str(tmp_path / "media"), tmp_path / "whole.zarr", run_dir, settings())
    assert whole.enlarged == 1
    assert open_store(tmp_path / "whole.zarr").grids == {(6, 11, 6): 1, (6, 6, 11): 1, (6, 8, 8): 1}


def test_the_ratio_is_that_of_the_picture_the_right_way_up(
    run_dir: Path, tmp_path: Path, draw_picture: Callable
) -> None:
    (tmp_path / "media").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by 90 degrees
    Image.fromarray(draw_picture(1, 36, 64)).save(tmp_path / "media/turned.jpg", exif=turned)
    tokenize(str(tmp_path / "media"), tmp_path / "s.zarr", run_dir, settings())
    assert open_store(tmp_path / "s.zarr").grids == {(1, 11, 6): 1}


def test_the_area_is_recorded_however_it_was_written(mixed: Path, run_dir: Path, store: Path, tmp_path: Path) -> None:
    made = open_store(store).fingerprint.preprocessing
    assert (made["size"], made["budget"]) == (None, 1024)
    again = tokenize(str(mixed), store, run_dir, settings(labels="dirs", budget="16x64"))
    assert again.made == 0
    for other, words in (
        ({"budget": "0.06M"}, "asks for 65536"),
        ({"budget": None, "size": "32"}, "asks for 32, none"),
    ):
        with pytest.raises(StoreMismatch, match=rf"preprocessing\.budget=1024.*{words}"):
            tokenize(str(mixed), store, run_dir, settings(labels="dirs", **other))
    tokenize(str(mixed), tmp_path / "old.zarr", run_dir, settings(budget=None, size="16", limit=1))
    assert "budget" not in open_store(tmp_path / "old.zarr").fingerprint.preprocessing


def test_tokens_that_are_not_square_are_refused(run_dir: Path) -> None:
    with pytest.raises(UsageError, match="--budget 1M: the tokens are 8x16 pixels, expected square ones"):
        parse_reading((4, 8, 16), budget="1M")


def test_decoded_pictures_are_compared_with_what_was_encoded(
    mixed: Path, run_dir: Path, store: Path, tmp_path: Path
) -> None:
    summary = decode(store, tmp_path / "out", run_dir, DecodeSettings(compare=str(mixed)))
    assert summary.written == PICTURES
    assert summary.quality.missing == 0
    reading = PictureReading(workers=0, tokenizer=str(run_dir))
    of_store, of_media = (
        reconstruction(
            str(src),
            ReconSettings(reading=how, metrics=("psnr",), compare=compare, networks=NetworkOptions(cache=tmp_path)),
        )
        for src, how, compare in (
            (store, reading, str(mixed)),
            (mixed, PictureReading(workers=0, tokenizer=str(run_dir), budget="32x32"), None),
        )
    )
    assert of_store.samples == of_media.samples == PICTURES
    psnr = of_store.rows[-1].spreads["psnr"].mean
    assert psnr == pytest.approx(of_media.rows[-1].spreads["psnr"].mean, abs=1e-3)
    assert psnr == pytest.approx(summary.quality.means()["image_psnr"], abs=1e-3)
    assert of_media.about["size"] == "budget of 1024 pixels"


def test_a_damaged_budget_is_reported(mixed: Path, run_dir: Path, store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "s.zarr")
    document = (tmp_path / "s.zarr/zarr.json").read_text()
    for text in ('"budget": "all"', '"budget": 0', '"badge": 1024'):
        (tmp_path / "s.zarr/zarr.json").write_text(document.replace('"budget": 1024', text))
        with pytest.raises(StoreError, match=r"zarr\.json: preprocessing"):
            decode(tmp_path / "s.zarr", tmp_path / "out", run_dir, DecodeSettings(compare=str(mixed)))


def test_generators_train_on_all_grids_of_a_store(grn_inside: Callable, store: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    for name, options in (("classes", []), ("none", ["network.classes=0"])):
        done = grn_inside("train-gen", tmp_path / "tiny.yaml", store, "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert np.isfinite([line["loss"] for line in lines if "loss" in line]).all()
        sampled = tmp_path / f"{name}.zarr"
        asked = ["--grid", "1x11x6", "--steps", 2, "--per-class", 1]
        done = grn_inside("sample", tmp_path / name, sampled, *asked)
        assert done.returncode == 0, done.stderr
        assert set(open_store(sampled).grids) == {(1, 11, 6)}


def test_the_command_tells_how_many_were_scaled_up(
    grn_inside: Callable, mixed: Path, run_dir: Path, tmp_path: Path
) -> None:
    made = tmp_path / "s.zarr"
    done = grn_inside("tokenize", mixed, made, "--tokenizer", run_dir, "--budget", "32x32", "--workers", 0, "--json")
    assert done.returncode == 0, done.stderr
    assert ", 15 smaller than asked for and scaled up" in done.stderr
    assert json.loads(done.stdout)["enlarged"] == 15
    shown = grn_inside("info", made)
    assert "budget=1024" in shown.stdout
    assert "grid 1x11x6" in shown.stdout
