"""Options that are invalid or contradict each other: one sentence that names them, exit code 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grncli.store import open_store


@pytest.fixture(scope="module")
def house(
    grn_inside: Callable,
    make_run: Callable,
    make_generator_run: Callable,
    media_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tokenizer ``tok``, a generator ``gen``, ``bits.zarr`` of media, ``samples.zarr``, two statistics, a file."""
    folder = tmp_path_factory.mktemp("house")
    make_generator_run(folder / "gen", make_run(folder / "tok", rounds=2))
    (folder / "media").symlink_to(media_dir)
    (folder / "file").write_text("")
    (folder / "none").mkdir()
    for command in (
        ("tokenize", media_dir / "a", folder / "bits.zarr", "--tokenizer", folder / "tok", "--workers", 0),
        ("sample", folder / "gen", folder / "samples.zarr", "--steps", 2, "--per-class", 1),
        ("eval", "stats", media_dir / "a", folder / "a.npz", "--features", folder / "tok", "--workers", 0),
    ):
        done = grn_inside(*command)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("tokenize media/a OUT --tokenizer tok --part 0/1000000", "--part 0/1000000"),
        ("tokenize media/a OUT --tokenizer tok --fps 5000", "--fps 5000"),
        ("tokenize media/a OUT --tokenizer tok --budget 1.5M", "--budget 1.5M: expected 0.06M, 0.25M"),
        ("tokenize media/a OUT --tokenizer tok --budget 3x4", "--budget 3x4: is 12 pixels, expected 16 (one token) to"),
        ("tokenize media/a OUT --tokenizer tok --budget 16000x16000", "--budget 16000x16000: is 256000000 pixels"),
        ("tokenize media/a OUT --tokenizer tok --budget 1M --size native", "--size native with --budget 1M"),
        ("tokenize media/a OUT --tokenizer tok --budget 1M --size 16", "--size 16 with --budget 1M: expected one"),
        ("tokenize media/a OUT --tokenizer tok --dtype float16", "--dtype float16"),
        ("tokenize media/a OUT --tokenizer tok --clips 0", "--clips 0"),
        ("tokenize media/a bits.zarr --tokenizer tok --limit 2", "--limit 2"),
        ("sample gen OUT.zarr --part 0/1000000", "--part 0/1000000"),
        ("sample gen OUT.zarr --seed -1", "--seed"),
        ("sample gen OUT.zarr --schedule complexity --k 5 --b 1 --min-steps 3", "3"),
        ("sample gen OUT.zarr --sheet absent/s.png --tokenizer tok", "absent/s.png"),
        ("sample gen OUT.zarr --film absent/f.mp4 --tokenizer tok", "absent/f.mp4"),
        ("sample gen OUT.zarr --init samples.zarr --classes ant,bee --keep 0.5", "--classes ant,bee"),
        ("sample gen file --tokenizer tok", "file"),
        ("decode bits.zarr file --tokenizer tok", "file"),
        ("decode samples.zarr OUT --tokenizer tok --compare media", "samples.zarr"),
        ("decode bits.zarr OUT --tokenizer tok --compare none", "none"),
        ("eval stats media/a OUT.npz --pictures --keep-features", "--pictures"),
        ("eval gen media/a --reference media/b --metrics ,", "--metrics"),
        ("eval gen a.npz --reference a.npz --size 16", "--size 16"),
        ("eval gen - --reference -", "--reference"),
        ("eval gen bits.zarr --reference media/a --features tok --tokenizer tok --fps 4", "--fps 4"),
        ("eval recon media/a --tokenizer tok --metrics psnr --features tok", "--features"),
        ("eval recon media/a --tokenizer tok --metrics psnr --lpips none", "--lpips"),
        ("eval recon media/a --tokenizer tok --metrics nonsense", "nonsense"),
        ("eval recon bits.zarr --tokenizer tok", "--compare"),
        ("eval recon bits.zarr --tokenizer tok --compare media/a --budget 1M", "--budget 1M: a bit store has"),
        ("eval recon media/a --reconstructions media/b --budget 1M", "--budget goes with --tokenizer"),
        ("quantize-stats bits.zarr --budget 1M", "--budget goes with --media"),
        ("eval recon bits.zarr --tokenizer tok --compare media/a --reconstructions media/b", "--reconstructions"),
        ("eval search gen --reference a.npz --tokenizer tok --features tok --grid guidance=1,2 --out file", "file"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    grn_inside: Callable, house: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    monkeypatch.chdir(house)
    before = sorted(path.name for path in house.iterdir())
    done = grn_inside(*command.split())
    assert done.returncode == 2, done.stderr
    sentence = " ".join(done.stderr.split())
    assert words in sentence
    assert "a fault of grn" not in sentence
    assert sorted(path.name for path in house.iterdir()) == before


def test_sources_that_failed_before_are_refused_by_strict(
    grn_inside: Callable, media_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.png").write_bytes((media_dir / "a" / "00.png").read_bytes())
    (tmp_path / "src" / "b.png").write_bytes(b"no picture")
    command = ("tokenize", tmp_path / "src", tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert grn_inside(*command).returncode == 0
    done = grn_inside(*command, "--strict")
    assert done.returncode == 1
    assert "b.png" in done.stderr
    assert "--retry-failed" in done.stderr
    assert len(open_store(tmp_path / "s.zarr")) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.flip=2", "flip"),
        ("data.clip.share=0", "share"),
        ("data.image.scale=[0.5,2]", "scale"),
        ("losses.reconstruction=0", "mse"),
        ("losses.gan=-1", "weight"),
        ("losses.gan={weight: 1, start: -1}", "start"),
        ("discriminator.layers=17", "layers"),
        ("discriminator.learning_rate=0", "learning_rate"),
        ("optimization.clip_norm=0", "clip_norm"),
        ("optimization.schedule=linear", "linear"),
        ("training.keep_every=0", "keep_every"),
        ("training.seed=-1", "seed"),
        ("network.nonsense=1", "nonsense"),
    ],
)
def test_a_recipe_s_field_out_of_range_is_named(
    grn_inside: Callable, media_dir: Path, tmp_path: Path, override: str, words: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "kind: tokenizer\ndata: {image: {size: 16, batch: 4}, clip: {size: 16, batch: 2, frames: 5}}\n"
    )
    done = grn_inside("train-tokenizer", tmp_path / "tiny.yaml", override, "--data", media_dir, "--out", tmp_path / "r")
    assert done.returncode in (1, 2), done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert words in sentence
    assert "a fault of grn" not in sentence
    assert not (tmp_path / "r").exists()


def test_arrays_that_are_no_pictures_are_refused(grn_inside: Callable, run_dir: Path, tmp_path: Path) -> None:
    arrays = {
        "floats": np.zeros((2, 16, 16, 3), np.float32),
        "grey": np.zeros((2, 16, 16), np.uint8),
        "empty": np.zeros((0, 16, 16, 3), np.uint8),
    }
    for name, array in arrays.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "grey.npz").read_bytes()[:200])
    for name in (*arrays, "damaged"):
        done = grn_inside("eval", "stats", tmp_path / f"{name}.npz", tmp_path / "o.npz", "--features", run_dir)
        assert done.returncode in (1, 2), name
        assert f"{name}.npz" in done.stderr
        assert "a fault of grn" not in done.stderr
        assert not (tmp_path / "o.npz").exists()
