"""``grn quantize-stats`` as a real process: tables, plots, sheets and pages, and misuse."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


def test_media_as_a_process(grn: Callable, media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    outputs = ["--sheet", tmp_path / "s.png", "--plot", tmp_path / "p.svg", "--html", tmp_path / "r.html"]
    result = grn("quantize-stats", "--media", media_dir / "a", "--tokenizer", run_dir, "--rounds", "1:3", *outputs)
    assert result.returncode == 0, result.stderr
    assert "continuous" in result.stdout
    assert Image.open(tmp_path / "s.png").width > 5 * 64  # source, three rounds, continuous
    assert "<svg" in (tmp_path / "p.svg").read_text()
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 2
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
        (["s.zarr", "--plot", "none/p.png"], "no such folder"),
        (["s.zarr", "--plot", "p.jpg"], "ends in .png or .svg"),
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
