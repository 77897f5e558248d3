"""Data of small trainings, and what one process and several make of it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Test modules are imported by path; what they share needs folders to be looked for in.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "train_gen")]

import captioned_data
import parallel_cases
import small_training

from grncli.media.writing import write_mp4, write_png
from grncli.runs.tokenizers import open_tokenizer


@pytest.fixture(scope="session")
def data(
    tmp_path_factory: pytest.TempPathFactory, draw_picture: Callable[..., np.ndarray], make_run: Callable[..., Path]
) -> Path:
    """Recipes, a tokenizer, stores, features and media of all cases."""
    folder = tmp_path_factory.mktemp("parallel")
    for name in ("classes", "text", "tokenizer"):
        (folder / f"{name}.yaml").write_text(getattr(parallel_cases, name.upper()))
    identity = open_tokenizer(make_run(folder / "tok", rounds=2)).identity
    like = {"rounds": 2, "channels": 4, "stride": (2, 4, 4), "tokenizer": identity}
    small_training.make_store(folder / "classes.zarr", {small_training.SQUARE: 12, small_training.WIDE: 12}, **like)
    captioned_data.make_store(folder / "texts.zarr", {captioned_data.SQUARE: 40, captioned_data.WIDE: 20}, **like)
    captioned_data.make_features(folder / "features.zarr")
    (folder / "media").mkdir()
    for i in range(6):
        write_png(folder / f"media/{i}.png", draw_picture(i))
        frames = np.stack([draw_picture(100 + i)] * 5) // 2 + 20 * np.arange(5, dtype=np.uint8)[:, None, None, None]
        write_mp4(folder / f"media/{i}.mp4", frames.astype(np.uint8), 8)
    return folder


@pytest.fixture(scope="session")
def alone(data: Path) -> Callable[[str], Path]:
    """The run of a case that one process trains."""

    def run(case: str) -> Path:
        out = data / f"one-{case}"
        if case == "begun":
            run("classes")
        if not out.exists():
            parallel_cases.train(data, case, out)
        return out

    return run


@pytest.fixture(scope="session")
def together(data: Path, alone: Callable[[str], Path]) -> Callable[[str, str, int], Path]:
    """The run of a case that several processes train in one way; all cases at once."""

    def run(way: str, case: str, count: int) -> Path:
        out = data / f"of-{count}"
        if not out.exists():
            alone("classes")
            parallel_cases.run_program(parallel_cases.__file__, data)
        return out / f"{way}-{case}"

    return run
