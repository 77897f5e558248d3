"""``grn info --verify`` names what is missing from a store and what does not belong to it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from grncli.cli import app
from grncli.store import Fingerprint, open_part


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "s.zarr"
    with open_part(path, Fingerprint(2, 3, (1, 4, 4), {"name": "toy", "sha256": "0" * 64}, {})) as writer:
        records = [{"key": str(row), "source": "s"} for row in range(5)]
        writer.append((1, 2, 2), np.zeros((5, 1, 2, 2, 2, 1), np.uint8), np.full(5, -1, np.int32), records)
        writer.commit(1, "")
        writer.finish()
    return path


def verify(store: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["info", "--verify", str(store)], env={"COLUMNS": "1000"})
    return done.exit_code, done.stdout + done.stderr


def test_a_part_that_the_store_does_not_have_is_named(store: Path) -> None:
    shutil.copytree(store / "part-00000", store / "part-00007")
    code, said = verify(store)
    assert code == 1
    assert "part-00007" in said


@pytest.mark.parametrize("array", ["bits", "label"])
def test_missing_metadata_of_an_array_is_named(store: Path, array: str) -> None:
    (store / "part-00000" / "1x2x2" / array / "zarr.json").unlink()
    code, said = verify(store)
    assert code == 1
    assert f"{array}/zarr.json" in said


def test_a_chunk_that_was_never_committed_is_named(store: Path) -> None:
    chunks = store / "part-00000" / "1x2x2" / "label"
    (chunk,) = chunks.glob("c.*")
    shutil.copy(chunk, chunks / chunk.name.replace("0", "9"))
    code, said = verify(store)
    assert code == 1
    assert f"label/{chunk.name.replace('0', '9')}" in said
