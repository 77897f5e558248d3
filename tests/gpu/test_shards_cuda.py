"""Shards on a CUDA device are saved through pinned memory while the training goes on, and come back to the device.

``GRN_TEST_DEVICE=cpu`` runs the same test on the CPU, which shows that it runs where there is no GPU.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.processes import SINGLE_PROCESS
from grncli.training.objective import Trainable
from grncli.training.restoring import Position
from grncli.training.sharded_checkpointer import ShardedCheckpointer
from grncli.training.sharding import Sharding, whole
from grncli.training.training_state import TrainingState

DEVICE = torch.device(os.environ.get("GRN_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of this process only."""
    backend = "cpu:gloo,cuda:nccl" if DEVICE.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_state(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 4096), nn.Tanh(), nn.Linear(4096, 64))
    trainable = Trainable(
        "",
        network,
        lambda batch, step: (network(batch).square().mean(), {}),
        Optimization(learning_rate=0.01),
        shard=lambda module, sharding, dtype: sharding.apply(module, [module[0], module[2]], dtype),
    )
    return TrainingState(trainable, DEVICE, SINGLE_PROCESS, Sharding(kind="fsdp", device=DEVICE.type))


def train(state: TrainingState, steps: int) -> None:
    for step in range(steps):
        loss, _ = state.trainable.losses(torch.ones(8, 64, device=DEVICE), step)
        state.backward(loss, is_last=True)
        state.optimizer_step(step, 10)


def test_what_is_saved_is_the_state_of_its_step_and_is_taken_back(tmp_path: Path) -> None:
    run = ShardedCheckpointer(tmp_path / "run", {}, SINGLE_PROCESS, keep=2, keep_every=None, say=print)
    state, other = make_state(0), make_state(1)
    train(state, 3)
    expected = {file: {name: each.clone() for name, each in named.items()} for file, named in state.tensors().items()}
    for step in (3, 5):
        run.save(Position(step), [state])
        train(state, 2)
    run.finish()
    (tmp_path / "run/checkpoints/step-00000005/state.json").unlink()
    assert run.restore([other]).step == 3
    for file, named in other.tensors().items():
        assert named.keys() == expected[file].keys()
        for name, tensor in named.items():
            assert tensor.device.type == DEVICE.type
            assert torch.equal(whole(tensor), whole(expected[file][name])), f"{file} {name}"
