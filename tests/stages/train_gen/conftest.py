"""A store, a recipe and a run of ``grn train-gen`` that nothing interrupted."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Test modules are imported by path; their shared small_training.py and groups.py need a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))

from groups import Nursery
from small_training import RECIPE, SQUARE, WIDE, make_store


@pytest.fixture(autouse=True, scope="module")
def one_thread_each() -> Iterator[None]:
    """Processes that tests start wait for their threads more than they gain by them, as this one does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("bits") / "bits.zarr", {SQUARE: 14, WIDE: 6})


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="session")
def trained(grn: Callable, recipe: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("trained") / "run"
    result = grn("train-gen", recipe, store, "--out", run)
    assert result.returncode == 0, result.stderr
    return run


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("the processes are forked")
    there = Nursery()
    yield there
    there.close()
