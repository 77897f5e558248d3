"""The commands as real processes: exit codes, sentences, kills and resumes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grncli import open_store

Grn = Callable[..., "subprocess.CompletedProcess[str]"]


def sentence(result: "subprocess.CompletedProcess[str]") -> str:
    """The one line a failed command says."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, draw_picture: Callable) -> Path:
    """Sixty pictures of three sizes and one that is none: enough to be killed in the middle of."""
    from grncli.media.writing import write_png

    folder = tmp_path_factory.mktemp("many") / "media"
    folder.mkdir()
    for i in range(60):
        write_png(folder / f"{i:03d}.png", draw_picture(i, 16, 16 + 4 * (i % 3)))
    (folder / "030-bad.png").write_bytes(b"bad")
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["tokenize", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = "import sys; from grncli.cli import app; app(standalone_mode=False); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.stdout.strip().endswith("False"), result.stderr


def test_tokenize_info_and_decode_speak_json(grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    made = grn("tokenize", media_dir, store, "--tokenizer", run_dir, "--labels", "dirs", "--json")
    assert (made.returncode, json.loads(made.stdout)["samples"]) == (0, 16)
    found = json.loads(grn("info", store, "--verify", "--json").stdout)
    assert (found["complete"], found["problems"], found["grids"]["7x4x4"]) == (True, [], 2)
    assert found["labels"] == {"a": 6, "b": 6, "clips": 2, "wide": 2}
    decoded = grn("decode", store, tmp_path / "out", "--tokenizer", run_dir, "--compare", media_dir, "--json")
    assert json.loads(decoded.stdout).keys() == {"out", "written", "present", "image_psnr", "clip_psnr"}


def test_info_knows_a_run(grn: Grn, run_dir: Path) -> None:
    found = json.loads(grn("info", run_dir, "--json").stdout)
    assert (found["kind"], found["stride"], found["rounds"]) == ("tokenizer", [2, 4, 4], 4)


def test_info_finds_a_flipped_byte(grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    grn("tokenize", media_dir, tmp_path / "s.zarr", "--tokenizer", run_dir)
    chunk = next(file for file in (tmp_path / "s.zarr").rglob("*") if file.match("bits/c.*"))
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    result = grn("info", tmp_path / "s.zarr", "--verify")
    assert result.returncode == 1
    assert str(chunk) in result.stderr


def test_dry_run_writes_nothing(grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    result = grn("tokenize", media_dir, tmp_path / "s.zarr", "--tokenizer", run_dir, "--dry-run", "--json")
    assert json.loads(result.stdout)["images"] == 14
    assert not list(tmp_path.iterdir())


def test_paths_on_standard_input(grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    paths = "".join(f"{media_dir}/a/{i:02d}.png\n" for i in (4, 0))
    result = grn("tokenize", "-", tmp_path / "s.zarr", "--tokenizer", run_dir, input=paths)
    assert result.returncode == 0, result.stderr
    assert [Path(r["key"]).name for r in open_store(tmp_path / "s.zarr").records()] == ["04.png", "00.png"]


def test_name_that_starts_with_a_dash(grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    for name in ("-rf.png", "-i.mp4"):
        source = media_dir / ("a/00.png" if name.endswith("png") else "clips/0.mp4")
        (tmp_path / name).write_bytes(source.read_bytes())
        result = grn("tokenize", "--tokenizer", run_dir, "--", name, f"{name}.zarr", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert len(open_store(tmp_path / f"{name}.zarr")) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tokenize", "{media}", "{out}", "--tokenizer", "{nothing}"], 1, "is not there, expected a run directory"),
        (["tokenize", "{nothing}", "{out}", "--tokenizer", "{run}"], 2, "nothing"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--frames", "4"], 2, "--frames 4"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--part", "2/2"], 2, "--part 2/2"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--clips", "some"], 2, "--clips some"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--size", "big"], 2, "big"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--max-time", "soon"], 2, "soon"),
        (["tokenize", "{media}", "{out}", "--tokenizer", "{run}", "--device", "abacus"], 2, "abacus"),
        (["tokenize", "{media}", "{media}", "--tokenizer", "{run}"], 1, "something else than a bit store"),
        (["decode", "{media}", "{out}", "--tokenizer", "{run}"], 1, "is not a bit store"),
        (["decode", "{media}", "{out}", "--tokenizer", "{run}", "--select", "first"], 2, "--select first"),
        (["info", "{nothing}"], 1, "does not exist"),
        (["info", "{media}"], 1, "neither a bit store"),
        (["import", "{media}/a/00.png", "{out}"], 1, "is no PyTorch checkpoint"),
        (["train-tokenizer", "{nothing}", "--data", "{media}", "--out", "{out}"], 1, "cannot be read as a YAML recipe"),
    ],
)
def test_misuse_is_one_sentence(
    arguments: list[str], code: int, words: str, grn: Grn, media_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    places = {"media": media_dir, "run": run_dir, "out": tmp_path / "out", "nothing": tmp_path / "nothing"}
    result = grn(*(argument.format(**places) for argument in arguments))
    assert result.returncode == code, result.stderr
    assert words in sentence(result)
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(grn: Grn, tmp_path: Path) -> None:
    assert "Traceback" in grn("info", tmp_path / "nothing", "--debug").stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]
)
def test_signal_saves_and_says_so(
    number: signal.Signals, code: int, start_grn: Callable, grn: Grn, many: Path, run_dir: Path, tmp_path: Path
) -> None:
    arguments = ["tokenize", many, tmp_path / "s.zarr", "--tokenizer", run_dir, "--batch", 1]
    process = start_grn(*arguments)
    wait_for(tmp_path / "s.zarr" / "part-00000")
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert "Run the same command again" in said
    assert not open_store(tmp_path / "s.zarr").complete
    assert grn(*arguments).returncode == 0
    assert len(open_store(tmp_path / "s.zarr")) == 60


def test_max_time_stops_with_75(grn: Grn, many: Path, run_dir: Path, tmp_path: Path) -> None:
    arguments = ["tokenize", many, tmp_path / "s.zarr", "--tokenizer", run_dir, "--batch", 1]
    assert grn(*arguments, "--max-time", "0.01s").returncode == 75
    assert grn(*arguments, "--max-time", "1h").returncode == 0


def test_killed_run_resumes_to_the_same_bytes(
    start_grn: Callable, grn: Grn, many: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    arguments = ["--tokenizer", run_dir, "--batch", 2, "--flip"]
    assert grn("tokenize", many, tmp_path / "whole.zarr", *arguments).returncode == 0
    whole = read_tree(tmp_path / "whole.zarr")
    moments = random.Random(0)
    for trial in range(3):
        store = tmp_path / f"{trial}.zarr"
        process = start_grn("tokenize", many, store, *arguments)
        wait_for(store)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.communicate()
        assert grn("tokenize", many, store, *arguments).returncode == 0
        assert read_tree(store) == whole


def test_store_that_is_being_written_is_refused(
    start_grn: Callable, grn: Grn, many: Path, run_dir: Path, tmp_path: Path
) -> None:
    arguments = ["tokenize", many, tmp_path / "s.zarr", "--tokenizer", run_dir, "--batch", 1]
    process = start_grn(*arguments)
    # Written once the part is claimed, when the lock over what parts share is free again.
    wait_for(tmp_path / "s.zarr" / "part-00000" / "zarr.json")
    process.send_signal(signal.SIGSTOP)
    try:
        result = grn(*arguments)
    finally:
        process.send_signal(signal.SIGCONT)
    assert result.returncode == 1
    assert "is being written by another process" in sentence(result)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_training_stopped_by_a_signal_goes_on(start_grn: Callable, grn: Grn, media_dir: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "network: {channels: 4, encoder_width: 4, decoder_width: 4, multipliers: [1, 1], halve_space: [1],"
        " halve_time: [1], encoder_blocks: 1, decoder_blocks: 1}\n"
        "data: {image: {size: 16, batch: 2}}\n"
        "training: {steps: 100000, log_every: 1}\n"
    )
    arguments = ["train-tokenizer", recipe, "--data", media_dir, "--out", tmp_path / "run"]
    process = start_grn(*arguments)
    wait_for(tmp_path / "run/metrics.jsonl", content=True)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    step = json.loads(grn("info", tmp_path / "run", "--json").stdout)["step"]
    more = grn(*arguments, f"training.steps={step + 3}", "--json")
    assert (more.returncode, json.loads(more.stdout)["step"]) == (0, step + 3)
    assert "nothing to do" in grn(*arguments, f"training.steps={step + 3}").stderr


def test_shapes_can_be_tokenized(grn: Grn, run_dir: Path, tmp_path: Path) -> None:
    assert grn("shapes", tmp_path / "d", "--images", 16, "--clips", 4).returncode == 0
    assert (
        grn("tokenize", tmp_path / "d", tmp_path / "s.zarr", "--tokenizer", run_dir, "--labels", "dirs").returncode == 0
    )
    assert open_store(tmp_path / "s.zarr").grids == {(1, 8, 8): 16, (9, 8, 8): 4}


def wait_for(path: Path, content: bool = False) -> None:
    """Return as soon as ``path`` exists (and holds something)."""
    end = time.monotonic() + 60
    while not path.exists() or (content and not os.stat(path).st_size):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
