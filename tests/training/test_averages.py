"""Means over steps and parts of batches, and several moving averages of the weights."""

import json

import pytest
import torch
from torch import nn

from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.processes import SINGLE_PROCESS
from grncli.training.logs import Averages, own_sums
from grncli.training.objective import Batch, Trainable
from grncli.training.training_state import TrainingState


def state(**settings):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    trainable = Trainable("", network, lambda batch, step: (torch.zeros(()), {}), Optimization(**settings))
    return TrainingState(trainable, torch.device("cpu"), SINGLE_PROCESS)


def take_steps(training, steps):
    for step in range(steps):
        training.module(torch.ones(1, 2)).sum().backward()
        training.optimizer_step(step, steps)


def test_a_number_is_averaged_over_the_steps_that_had_it():
    averages = Averages()
    averages.add({"loss": torch.tensor(1.0), "rare": torch.tensor(5.0)})
    averages.add({"loss": torch.tensor(3.0)})
    assert SINGLE_PROCESS.mean(averages.take()) == {"loss": 2.0, "rare": 5.0}


def test_a_pair_is_averaged_by_its_weights():
    averages = Averages()
    averages.add({"accuracy": torch.tensor([3.0, 4.0])})
    averages.add({"accuracy": torch.tensor([1.0, 12.0])})
    assert SINGLE_PROCESS.mean(averages.take()) == {"accuracy": 0.25}


def test_a_pair_without_weight_is_left_out():
    averages = Averages()
    averages.add({"accuracy": torch.zeros(2), "loss": torch.tensor(1.0)})
    assert SINGLE_PROCESS.mean(averages.take()) == {"loss": 1.0}


def test_sums_go_on_exactly_where_they_were():
    whole, first, second = Averages(), Averages(), Averages()
    for step in range(6):
        numbers = {"loss": torch.tensor(0.1 + step), "share": torch.tensor([0.3 * step, 1.0])}
        whole.add(numbers)
        (first if step < 3 else second).add(numbers)
        if step == 2:
            second.restore(json.loads(json.dumps(first.sums())), torch.device("cpu"))
    assert {name: mean.tolist() for name, mean in second.means().items()} == {
        name: mean.tolist() for name, mean in whole.means().items()
    }


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_of_other_processes_are_shared_out(count):
    """Two processes saved; whatever number resumes, the mean over all of them is the same."""
    saved = [{"loss": [6.0, 2], "share": [1.0, 4.0, 2]}, {"loss": [2.0, 2], "share": [3.0, 4.0, 2]}]
    own = [own_sums(saved, rank, count) for rank in range(count)]
    assert sum(sums["loss"][0] / sums["loss"][1] for sums in own) / count == pytest.approx(2.0)
    total, weight = (sum(sums["share"][place] for sums in own) for place in (0, 1))
    assert (total, weight) == (pytest.approx(4.0), pytest.approx(8.0))


def test_taking_starts_anew():
    averages = Averages()
    averages.add({"loss": torch.tensor(1.0)})
    averages.take()
    assert averages.take() == {}


def test_pieces_of_a_batch_keep_labels_and_numbers_beside_their_rows():
    batch = Batch(torch.arange(4), tuple("abcd"), torch.tensor([3, 2, 1, 0]), torch.tensor([7, 8, 9, 10]))
    first, second = batch.pieces(2)
    assert (first.keys, second.keys) == (("a", "b"), ("c", "d"))
    assert second.labels.tolist() == [1, 0]
    assert first.numbers.tolist() == [7, 8]


def test_each_moving_average_has_its_own_decay():
    training = state(ema=(0.5, 0.0), learning_rate=0.1)
    take_steps(training, 3)
    fast, weights = training.averages["ema2"].module.weight, training.module.weight
    assert torch.equal(fast, weights)
    assert not torch.equal(training.average.module.weight, weights)


def test_every_moving_average_is_saved_and_restored():
    training, other = state(ema=(0.9, 0.5)), state(ema=(0.9, 0.5))
    take_steps(training, 3)
    files = training.tensors()
    assert list(files) == ["ema", "ema2", "weights", "optimizer"]
    other.load(files, training.averaged)
    take_steps(training, 2)
    take_steps(other, 2)
    for name, average in training.averages.items():
        assert torch.equal(average.module.weight, other.averages[name].module.weight)


@pytest.mark.parametrize("ema", [(), (0.9, 1.0), 1.5, (-0.1,)])
def test_decays_that_cannot_be_are_refused(ema):
    with pytest.raises(ValueError, match="ema is"):
        Optimization(ema=ema)
