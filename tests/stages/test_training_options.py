"""Options of a training that change how it computes or what it logs, and not what it learns."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grncli.runs.checkpoint import list_checkpoints
from grncli.runtime.tensor_files import read_tensors
from grncli.store import Fingerprint, open_part

GENERATOR = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4, validation: 2}
training: {steps: 2, log_every: 1, checkpoint_every: 2, validate_every: 2, dtype: float32}
"""
TOKENIZER = """\
kind: tokenizer
network: {channels: 4, encoder_width: 4, decoder_width: 4, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}
data: {image: {size: 16, batch: 4}, workers: 0, validation: 2}
training: {steps: 2, log_every: 1, checkpoint_every: 2, preview_every: 2, validate_every: 2}
"""


@pytest.fixture(scope="module", params=["generator", "tokenizer"])
def training(request: pytest.FixtureRequest, media_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The command, its recipe and its data."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tokenizer":
        (folder / "tiny.yaml").write_text(TOKENIZER)
        return ["train-tokenizer", folder / "tiny.yaml", "--data", media_dir]
    (folder / "tiny.yaml").write_text(GENERATOR)
    bits = Fingerprint(
        rounds=2, channels=4, stride=(1, 4, 4), tokenizer={"name": "toy", "sha256": "3f9c" * 16}, preprocessing={}
    )
    with open_part(folder / "bits.zarr", bits) as writer:
        planes = np.random.default_rng(0).integers(0, 2, (10, 1, 2, 2, 2, 4), np.uint8)
        records = [{"key": str(row), "source": f"{row}.png"} for row in range(10)]
        writer.append((1, 2, 2), np.packbits(planes, axis=-1), np.full(10, -1), records)
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    return ["train-gen", folder / "tiny.yaml", folder / "bits.zarr"]


@pytest.fixture(scope="module")
def plain(grn_inside: Callable, training: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    done = grn_inside(*training, "--out", run)
    assert done.returncode == 0, done.stderr
    return run


def weights_of(run: Path, name: str) -> dict[str, torch.Tensor]:
    return read_tensors(list_checkpoints(run)[-1] / f"{name}.safetensors")


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_compiled_training_goes_through_torch_compile_and_ends_with_the_same_weights(
    grn_inside: Callable, training: list[object], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling itself takes minutes on a CPU, so that what is compiled here is only counted."""
    calls: Counter[int] = Counter()

    def compile_(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        calls[number := len(calls)] = 0

        def compiled(*arguments: Any, **named: Any) -> Any:
            calls[number] += 1
            return function(*arguments, **named)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    done = grn_inside(*training, "--out", tmp_path / "run", "training.compile=true")
    assert done.returncode == 0, done.stderr
    assert set(calls.values()) == {2}  # whatever parts are compiled, all pass through them in each of the two steps
    for name in ("weights", "ema"):
        ours, theirs = weights_of(tmp_path / "run", name), weights_of(plain, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


class Events:
    """As TensorBoard's writer, which need not be installed."""

    latest: "Events"

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.purge_step, self.points = folder, purge_step, {}
        Events.latest = self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points[name, step] = value

    def flush(self) -> None:
        pass


def test_tensorboard_is_given_every_number_of_the_log(
    grn_inside: Callable, training: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Events
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    run = tmp_path / "run"
    for steps, behind in ((2, 1), (3, 3)):
        done = grn_inside(*training, "--out", run, "training.tensorboard=true", f"training.steps={steps}")
        assert done.returncode == 0, done.stderr
        assert Events.latest.purge_step == behind
        assert run in Events.latest.folder.parents
        lines = [line for line in log(run) if line["step"] >= behind]
        assert Events.latest.points == {
            (name, line["step"]): value for line in lines for name, value in line.items() if name != "step"
        }
