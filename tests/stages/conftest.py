"""A tiny tokenizer as a run directory, a small folder of media, and the command line as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from grncli.cli import app
from grncli.costs import trials
from grncli.media.writing import write_mp4, write_png

# Test modules are imported by path; what they share needs a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def short_trials() -> Iterator[None]:
    """Dry runs in this process try work for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "TRIAL_SECONDS", 0.1)
        yield


@pytest.fixture(scope="session")
def run_dir(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two rounds, as ``generator`` is made for."""
    return make_run(tmp_path_factory.mktemp("runs") / "tok", rounds=2)


@pytest.fixture(scope="module")
def generator(
    make_generator_run: Callable[..., Path], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_generator_run(tmp_path_factory.mktemp("runs") / "gen", tokenizer)


def picture(index: int, height: int = 16, width: int = 16) -> np.ndarray:
    """Smooth random colours, so that lossy formats keep them."""
    corners = np.random.default_rng(index).integers(0, 256, (2, 2, 3))
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top, bottom = corners[0, 0] * (1 - x) + corners[0, 1] * x, corners[1, 0] * (1 - x) + corners[1, 1] * x
    return (top * (1 - y) + bottom * y).round().astype(np.uint8)


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture(scope="session")
def media_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 16x16 in classes a and b, two of 16x24, and two clips of 13 frames of 16x16."""
    folder = tmp_path_factory.mktemp("sources") / "media"
    for name in ("a", "b", "wide", "clips"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        write_png(folder / "ab"[i % 2] / f"{i:02d}.png", picture(i))
    for i in range(2):
        write_png(folder / "wide" / f"{i}.png", picture(i, 16, 24))
        frames = np.stack([picture(100 + i)] * 13) // 2 + np.arange(13, dtype=np.uint8)[:, None, None, None]
        write_mp4(folder / "clips" / f"{i}.mp4", frames.astype(np.uint8), 8)
    return folder


@pytest.fixture(scope="session")
def grn() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        """Run ``grn`` in a process of its own."""
        return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **options)

    return run


@pytest.fixture(scope="session")
def grn_inside() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        """Run ``grn`` in this process: what a process of its own takes seconds to start is there already."""
        texts = list(map(str, arguments))
        done = CliRunner().invoke(app, texts)
        return subprocess.CompletedProcess(texts, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def start_grn() -> Callable[..., subprocess.Popen[str]]:
    def start(*arguments: object) -> subprocess.Popen[str]:
        """Start ``grn`` and come back at once."""
        return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "grncli", *map(str, arguments)]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(Path(where, name).relative_to(folder)): Path(where, name).read_bytes()
        for where, _, names in os.walk(folder)
        for name in names
    }


@pytest.fixture(scope="session")
def read_tree() -> Callable[[Path], dict[str, bytes]]:
    return tree
