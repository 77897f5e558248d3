"""What comes back of pictures, by ``grn eval recon``: figures against the same made by hand, pairs, and what is wrong.

In this process, but for the options and outputs that only the command line has.
"""

import re
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from compared_pairs import document, features_of, frames_of, frechet_by_hand, of_run, one_sentence, recon, same_figures
from PIL import Image

from grncli.decoding.store_decoding import DecodeSettings, decode
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.pairs import parse_rounds
from grncli.evaluation.rounds import RoundsSettings, round_statistics
from grncli.media.writing import write_png
from grncli.metrics.quality import psnr
from grncli.runtime.errors import CheckpointError, MediaError, UsageError
from grncli.runtime.stopping import Stop, Unfinished
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize

# Figures


def test_every_number_of_rounds_has_the_figures_of_quantize_stats(media_dir, run_dir):
    """On pictures of two sizes, and clips."""
    expected = round_statistics(str(media_dir), run_dir, RoundsSettings(reading=PictureReading(workers=0))).rows
    found = of_run(media_dir, run_dir, rounds=(*range(1, 9), None)).rows
    assert [row.rounds for row in found] == [row.rounds for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("psnr", "ssim"):
            assert ours.spreads[name].mean == pytest.approx(theirs.metrics[name], rel=1e-6)


@pytest.mark.parametrize("network", ["colours.pt", "alone.pt"])
def test_frechet_distance_is_the_one_made_by_hand_of_files(stills, decoded, run_dir, networks, network):
    found = of_run(stills, run_dir, features=str(networks / network), batch=1)
    sides = (np.stack([features_of(frame) for frame in frames_of(folder)]) for folder in (stills, decoded))
    assert found.rows[0].distances["rfd"] == pytest.approx(frechet_by_hand(*sides), rel=1e-4)


def test_every_frame_of_a_clip_has_features_of_its_own(media_dir, run_dir, colours):
    found = of_run(media_dir / "clips", run_dir, features=colours, rounds=(None,))
    assert (found.samples, found.networks["rfd"]["vectors"]) == (2, 26)


def test_a_distance_may_be_all_that_is_measured(stills, run_dir, colours):
    found = of_run(stills, run_dir, features=colours, metrics=("rfd",))
    assert (found.rows[0].spreads, list(found.rows[0].distances)) == ({}, ["rfd"])


def test_a_clip_counts_with_the_mean_over_its_frames(media_dir, run_dir, tmp_path):
    clips, out = media_dir / "clips", tmp_path / "out"
    tokenize(str(clips), tmp_path / "s.zarr", run_dir, TokenizeSettings(workers=0))
    decode(tmp_path / "s.zarr", out, run_dir, DecodeSettings())
    found = recon(clips, reconstructions=str(out)).rows[0].spreads["psnr"]
    pairs = (torch.from_numpy(np.stack(frames_of(folder))) for folder in (out, clips))
    by_clip = psnr(*pairs).view(2, 13).mean(dim=1)
    assert (found.samples, found.mean) == (2, pytest.approx(by_clip.mean().item(), rel=1e-6))


def test_the_worst_ten_are_named_worst_first(stills, decoded):
    worst = recon(stills, reconstructions=str(decoded)).rows[0].spreads["psnr"].worst
    names = sorted(file.name for file in stills.iterdir())
    values = psnr(*(torch.from_numpy(np.stack(frames_of(folder))) for folder in (decoded, stills)))
    order = values.argsort()[:10].tolist()
    assert [Path(name).name for name, _, _ in worst] == [names[i] for i in order]
    assert [value for _, _, value in worst] == pytest.approx(values[order].tolist())


# Rounds


@pytest.mark.parametrize(
    ("text", "rounds"),
    [
        ("4", (4,)),
        ("1:8", tuple(range(1, 9))),
        ("1:3,continuous", (1, 2, 3, None)),
        ("8,2", (8, 2)),
        ("continuous", (None,)),
        ("2:3,3,2:2", (2, 3)),
    ],
)
def test_rounds_may_be_numbers_ranges_and_the_continuous_feature(text, rounds):
    assert parse_rounds(text) == rounds


@pytest.mark.parametrize("text", ["", "0", "9", "4:2", "1:9", "1:", ":4", "four", "1,,2", "-1", "1:2:3", "4.0"])
def test_other_rounds_are_refused(text):
    with pytest.raises(UsageError, match="expected numbers from 1 to 8"):
        parse_rounds(text)


@pytest.mark.parametrize(("trained", "row"), [(4, (4, "4 rounds")), (None, (None, "continuous"))])
def test_rounds_are_those_the_tokenizer_was_trained_for(stills, make_run, tmp_path, trained, row):
    run = make_run(tmp_path / "run", rounds=trained)
    assert [(r.rounds, r.label) for r in of_run(stills, run, limit=2).rows] == [row]


# Stores


@pytest.mark.parametrize("rounds", [None, (1, 2, 3)])
def test_a_store_and_its_sources_give_the_figures_of_the_media(stills, store, run_dir, colours, rounds):
    options = {"rounds": rounds, "features": colours, "batch": 1}
    found = of_run(store, run_dir, compare=str(stills), **options)
    same_figures(found, of_run(stills, run_dir, **options))


def test_clips_of_a_store_give_the_figures_of_the_media(media_dir, run_dir, colours, tmp_path):
    tokenize(str(media_dir / "clips"), tmp_path / "s.zarr", run_dir, TokenizeSettings(workers=0))
    found = of_run(tmp_path / "s.zarr", run_dir, compare=str(media_dir / "clips"), features=colours)
    same_figures(found, of_run(media_dir / "clips", run_dir, features=colours))


@pytest.mark.parametrize("rounds", [(5,), (None,)])
def test_a_store_has_no_more_than_its_rounds(stills, store, run_dir, rounds):
    with pytest.raises(UsageError, match="holds 4 rounds and no continuous feature, expected 1 to 4"):
        of_run(store, run_dir, compare=str(stills), rounds=rounds)


def test_a_source_that_is_gone_is_named_left_out_and_counted(stills, store, run_dir, tmp_path):
    few = shutil.copytree(stills, tmp_path / "few")
    (few / "05.png").unlink()
    said = []
    found = of_run(store, run_dir, compare=str(few), said=said)
    assert (found.samples, found.failed) == (12, 1)
    assert [text.partition(":")[0] for text in said] == ["05.png"]


def test_a_source_that_is_gone_ends_it_if_strict(stills, store, run_dir, tmp_path):
    few = shutil.copytree(stills, tmp_path / "few")
    (few / "05.png").unlink()
    with pytest.raises(MediaError, match=r"05\.png"):
        of_run(store, run_dir, compare=str(few), strict=True)


def test_sources_of_another_size_than_the_store_are_named(stills, store, run_dir, draw_picture, tmp_path):
    grown = shutil.copytree(stills, tmp_path / "grown")
    for file in grown.iterdir():
        Image.fromarray(draw_picture(3, 16, 24)).save(file)
    with pytest.raises(UsageError, match=r"00\.png is 1 frames of 16x24 and its decoding 1 frames of 16x16"):
        of_run(store, run_dir, compare=str(grown))


def test_one_source_of_another_size_than_the_store_is_named(stills, store, run_dir, draw_picture, tmp_path):
    grown = shutil.copytree(stills, tmp_path / "grown")
    write_png(grown / "05.png", draw_picture(5, 16, 24))
    with pytest.raises(UsageError, match=r"05\.png is 1 frames of 16x24"):
        of_run(store, run_dir, compare=str(grown))


# Weights


def test_lpips_is_silently_left_out_where_there_are_no_weights(stills, run_dir):
    said = []
    found = of_run(stills, run_dir, limit=1, said=said)
    assert list(found.rows[0].spreads) == ["psnr", "ssim", "ms-ssim"]
    assert said == []


@pytest.mark.parametrize(
    ("metric", "folder", "file"), [("lpips", "lpips", "alexnet-owt"), ("rfid", "features", "weights-inception")]
)
def test_weights_that_are_asked_for_and_missing_are_told_in_full(stills, run_dir, metric, folder, file):
    with pytest.raises(CheckpointError) as told:
        of_run(stills, run_dir, metrics=(metric,))
    sentence = str(told.value)
    assert sentence.startswith(f"no/cache/{folder}: lacks {file}")
    assert all(word in sentence for word in ("https://", "sha256", "add --download"))


# Stopping


class Soon(Stop):
    """A request to stop from the third question on."""

    asked = 0

    @property
    def reason(self):
        self.asked += 1
        return "SIGTERM" if self.asked > 2 else None


def test_stopping_keeps_nothing(stills, run_dir):
    with pytest.raises(Unfinished, match="SIGTERM: stopped after"):
        of_run(stills, run_dir, batch=1, stop=Soon())


def test_stopped_command_writes_no_files(grn_inside, stills, run_dir, tmp_path):
    outputs = ("--sheet", tmp_path / "s.png", "--html", tmp_path / "r.html", "--cache", tmp_path)
    done = grn_inside("eval", "recon", stills, "--tokenizer", run_dir, *outputs, "--max-time", "0.0001s")
    assert "Nothing of it is kept" in one_sentence(done, 75)
    assert list(tmp_path.iterdir()) == []


# Outputs


@pytest.fixture(scope="module")
def reported(grn_inside, stills, run_dir, colours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    outputs = ("--sheet", folder / "s.png", "--html", folder / "r.html", "--json", "--cache", folder)
    options = ("--tokenizer", run_dir, "--rounds", "2:3,continuous", "--features", colours, "--workers", 0)
    done = grn_inside("eval", "recon", stills, *options, *outputs)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_json_has_null_for_what_is_not_defined(reported):
    """Pictures of 16 pixels have no multi-scale SSIM."""
    rows = document(reported[1])["rows"]
    assert [row["rounds"] for row in rows] == [2, 3, None]
    assert all(row["metrics"]["ms-ssim"]["mean"] is None for row in rows)


def test_json_is_what_python_finds(reported, stills, run_dir, colours):
    found = of_run(stills, run_dir, rounds=(2, 3, None), features=colours)
    assert [row["distances"] for row in document(reported[1])["rows"]] == [row.distances for row in found.rows]


def test_the_sheet_is_a_png_with_a_column_for_each_number_of_rounds(reported):
    sheet = Image.open(reported[0] / "s.png")
    assert (sheet.format, sheet.width) == ("PNG", 12 + 4 * (128 + 12))


def test_the_page_holds_all_of_it_and_fetches_nothing(reported):
    page = (reported[0] / "r.html").read_text()
    assert page.count("data:image/png;base64,") == (4 + 6) * 4  # the worst, and some; source, 2, 3 rounds, continuous
    assert "http://" not in page
    assert "https://" not in page


def test_the_page_shows_the_worst_pictures_under_their_names(reported):
    page = (reported[0] / "r.html").read_text()
    worst = document(reported[1])["rows"][-1]["metrics"]["psnr"]["worst"][:4]
    captions = re.findall(r"<figcaption>(.*?)<small>PSNR (.*?) dB</small>", page)
    assert captions[:4] == [(Path(each["name"]).name, f"{each['value']:.2f}") for each in worst]
    assert re.search(r'alt="[0-9]+.png, 2 rounds"', page)


def test_page_and_json_say_how_they_were_made(reported):
    made = document(reported[1])["made"]
    assert (made["command"][0], set(made["versions"])) == ("grn", {"grn", "torch", "numpy", "python"})
    assert datetime.fromisoformat(made["date"]).tzinfo is not None
    assert made["date"] in (reported[0] / "r.html").read_text()


def test_the_table_has_a_line_for_each_row_and_tells_the_protocol(grn_inside, stills, run_dir, colours, tmp_path):
    options = ("--tokenizer", run_dir, "--rounds", "1:2", "--features", colours, "--workers", 0, "--cache", tmp_path)
    done = grn_inside("eval", "recon", stills, *options)
    assert done.returncode == 0, done.stderr
    for words in ("1 round", "2 rounds", "PSNR (dB)", "13 samples", "pixels rounded to 8 bits", "13 features of each"):
        assert words in done.stdout
