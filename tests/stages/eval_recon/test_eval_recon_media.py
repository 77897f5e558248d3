"""Reconstructions that others made, and media that are missing, spoilt or of mixed sizes, by ``grn eval recon``."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from compared_pairs import of_run, one_sentence, recon, same_figures

from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.rounds import RoundsSettings, round_statistics
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.errors import MediaError, UsageError

# Reconstructions of others


def test_a_folder_of_grn_decode_gives_the_figures_of_the_tokenizer(stills, decoded, run_dir, colours):
    found = recon(stills, reconstructions=str(decoded), features=colours)
    same_figures(found, of_run(stills, run_dir, features=colours, batch=1))


@pytest.fixture
def others(decoded, tmp_path):
    """Reconstructions to change."""
    return shutil.copytree(decoded, tmp_path / "theirs")


def test_a_missing_partner_is_named(stills, others):
    (others / "03.png").unlink()
    with pytest.raises(UsageError, match=r"03\.png has no partner in .*theirs; expected .* 13 in .* \(there are 12\)"):
        recon(stills, reconstructions=str(others))


def test_unequal_counts_are_named(stills, others, draw_picture):
    write_png(others / "more.png", draw_picture(0))
    with pytest.raises(UsageError, match=r"in has 13 pictures and .*theirs 14; expected one for each"):
        recon(stills, reconstructions=str(others))


def test_unequal_sizes_are_named(stills, others, draw_picture):
    write_png(others / "03.png", draw_picture(3, 16, 24))
    with pytest.raises(UsageError, match=r"03\.png is 1 frames of 16x16 and .*03\.png 1 frames of 16x24"):
        recon(stills, reconstructions=str(others))


def test_pairs_of_unequal_sizes_may_be_brought_to_one(stills, others, draw_picture):
    write_png(others / "03.png", draw_picture(3, 32, 32))
    assert recon(stills, reconstructions=str(others), size="16").samples == 13


def test_a_corrupt_reconstruction_is_named_and_its_pair_left_out(stills, others):
    (others / "03.png").write_bytes(b"bad")
    said = []
    assert recon(stills, reconstructions=str(others), said=said).samples == 12
    assert [Path(text.partition(":")[0]).name for text in said] == ["03.png"]


def test_a_corrupt_reconstruction_is_counted(stills, others):
    (others / "03.png").write_bytes(b"bad")
    assert recon(stills, reconstructions=str(others)).failed == 1


# What is wrong with media


@pytest.fixture
def spoilt(stills, tmp_path):
    folder = shutil.copytree(stills, tmp_path / "spoilt")
    (folder / "04.png").write_bytes(b"bad")
    return folder


def test_a_corrupt_picture_is_named_left_out_and_counted(spoilt, stills, run_dir, colours):
    said = []
    found = of_run(spoilt, run_dir, said=said, features=colours)
    assert (found.samples, found.failed, found.networks["rfd"]["vectors"]) == (12, 1, 12)
    assert [(Path(text.partition(":")[0]).name, text.endswith("; skipped")) for text in said] == [("04.png", True)]


def test_strict_ends_with_the_corrupt_picture(grn_inside, spoilt, run_dir, tmp_path):
    page = tmp_path / "r.html"
    options = ("--workers", 0, "--cache", tmp_path, "--html", page)
    done = grn_inside("eval", "recon", spoilt, "--tokenizer", run_dir, *options, "--strict")
    assert "04.png" in one_sentence(done, 1)
    assert not page.exists()


def test_nothing_readable_is_an_error(run_dir, tmp_path):
    (tmp_path / "a.png").write_bytes(b"bad")
    with pytest.raises(MediaError, match="none of its 1 sources could be read"):
        of_run(tmp_path, run_dir)


def test_pictures_are_cut_to_whole_tokens_as_grn_tokenize_cuts_them_and_the_report_says_so(
    run_dir, draw_picture, tmp_path
):
    write_png(tmp_path / "a.png", draw_picture(0, 18, 16))
    expected = (
        round_statistics(str(tmp_path), run_dir, RoundsSettings(reading=PictureReading(workers=0)))
        .rows[3]
        .metrics["psnr"]
    )
    found = of_run(tmp_path, run_dir)
    assert found.rows[0].spreads["psnr"].mean == pytest.approx(expected)
    assert found.about["cut_to_tokens_of"] == "2x4x4"


def test_a_size_that_is_no_multiple_of_the_token_is_refused(run_dir, draw_picture, tmp_path):
    write_png(tmp_path / "a.png", draw_picture(0, 18, 16))
    with pytest.raises(UsageError, match="18 is no multiple of the tokenizer's stride 4"):
        of_run(tmp_path, run_dir, size="18")


def test_clips_have_as_many_frames_as_grn_tokenize_takes_of_them(run_dir, draw_picture, tmp_path):
    write_mp4(tmp_path / "a.mp4", np.stack([draw_picture(0)] * 12), 8)
    expected = (
        round_statistics(str(tmp_path), run_dir, RoundsSettings(reading=PictureReading(workers=0)))
        .rows[3]
        .metrics["psnr"]
    )
    assert of_run(tmp_path, run_dir).rows[0].spreads["psnr"].mean == pytest.approx(expected)


def test_mixed_sizes_are_fine_where_pairs_alone_are_measured(media_dir, run_dir):
    assert of_run(media_dir, run_dir).samples == 16


def test_mixed_sizes_are_refused_of_a_feature_network(media_dir, run_dir, colours):
    with pytest.raises(UsageError, match=r"16x16 pixels and .*16x24; expected one size, give --size"):
        of_run(media_dir, run_dir, features=colours)


@pytest.mark.parametrize("size", ["16", "native"])
def test_mixed_sizes_are_taken_with_a_size(media_dir, run_dir, colours, size):
    assert of_run(media_dir, run_dir, features=colours, size=size).samples == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give either --tokenizer RUN, or --reconstructions SRC2"),
        ({"tokenizer": "{run}", "reconstructions": "{stills}"}, "give either --tokenizer RUN, or --reconstructions"),
        ({"tokenizer": "{run}", "compare": "{stills}"}, "--compare goes with a bit store"),
        ({"reconstructions": "{stills}", "rounds": (4,)}, "--rounds goes with --tokenizer"),
        (
            {"tokenizer": "{run}", "metrics": ("psrn",)},
            "--metrics psrn: there is no such metric, expected some of psnr",
        ),
        ({"tokenizer": "{run}", "metrics": ("rfd",)}, "--metrics rfd needs --features"),
        ({"tokenizer": "{run}", "metrics": ("rfid",), "features": "{net}"}, "expected rfd with it"),
    ],
)
def test_what_cannot_be_meant_is_refused(stills, run_dir, colours, options, words):
    places = {"run": run_dir, "stills": stills, "net": colours}
    options = {name: v.format(**places) if isinstance(v, str) else v for name, v in options.items()}
    with pytest.raises(UsageError, match=words):
        recon(stills, **options)
