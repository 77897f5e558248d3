"""Commands between other programs: paths in, JSON out, nothing else on standard output."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grncli import open_store

PYTHON = shlex.quote(sys.executable)
GRN = f"{PYTHON} -m grncli"


def shell(script: str, folder: Path, **places: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line of the shell in a folder; it fails where any program of a pipeline but the last may fail unseen."""
    filled = script.format(grn=GRN, python=PYTHON, **{name: shlex.quote(str(path)) for name, path in places.items()})
    return subprocess.run(["sh", "-c", filled], cwd=folder, capture_output=True, text=True, timeout=120)


def test_find_feeds_tokenize_whose_report_another_program_reads(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    done = shell(
        "find {media}/a -name '*.png' | sort | {grn} tokenize - out.zarr --tokenizer {run} --json -q"
        " | {python} -c 'import json, sys; print(json.load(sys.stdin)[\"samples\"])'",
        tmp_path,
        media=media_dir,
        run=run_dir,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
    names = [Path(record["key"]).name for record in open_store(tmp_path / "out.zarr").records()]
    assert names == [f"{i:02d}.png" for i in range(0, 12, 2)]


def test_a_measurement_is_one_json_document(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    done = shell(
        "{grn} eval gen {media}/a --reference {media}/b --features {run} --metrics fd --size 16 --workers 0 --json -q"
        ' | {python} -c \'import json, sys; print(json.load(sys.stdin)["figures"][0]["value"] > 0)\'',
        tmp_path,
        media=media_dir,
        run=run_dir,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_reader_that_needs_no_more_ends_a_command_without_complaint(run_dir: Path, tmp_path: Path) -> None:
    done = shell("{grn} info {run} --json | head -n 1", tmp_path, run=run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_the_exit_code_tells_a_script_what_happened(run_dir: Path, tmp_path: Path) -> None:
    done = shell("{grn} -q info nothing 2>/dev/null || echo $?; {grn} info 2>/dev/null || echo $?", tmp_path)
    assert done.stdout == "1\n2\n"


@pytest.fixture(scope="module")
def store(grn_inside: Callable, media_dir: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    assert grn_inside("tokenize", media_dir / "a", path, "--tokenizer", run_dir, "--workers", 0).returncode == 0
    return path


@pytest.mark.parametrize(
    "command",
    [
        "info {store}",
        "info {run} --verify",
        "quantize-stats {store}",
        "decode {store} {out}/pictures --tokenizer {run}",
        "eval recon {media}/a --tokenizer {run} --metrics psnr --workers 0",
        "eval stats {media}/a {out}/a.npz --features {run} --size 16 --workers 0",
        "tokenize {media}/a {out}/b.zarr --tokenizer {run} --workers 0 --dry-run",
    ],
)
def test_with_json_standard_output_is_one_document_and_quiet_says_nothing(
    grn_inside: Callable, store: Path, media_dir: Path, run_dir: Path, tmp_path: Path, command: str
) -> None:
    places = {"store": store, "media": media_dir, "run": run_dir, "out": tmp_path}
    done = grn_inside(*(word.format(**places) for word in command.split()), "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), dict)
