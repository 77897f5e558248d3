"""Every process calls the checkpointer; with whole files the first writes, and each takes its own share back."""

import pytest
import torch
from torch import nn

from grncli.runs.checkpoint import list_checkpoints, read_state
from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.errors import CheckpointError
from grncli.runtime.processes import Processes
from grncli.training.checkpointer import WholeFileCheckpointer
from grncli.training.objective import Trainable
from grncli.training.restoring import Position
from grncli.training.training_state import TrainingState


class Pair(Processes):
    """One of two processes, the other of which sends the same and is never waited for."""

    def gather_json(self, document):
        return [document, document]

    def wait(self):
        pass

    def copy_first(self, tensors):
        pass

    def start_sum(self, numbers):
        numbers.mul_(2)
        return self


def make_state(seed=0):
    torch.manual_seed(seed)
    network = nn.Linear(2, 1)
    trainable = Trainable("", network, lambda batch, step: (torch.zeros(()), {}), Optimization(learning_rate=0.1))
    return TrainingState(trainable, torch.device("cpu"), Pair(0, 2))


def checkpointer(run, rank=0, **options):
    return WholeFileCheckpointer(
        run, {}, Pair(rank, 2), **{"keep": 2, "keep_every": None, "say": lambda _: None, **options}
    )


def trained(steps=1):
    state = make_state()
    for step in range(steps):
        state.module(torch.ones(1, 2)).sum().backward()
        state.optimizer_step(step, steps)
    return state


def test_only_the_first_process_writes(tmp_path):
    checkpointer(tmp_path / "run", rank=1).save(Position(1), [trained()])
    assert not (tmp_path / "run").exists()
    checkpointer(tmp_path / "run", rank=0).save(Position(1), [trained()])
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000001"]


def test_sums_of_all_processes_are_saved_and_each_gets_its_own(tmp_path):
    checkpointer(tmp_path).save(Position(1, {"loss": [3.0, 2]}), [trained()])
    assert read_state(list_checkpoints(tmp_path)[-1]).sums == [{"loss": [3.0, 2]}] * 2
    assert [checkpointer(tmp_path, rank).restore([make_state()]).sums for rank in (0, 1)] == [{"loss": [3.0, 2]}] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_takes_the_weights_of_the_newest_checkpoint(tmp_path, rank):
    state, other = trained(3), make_state(seed=5)
    checkpointer(tmp_path).save(Position(3), [state])
    assert checkpointer(tmp_path, rank).restore([other]).step == 3
    assert torch.equal(other.module.weight, state.module.weight)
    assert other.averaged == 3


def test_nothing_is_restored_where_there_is_nothing(tmp_path):
    state = make_state()
    assert checkpointer(tmp_path).restore([state]) == Position()
    assert checkpointer(tmp_path).newest() is None
    assert torch.equal(state.module.weight, make_state().module.weight)


def test_every_process_passes_a_damaged_checkpoint_over_and_the_first_sets_it_aside(tmp_path):
    for step in (1, 2):
        checkpointer(tmp_path).save(Position(step), [trained(step)])
    (tmp_path / "checkpoints/step-00000002/weights.safetensors").write_bytes(b"")
    assert checkpointer(tmp_path, rank=1).restore([make_state()]).step == 1
    assert checkpointer(tmp_path).newest().name == "step-00000002"
    said = []
    assert checkpointer(tmp_path, say=said.append).restore([make_state()]).step == 1
    assert checkpointer(tmp_path).newest().name == "step-00000001"
    assert "weights.safetensors" in said[0]


def test_a_run_that_was_moved_gets_no_checkpoint(tmp_path):
    here = checkpointer(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="was moved, removed or replaced"):
        here.save(Position(1), [trained()])
    assert list((tmp_path / "elsewhere").iterdir()) == []
