"""What commands say of what is there: info of runs, dry runs over a store, and JSON beside every sentence."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grncli import open_store
from grncli.media.writing import write_png
from grncli.runs.checkpoint import list_checkpoints

TOKENIZER = """\
kind: tokenizer
network: {channels: 4, encoder_width: 4, decoder_width: 4, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}
data: {image: {size: 16, batch: 4}, workers: 0}
training: {steps: 4, checkpoint_every: 1}
"""


@pytest.fixture(scope="module")
def stopped(grn_inside: Callable, media_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tokenizer that was stopped after its first step of four."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "tiny.yaml").write_text(TOKENIZER)
    command = ("train-tokenizer", folder / "tiny.yaml", "--data", media_dir, "--out", folder / "run")
    assert grn_inside(*command, "--max-time", "0.001s").returncode == 75
    return folder / "run"


def as_trained(run: Path) -> Path:
    """Take out of a run's recipe that it was imported."""
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text[: text.index("imported:")])
    return run


def test_info_shows_what_a_tokenizer_is_and_how_far_it_is(grn_inside: Callable, stopped: Path) -> None:
    done = grn_inside("info", stopped)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in (f"{stopped}: tokenizer, step 1", "NOT complete (4 steps wanted)", "4 rounds x 4 channels", "2x4x4"):
        assert words in text
    found = json.loads(grn_inside("info", stopped, "--json").stdout)
    assert (found["kind"], found["step"], found["complete"]) == ("tokenizer", 1, False)
    assert f"sha256 {found['sha256'][:12]}" in text


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_info_shows_what_a_generator_predicts_and_from_whose_bits(
    grn_inside: Callable, make_generator_run: Callable, run_dir: Path, tmp_path: Path, prediction: str
) -> None:
    run = make_generator_run(tmp_path / "run", run_dir, prediction=prediction, grids={"1x4x4": 9, "3x4x4": 2})
    as_trained(run)
    done = grn_inside("info", run)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for words in (f"(GRN_{prediction}), 3 classes", "1x4x4, 3x4x4", f"tokenizer {run_dir.name}"):
        assert words in said


def test_info_verifies_the_weights_of_a_run(grn_inside: Callable, make_run: Callable, tmp_path: Path) -> None:
    run = as_trained(make_run(tmp_path / "run"))
    assert grn_inside("info", run, "--verify").returncode == 0
    file = list_checkpoints(run)[-1] / "ema.safetensors"
    weights = bytearray(file.read_bytes())
    weights[-4:] = np.array([np.nan], np.float32).tobytes()
    file.write_bytes(weights)
    done = grn_inside("info", run, "--verify")
    assert done.returncode == 1
    assert "ema.safetensors" in done.stdout + done.stderr


def test_an_import_is_described_in_json(grn_inside: Callable, release_fixtures: Path, tmp_path: Path) -> None:
    done = grn_inside("import", release_fixtures / "tokenizer.ckpt", tmp_path / "run", "--json")
    described, info = (
        json.loads(text) for text in (done.stdout, grn_inside("info", tmp_path / "run", "--json").stdout)
    )
    for name in ("kind", "rounds", "channels", "stride", "parameters"):
        assert described[name] == info[name]


# Dry runs over what is there


