"""Rounds measured on media, against the same decodings made by hand."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity

from grncli import load_tokenizer
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.rounds import RoundsSettings, compression_ratio, round_statistics
from grncli.hbq import dequantize, quantize
from grncli.media.decoder import DecoderPool
from grncli.media.listing import list_sources
from grncli.media.reading import ReadSettings, read_pieces
from grncli.media.writing import write_png
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import to_frames, to_input
from grncli.runtime.errors import CheckpointError, MediaError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished

READING = {field.name for field in fields(PictureReading)}
LEVELS = [1, 2, 4, 8, None]


def options(**settings):
    """Of reading and of measuring, as the command line has them side by side."""
    reading = {name: settings.pop(name) for name in list(settings) if name in READING}
    return RoundsSettings(reading=PictureReading(**reading), **settings)


def by_hand(folder, run):
    """Of each level: errors of all features, and (PSNR, SSIM) of each sample; one picture at a time, afresh."""
    tokenizer = load_tokenizer(run)
    reading = ReadSettings(framing(), tokenizer.stride)
    levels = {m: ([], []) for m in LEVELS}
    for source in list_sources(str(folder)).sources:
        for piece in read_pieces(source, reading):
            frames = torch.from_numpy(piece.pixels)[None]
            feature = tokenizer.encode(to_input(frames))
            for m, (errors, quality) in levels.items():
                quantized = feature if m is None else dequantize(quantize(feature, m), m)
                errors.append((quantized - feature).abs().flatten())
                quality.append(compare(to_frames(tokenizer.decode(quantized))[0], frames[0]))
    return {m: (torch.cat(errors), np.mean(quality, axis=0)) for m, (errors, quality) in levels.items()}


def framing():
    from grncli.media.framing import parse_size

    return parse_size("native")


def compare(decoded, original):
    """Means over frames of PSNR and SSIM."""
    errors = (decoded.double() - original.double()).square().mean(dim=(1, 2, 3)).numpy()
    as_wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    pairs = zip(decoded.numpy(), original.numpy(), strict=True)
    similar = [structural_similarity(a, b, channel_axis=-1, **as_wang) for a, b in pairs]
    return np.mean(10 * np.log10(255**2 / errors)), np.mean(similar)


@pytest.fixture(scope="module")
def found(media_dir, run_dir):
    return round_statistics(str(media_dir), run_dir, options(workers=0))


@pytest.fixture(scope="module")
def expected(media_dir, run_dir):
    return by_hand(media_dir, run_dir)


@pytest.mark.parametrize("m", LEVELS)
def test_errors_and_quality_are_those_made_by_hand(found, expected, m):
    row = next(row for row in found.rows if row.rounds == m)
    errors, (psnr, ssim) = expected[m]
    if m is not None:
        assert row.largest_error == pytest.approx(errors.max().item(), abs=1e-6)
        assert row.mean_error == pytest.approx(errors.mean().item(), rel=1e-4)
        assert 0 < row.mean_error < row.largest_error <= row.bound == 2.0**-m
    # A batch is computed in another order than one picture, which may move a rounded pixel.
    assert row.metrics["psnr"] == pytest.approx(psnr, abs=0.01)
    assert row.metrics["ssim"] == pytest.approx(ssim, abs=1e-3)


def test_everything_is_counted(found):
    assert (found.images, found.clips, found.failed) == (14, 2, 0)
    assert [row.rounds for row in found.rows] == [*range(1, 9), None]
    assert (found.trained_rounds, found.channels, found.stride) == (4, 4, (2, 4, 4))
    assert found.within_bounds


def test_errors_shrink_with_each_round(found):
    means = [row.mean_error for row in found.rows[:-1]]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == 8


@pytest.mark.parametrize(
    ("channels", "bits", "ratio"),
    [(16, 16, 96), (16, 4, 384), (16, 6, 256), (16, 8, 192), (64, 16, 24), (64, 4, 96)],
)
def test_compression_is_that_of_table_2(channels, bits, ratio):
    assert compression_ratio((4, 16, 16), channels, bits) == ratio


def test_stills_are_compressed_in_space_only(found, media_dir, run_dir):
    stills = round_statistics(str(media_dir / "a"), run_dir, options(rounds=(4, 4), workers=0))
    assert [row.compression for row in stills.rows] == [24 * 16 / (4 * 4), 24 * 16 / (4 * 16)]
    assert found.rows[3].compression == 24 * 2 * 16 / (4 * 4)


def test_batches_and_workers_make_no_difference(found, media_dir, run_dir):
    other = round_statistics(str(media_dir), run_dir, options(rounds=(3, 4), batch=2, workers=2))
    for row in other.rows[:-1]:
        same = found.rows[row.rounds - 1]
        assert row.largest_error == pytest.approx(same.largest_error, abs=1e-6)
        assert row.metrics["psnr"] == pytest.approx(same.metrics["psnr"], abs=0.01)


def test_framing_and_limit_are_followed(media_dir, run_dir):
    settings = options(rounds=(1, 1), size="12", frames=3, limit=13, workers=0)
    few = round_statistics(str(media_dir), run_dir, settings)
    assert (few.images, few.clips) == (12, 4)  # four windows of 3 in the 13 frames of the one clip


def test_small_pictures_have_no_ssim(media_dir, run_dir):
    small = round_statistics(str(media_dir / "a"), run_dir, options(rounds=(1, 2), size="8", workers=0))
    assert all(row.metrics["psnr"] > 0 for row in small.rows)
    document = json.loads(json.dumps(small.to_json(), allow_nan=False))
    assert [row["metrics"]["ssim"] for row in document["rows"]] == [None] * 3


def test_sheet_shows_sources_and_every_level(media_dir, run_dir):
    sheet = round_statistics(str(media_dir / "a"), run_dir, options(rounds=(1, 3), limit=2, workers=0)).sheet
    assert sheet.shape[1] == 12 + 5 * (128 + 12)
    source = next(read_pieces(list_sources(str(media_dir / "a")).sources[0], ReadSettings(framing(), (2, 4, 4))))
    np.testing.assert_array_equal(sheet[12:140:8, 12:140:8], source.pixels[0])


def test_bad_sources_are_named_and_skipped(media_dir, run_dir, tmp_path):
    folder = shutil.copytree(media_dir / "a", tmp_path / "a")
    (folder / "03.png").write_bytes(b"bad")
    clip = (media_dir / "clips/0.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(clip[: len(clip) // 2])
    said = []
    mixed = round_statistics(str(folder), run_dir, options(rounds=(1, 1), workers=1), monitor=Monitor(say=said.append))
    sound = round_statistics(str(media_dir / "a"), run_dir, options(rounds=(1, 1), workers=1))
    assert (mixed.images, mixed.clips, mixed.failed) == (6, 0, 2)
    assert [Path(text.split(":")[0]).name for text in said] == ["03.png", "cut.mp4"]
    assert all(text.endswith("; skipped") for text in said)
    assert mixed.rows[0].metrics == pytest.approx(sound.rows[0].metrics)


def test_clips_that_prove_damaged_at_their_end_do_not_count(media_dir, run_dir, monkeypatch):
    """Their first windows have been through the network by then."""
    from grncli.media.decoder import Done

    real = DecoderPool.read

    def read(self, sources, settings):
        for index, event in real(self, sources, settings):
            broken = isinstance(event, Done) and index == 0
            yield index, Done("ends too early", None) if broken else event

    monkeypatch.setattr(DecoderPool, "read", read)
    found = round_statistics(str(media_dir / "clips"), run_dir, options(rounds=(1, 1), frames=3, batch=1, workers=0))
    assert (found.clips, found.failed) == (4, 1)


def test_nothing_readable_is_an_error(run_dir, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(MediaError, match="none of its 1 sources could be read"):
        round_statistics(str(tmp_path), run_dir, options(workers=0))


@pytest.mark.parametrize("rounds", [(0, 4), (5, 3), (1, 9)])
def test_impossible_rounds_are_refused(media_dir, run_dir, rounds):
    with pytest.raises(UsageError, match="--rounds"):
        round_statistics(str(media_dir), run_dir, options(rounds=rounds, workers=0))


def test_stops_between_batches(media_dir, run_dir):
    with pytest.raises(Unfinished, match="--max-time: stopped after"):
        round_statistics(str(media_dir), run_dir, options(batch=1, workers=0), monitor=Monitor(Stop(max_time=0.0)))


def test_features_out_of_range_are_noticed(media_dir, run_dir, monkeypatch):
    from grncli.models.tokenizer import Tokenizer

    real = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, x, piece=None: 3 * real(self, x, piece))
    found = round_statistics(str(media_dir / "a"), run_dir, options(rounds=(1, 2), workers=0))
    assert not found.within_bounds
    assert found.rows[1].largest_error > found.rows[1].bound


def test_lpips_is_measured_where_there_are_weights(run_dir, tmp_path):
    torch.manual_seed(0)
    network = LPIPS("alex")
    save_file(network.state_dict(), tmp_path / "lpips.safetensors")
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in/a.png", generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    settings = options(rounds=(4, 4), workers=0, lpips=tmp_path / "lpips.safetensors")
    continuous = round_statistics(str(tmp_path / "in"), run_dir, settings).rows[-1]
    tokenizer, piece = load_tokenizer(run_dir), next(by_pieces(tmp_path / "in"))
    x = to_input(torch.from_numpy(piece.pixels)[None])
    expected = network(to_input(to_frames(tokenizer.decode(tokenizer.encode(x)))), x).item()
    assert continuous.metrics["lpips"] == pytest.approx(expected, rel=1e-3)  # a difference of sums of float32


def by_pieces(folder):
    return read_pieces(list_sources(str(folder)).sources[0], ReadSettings(framing(), (2, 4, 4)))


def test_lpips_is_left_out_where_there_are_none_and_missed_where_they_are_named(media_dir, run_dir, tmp_path):
    plain = options(rounds=(1, 1), workers=0)
    found = round_statistics(str(media_dir / "a"), run_dir, replace(plain, cache=tmp_path / "none"))
    assert list(found.rows[0].metrics) == ["psnr", "ssim"]
    with pytest.raises(CheckpointError, match="lacks alexnet-owt"):
        round_statistics(str(media_dir / "a"), run_dir, replace(plain, lpips=tmp_path / "none"))


def test_small_pictures_do_not_cost_the_others_their_ssim(media_dir, run_dir, tmp_path):
    from grncli.media.writing import write_png

    folder = shutil.copytree(media_dir / "a", tmp_path / "a")
    write_png(folder / "zz.png", np.zeros((8, 8, 3), np.uint8))
    settings = options(rounds=(1, 1), workers=0)
    mixed, large = (round_statistics(str(src), run_dir, settings) for src in (folder, media_dir / "a"))
    assert mixed.images == large.images + 1
    assert mixed.rows[0].metrics["ssim"] == pytest.approx(large.rows[0].metrics["ssim"], abs=1e-5)
