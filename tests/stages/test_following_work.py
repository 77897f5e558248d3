"""``grn status`` of a real process: at work, killed, and done."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import grncli
from grncli.runtime.writer_status import STATUS
from grncli.status.piece_status import PieceStatus
from grncli.store import Fingerprint, open_part

RECIPE = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4}
training: {steps: 1000000, log_every: 1000000, checkpoint_every: 20, preview_every: 1000000, validate_every: 1000000,
    dtype: float32}
"""


@pytest.fixture
def training(tmp_path: Path) -> list[object]:
    """The command of a training that takes hours."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    bits = Fingerprint(2, 4, (1, 4, 4), {"name": "toy", "sha256": "3f9c" * 16}, {})
    with open_part(tmp_path / "bits.zarr", bits) as writer:
        planes = np.random.default_rng(0).integers(0, 2, (8, 1, 2, 2, 2, 4), np.uint8)
        records = [{"key": str(row), "source": f"{row}.png"} for row in range(8)]
        writer.append((1, 2, 2), np.packbits(planes, axis=-1), np.full(8, -1), records)
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    return ["train-gen", tmp_path / "tiny.yaml", tmp_path / "bits.zarr", "--out", tmp_path / "gen", "--device", "cpu"]


def wait_for(
    run: Path, holds: Callable[[PieceStatus], object], process: "subprocess.Popen[str] | None" = None
) -> PieceStatus:
    """The status of a run once it is as asked, while the process that trains it lives."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if (run / "recipe.yaml").exists():
            (piece,) = grncli.work_status(run)[0].pieces
            if holds(piece):
                return piece
        time.sleep(0.2)
    raise AssertionError(f"{run}: never came to be as expected")


def test_a_training_is_followed_from_its_first_step_to_its_last(
    tmp_path: Path,
    training: list[object],
    start_grn: Callable[..., "subprocess.Popen[str]"],
    grn_inside: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    run = tmp_path / "gen"
    killed = start_grn(*training)
    at_work = wait_for(run, lambda piece: piece.total and piece.pid and (run / "checkpoints/latest").exists(), killed)
    killed.kill()
    killed.communicate()
    assert (at_work.state, at_work.pid, at_work.total) == ("running", killed.pid, 1_000_000)
    lost = wait_for(run, lambda piece: piece.state != "running")
    assert (lost.state, lost.pid, lost.done % 20) == ("lost", killed.pid, 0)
    assert lost.done >= 20

    table = grn_inside("status", tmp_path)
    assert f":{killed.pid}" in table.stdout
    assert "1 complete, 1 lost" in table.stderr

    finished = grn_inside(*training, f"training.steps={lost.done + 1}")
    assert finished.returncode == 0, finished.stderr
    assert wait_for(run, lambda piece: True).state == "complete"
    assert not (run / STATUS).exists()