@pytest.mark.parametrize(
    ("limit", "options", "words"),
    [
        (3, (), ("9 sources would be added to its 3",)),
        (12, (), ("all sources", "nothing")),
        (3, ("--overwrite", "--rounds", 2), ("3 samples", "discarded")),
    ],
)
def test_a_dry_run_says_what_becomes_of_a_store_that_is_there(
    grn_inside: Callable,
    media_dir: Path,
    run_dir: Path,
    tmp_path: Path,
    read_tree: Callable,
    limit: int,
    options: tuple[object, ...],
    words: tuple[str, ...],
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, file in enumerate(sorted([*(media_dir / "a").iterdir(), *(media_dir / "b").iterdir()])):
        (pictures / f"{number:02d}.png").write_bytes(file.read_bytes())
    command = ("tokenize", pictures, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert grn_inside(*command, "--limit", limit).returncode == 0
    before = read_tree(tmp_path / "s.zarr")
    done = grn_inside(*command, *options, "--dry-run")
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    assert all(word in last for word in words), last
    assert read_tree(tmp_path / "s.zarr") == before


def test_a_dry_run_refuses_a_store_of_other_settings(
    grn_inside: Callable, media_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    command = ("tokenize", media_dir / "a", tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert grn_inside(*command).returncode == 0
    done = grn_inside(*command, "--rounds", 2, "--dry-run")
    assert done.returncode == 1
    assert "rounds=4" in done.stderr


# Decoding


@pytest.fixture(scope="module")
def store(grn_inside: Callable, media_dir: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "s.zarr"
    assert grn_inside("tokenize", media_dir, out, "--tokenizer", run_dir, "--workers", 0).returncode == 0
    return out


def test_decode_prints_how_close_the_pictures_came_to_their_sources(
    grn_inside: Callable, store: Path, run_dir: Path, media_dir: Path, tmp_path: Path
) -> None:
    command = ("decode", store, tmp_path / "d", "--tokenizer", run_dir, "--compare", media_dir)
    done, numbers = grn_inside(*command), json.loads(grn_inside(*command, "--json").stdout)
    assert done.returncode == 0, done.stderr
    assert f"PSNR of images {numbers['image_psnr']:.2f} dB" in done.stdout
    assert f"PSNR of clips {numbers['clip_psnr']:.2f} dB" in done.stdout


def test_decode_of_one_sample_writes_one_file(grn_inside: Callable, store: Path, run_dir: Path, tmp_path: Path) -> None:
    keys = [record["key"] for record in open_store(store).records()]
    for select, key in (("0", keys[0]), ("-1", keys[-1])):
        out = tmp_path / select
        done = grn_inside("decode", store, out, "--tokenizer", run_dir, "--select", select)
        assert done.returncode == 0, done.stderr
        files = [path.relative_to(out) for path in out.rglob("*") if path.suffix in (".png", ".mp4")]
        assert len(files) == 1
        assert files[0].stem == Path(key.split("#")[0]).stem


# Pictures as an array


def test_pictures_of_a_folder_become_the_array_that_evaluators_read(
    grn_inside: Callable, media_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pictures.npz"
    done = grn_inside("eval", "stats", media_dir / "a", out, "--pictures", "--workers", 0, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arr_0"] == [6, 16, 16, 3]
    expected = [np.asarray(Image.open(file)) for file in sorted((media_dir / "a").iterdir())]
    assert np.array_equal(np.load(out)["arr_0"], np.stack(expected))


# Figures of steps and of one setting


def test_eval_gen_shows_how_many_samples_took_how_many_steps(
    grn_inside: Callable, make_generator_run: Callable, make_run: Callable, media_dir: Path, tmp_path: Path
) -> None:
    tokenizer = make_run(tmp_path / "tok", rounds=2)
    generator = make_generator_run(tmp_path / "gen", tokenizer)
    complexity = ("--schedule", "complexity", "--k", 96.9, "--b", -27.1, "--warmup-steps", 2)
    spread = (*complexity, "--min-steps", 5, "--max-steps", 14, "--guidance", 2, "--temperature", 1)
    options = ("--reference", media_dir / "a", "--features", tokenizer, "--tokenizer", tokenizer, "--workers", 0)
    for name, schedule in (("spread", spread), ("fixed", ("--steps", 4))):
        done = grn_inside("sample", generator, tmp_path / f"{name}.zarr", *schedule, "--per-class", 4)
        assert done.returncode == 0, done.stderr
        page = tmp_path / f"{name}.html"
        done = grn_inside("eval", "gen", tmp_path / f"{name}.zarr", *options, "--html", page)
        assert done.returncode == 0, done.stderr
        bars = [line.split() for line in done.stdout.splitlines() if " steps " in line and "#" in line]
        drawn = page.read_text().count("<svg")
        exhibited = re.findall(r"<small>(\d+) steps, entropy 0\.\d{3}</small>", page.read_text())
        if name == "spread":
            steps = sorted(open_store(tmp_path / "spread.zarr").grid((1, 4, 4)).column("steps").tolist())
            assert sum(int(bar[-1]) for bar in bars) == 12
            assert drawn == 1
            assert list(map(int, exhibited)) == [*steps[:8], *steps[:-9:-1]]
        else:
            assert (bars, drawn, exhibited) == ([], 0, [])


def test_a_search_of_one_setting_and_of_three_is_drawn_setting_by_setting(
    grn_inside: Callable, make_generator_run: Callable, make_run: Callable, media_dir: Path, tmp_path: Path
) -> None:
    tokenizer = make_run(tmp_path / "tok", rounds=2)
    generator = make_generator_run(tmp_path / "gen", tokenizer)
    options = ("--reference", media_dir / "a", "--features", tokenizer, "--tokenizer", tokenizer, "--workers", 0)
    options = (*options, "--per-class", 2, "--steps", 2)
    shapes, grids = [], (["temperature=0.5,1"], ["temperature=0.5,1", "guidance=1,3", "steps=2,3"])
    for number, grid in enumerate(grids):
        plot = tmp_path / f"{number}.png"
        done = grn_inside(
            "eval",
            "search",
            generator,
            *options,
            "--grid",
            *grid,
            "--halvings",
            1 - number,
            "--out",
            tmp_path / f"s{number}",
            "--plot",
            plot,
        )
        assert done.returncode == 0, done.stderr
        shapes.append(Image.open(plot).size)
    assert shapes[1][0] > 2 * shapes[0][0]


def test_a_picture_in_a_folder_that_cannot_be_listed_is_named(
    grn_inside: Callable, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "open").mkdir(parents=True)
    write_png(tmp_path / "src" / "open" / "a.png", np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "src" / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: object = ".") -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    done = grn_inside("tokenize", tmp_path / "src", tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert "closed" in done.stderr
    assert "Permission denied" in done.stderr


def test_a_text_generator_is_imported_and_shown_with_all_its_defaults(
    grn_inside: Callable, release_fixtures: Path, tmp_path: Path
) -> None:
    file, run = tmp_path / "GRN_T2V_2B_FSA_sft3800_non_ema.pth", tmp_path / "run"
    file.symlink_to(release_fixtures / "t2iv_bit.pth")
    done = grn_inside("import", file, run, "--set", "clip.negative_prompt=blurry: bad")
    assert done.returncode == 0, done.stderr
    assert "GRN_bit for text (full attention) with 0.11 M parameters, 8 channels, 4 rounds" in done.stderr
    text = " ".join(grn_inside("info", run, "--verify").stdout.split())
    for words in (
        "imported from GRN_T2V_2B_FSA_sft3800_non_ema.pth, model",
        "bits (GRN_bit), text (full attention)",
        "latent grids 21x30x53",
        "text encoder not known, 24 features a token, at most 512 tokens",
        'pictures guidance 3, temperature 1.1, prefix "<T2I>"',
        'clips guidance 4, temperature 1, prefix "<T2V>", suffix " The quality is very high!", '
        'negative prompt "blurry: bad", 16 frames a second',
        'from a frame guidance 4, temperature 1, prefix "<I2V>"',
        "schedule cosine that ends at 0.95",
        "tokenizer HBQ_image_video_tokenizer_64dim_M4_20260618.ckpt",
    ):
        assert words in text


def test_a_text_generator_of_the_wrong_attention_is_refused(
    grn_inside: Callable, release_fixtures: Path, tmp_path: Path
) -> None:
    (tmp_path / "GRN_T2V_2B.pth").symlink_to(release_fixtures / "t2iv_bit.pth")
    done = grn_inside("import", tmp_path / "GRN_T2V_2B.pth", tmp_path / "run", "--set", "attention=full")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "whose attention is text-only" in done.stderr
    assert not (tmp_path / "run").exists()
