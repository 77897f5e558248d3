"""However many processes train, and wherever their state lies, the result is that of one process.

Of the weights a step of AdamW is a learning rate long however small their gradients are, so that rounding moves those
whose gradient is none; the moments of its gradients tell more.
"""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parallel_cases import PLANS, train
from PIL import Image
from torch import Tensor

from grncli.runs.checkpoint import list_checkpoints, read_state
from grncli.runs.stored_tensors import open_stored

LEARNING_RATE = 1e-3
# Means of each process's own means, of which one process's is no mean.
OWN = ("seconds", "waiting_share", "accuracy", "image_psnr", "clip_psnr")
# The largest differences that rounding makes: in the log, and of each file of a checkpoint.
ROUNDING = {"log": 1e-4, "optimizer": 2e-6, "weights": LEARNING_RATE / 4, "ema": LEARNING_RATE / 4}
ROUNDING_BFLOAT16 = {"log": 1e-3, "optimizer": 1e-4, "weights": 2 * LEARNING_RATE, "ema": 2 * LEARNING_RATE}
SHARDS = {"ddp": {2: 1, 4: 1}, "fsdp": {2: 2, 4: 4}, "hsdp": {4: 2}, "ddp-then-fsdp": {2: 2}}
TRAINED = pytest.mark.parametrize(
    ("case", "way", "count"),
    [(case, way, count) for count, plan in PLANS.items() for case, ways in plan.items() for way in ways],
)

Alone = Callable[[str], Path]
Together = Callable[[str, str, int], Path]


def log(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in OWN} for line in lines]


def tensors_of(checkpoint: Path, file: str) -> dict[str, Tensor]:
    """Whole tensors of a checkpoint, which may be in shards."""
    with open_stored(checkpoint, file) as stored:
        return {name: stored.read(name) for name in stored.sizes}


def assert_same(run: Path, other: Path, rounding: dict[str, float]) -> None:
    """Logs and tensors of two runs, as far as they are not rounded otherwise."""
    assert len(log(run)) == len(log(other))
    for line, expected in zip(log(run), log(other), strict=True):
        assert line == pytest.approx(expected, rel=rounding["log"], abs=rounding["log"])
    newest = [list_checkpoints(each)[-1] for each in (run, other)]
    assert newest[0].name == newest[1].name
    for file in ("optimizer", "weights", "ema"):
        found, expected = (tensors_of(checkpoint, file) for checkpoint in newest)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor, atol=rounding[file], rtol=0, err_msg=f"{file} {name}")


@TRAINED
def test_losses_moments_and_weights_are_those_of_one_process(
    alone: Alone, together: Together, case: str, way: str, count: int
) -> None:
    assert_same(together(way, case, count), alone(case), ROUNDING_BFLOAT16 if case == "bfloat16" else ROUNDING)


@TRAINED
def test_previews_are_those_of_one_process(alone: Alone, together: Together, case: str, way: str, count: int) -> None:
    """With shards all processes draw them, and the first one writes."""
    runs = alone(case), together(way, case, count)
    expected, found = ({file.name: file for file in (run / "previews").iterdir()} for run in runs)
    assert found.keys() >= expected.keys() != set()
    for name in expected:
        if name.endswith(".png"):
            before, after = (np.asarray(Image.open(files[name]), np.float32) for files in (expected, found))
            assert np.abs(after - before).mean() < 0.1, name


@TRAINED
def test_a_process_keeps_its_share_of_weights_moments_and_averages(
    alone: Alone, together: Together, case: str, way: str, count: int
) -> None:
    run = together(way, case, count)
    checkpoint = list_checkpoints(run)[-1]
    tensors = [
        tensor
        for file in read_state(checkpoint).tensors
        if not file.startswith("discriminator")
        for tensor in tensors_of(checkpoint, file).values()
    ]
    shards = SHARDS[way][count]
    # Rows are never cut: of a tensor of few rows a process has more than its share, or nothing.
    most = sum(math.ceil(len(each) / shards) * each[:1].numel() if each.dim() else 1 for each in tensors)
    kept = [json.loads(run.with_name(f"{run.name}-{rank}.json").read_text()) for rank in range(count)]
    assert max(kept) == most
    assert max(kept) < 1.1 * sum(tensor.numel() for tensor in tensors) / shards


def test_shards_are_resumed_by_one_process(alone: Alone, together: Together, data: Path, tmp_path: Path) -> None:
    runs = []
    for run in (alone("packed"), together("fsdp", "packed", 2)):
        runs.append(tmp_path / f"of-{run.name}")
        shutil.copytree(run, runs[-1], symlinks=True)
        train(data, "packed", runs[-1], overrides=["training.steps=5"])
    assert_same(runs[1], runs[0], ROUNDING)


def test_a_dry_run_tries_steps_in_shards_and_tells_what_a_process_would_keep(together: Together) -> None:
    out = together("fsdp", "packed", 2).parent
    for rank in range(2):
        costs = json.loads((out / f"costs-{rank}").read_text())
        assert (costs["parallel"], costs["shards"], costs["memory"]["processes"]) == ("fsdp", 2, 2)
        assert costs["state_bytes"] == 4 * 6 * math.ceil(costs["parameters"] / 2)  # with two averages
        assert costs["seconds"] > 0
        assert costs["counted"]["memory"]["weights"] == costs["state_bytes"]
    assert not (out / "dry").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="lists the process's threads in /proc")
@pytest.mark.parametrize("count", PLANS)
def test_no_thread_of_the_connection_outlives_shards(together: Together, count: int) -> None:
    """Such a thread can abort the process while Python shuts down, after all work was done."""
    out = together("fsdp", "packed", count).parent
    assert [(out / f"threads-{rank}").read_text() for rank in range(count)] == [""] * count
