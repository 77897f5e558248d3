"""``grn quantize-stats`` as a real process: tables, plots, sheets and pages, and misuse."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grncli.store import Fingerprint, open_part


def test_media_as_a_process(grn: Callable, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    outputs = ["--sheet", tmp_path / "s.png", "--plot", tmp_path / "p.svg", "--html", tmp_path / "r.html"]
    result = grn("quantize-stats", "--media", media_dir / "a", "--tokenizer", run_dir, "--rounds", "1:3", *outputs)
    assert result.returncode == 0, result.stderr
    assert "continuous" in result.stdout
    assert Image.open(tmp_path / "s.png").width > 5 * 64  # source, three rounds, continuous
    assert "<svg" in (tmp_path / "p.svg").read_text()
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 6 * 5  # each picture's source, three rounds, continuous
    assert page.count('<svg role="img"') == 1
    assert "http://" not in page
    assert "https://" not in page


def test_a_store_as_a_process(grn: Callable, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    store = tmp_path / "<b>.zarr"
    assert grn("tokenize", media_dir / "a", store, "--tokenizer", run_dir).returncode == 0
    result = grn("quantize-stats", store, "--json", "--plot", tmp_path / "p.png", "--html", tmp_path / "r.html")
    found = json.loads(result.stdout)
    assert (found["samples"], found["rounds"], found["channels"]) == (6, 4, 4)
    assert Image.open(tmp_path / "p.png").format == "PNG"
    page = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;.zarr" in page
    assert "<b>.zarr" not in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a STORE, or --media"),
        (["s.zarr", "--media", "x"], "give either a STORE, or --media"),
        (["--media", "x"], "--media needs --tokenizer"),
        (["s.zarr", "--sheet", "s.png"], "--sheet goes with --media"),
        (["s.zarr", "--rounds", "2:3"], "--rounds goes with --media"),
        (["s.zarr", "--workers", "0"], "--workers goes with --media"),
        (["s.zarr", "--plot", "a.png", "--html", "none/a.html"], "no such folder"),
        (["--media", "x", "--tokenizer", "y", "--plot", "a.png", "--sheet", "a.png"], "two outputs"),
        (["s.zarr", "--plot", "none/p.png"], "no such folder"),
        (["s.zarr", "--plot", "p.jpg"], "ends in .png or .svg or .pdf"),
        (["--media", "x", "--tokenizer", "y", "--rounds", "0:4"], "--rounds 0:4"),
        (["--media", "x", "--tokenizer", "y", "--rounds", "5:3"], "--rounds 5:3"),
    ],
)
def test_misuse_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grncli.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr", (tmp_path / "said").open("w"))
    with pytest.raises(SystemExit) as ended:
        app(["quantize-stats", *arguments], prog_name="grn")
    assert ended.value.code == 2
    said = (tmp_path / "said").read_text().strip()
    assert sentence in said
    assert "\n" not in said


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the command in this process, as most of the time of another would go into importing torch."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        from grncli.cli import app

        with pytest.raises(SystemExit) as ended:
            app(["quantize-stats", *map(str, arguments)], prog_name="grn")
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    return run


@pytest.fixture
def half_store(tmp_path: Path) -> Path:
    """A store of zeros that is not complete."""
    with open_part(tmp_path / "s", Fingerprint(2, 3, (1, 4, 4), {"name": "toy", "sha256": "0"}, {})) as writer:
        lines = [{"key": str(i), "source": "s"} for i in range(5)]
        writer.append((1, 2, 2), np.zeros((5, 1, 2, 2, 2, 1), np.uint8), None, lines)
        writer.commit(1, "")
    return tmp_path / "s"


def test_incomplete_store_gets_a_warning(here: Callable, half_store: Path) -> None:
    result = here(half_store, "--json")
    assert (result.returncode, len(result.stderr.splitlines())) == (0, 1)
    assert "is not complete" in result.stderr
    assert len(json.loads(result.stdout)["stuck"]) == 6


def test_a_store_is_looked_at_without_torch(half_store: Path) -> None:
    code = "import sys; from grncli.cli import app; app(standalone_mode=False); print('torch' in sys.modules)"
    arguments = [sys.executable, "-c", code, "quantize-stats", half_store, "--plot", half_store / "p.png"]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.stdout.rstrip().endswith("False"), result.stderr


def test_missing_matplotlib_names_the_extra(here: Callable, half_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    result = here(half_store, "--plot", half_store.with_name("p.png"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "grncli[plot]" in result.stderr


def test_output_that_is_a_folder_is_refused(here: Callable, half_store: Path, tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    result = here(half_store, "--plot", tmp_path / "d.png")
    assert (result.returncode, result.stdout) == (2, "")
    assert "is a folder" in result.stderr


def test_no_heading_is_cut_in_a_log(here: Callable, media_dir: Path, run_dir: Path) -> None:
    result = here("--media", media_dir / "a", "--tokenizer", run_dir, "--rounds", "1:2", "--workers", 0)
    for word in ("compression", "largest error", "mean error", "continuous"):
        assert word in result.stdout


@pytest.mark.parametrize(("factor", "words"), [(3.0, "exceeds its bound"), (float("nan"), "hold a NaN")])
def test_broken_features_fail(
    factor: float, words: str, here: Callable, media_dir: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grncli.models.tokenizer import Tokenizer

    real = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, x, piece=None: factor * real(self, x, piece))
    result = here("--media", media_dir / "a", "--tokenizer", run_dir, "--rounds", "1:2", "--workers", 0)
    assert result.returncode == 1
    assert words in result.stderr
    assert "fault of grn" not in result.stderr


def test_max_time_ends_with_75(here: Callable, media_dir: Path, run_dir: Path) -> None:
    limits = ["--batch", 1, "--workers", 0, "--max-time", "0.001s"]
    result = here("--media", media_dir, "--tokenizer", run_dir, *limits)
    assert result.returncode == 75
    assert "Nothing of it is kept" in result.stderr
