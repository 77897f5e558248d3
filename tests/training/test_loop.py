"""The training loop with a toy network: its log, its averages and rates; stopping saves, and what breaks is named."""

import math

import pytest
import torch
from torch import nn
from toy_training import TIMINGS, StopAfter, Toy, files, launch, metrics, network

from grncli.runs.checkpoint import list_checkpoints, read_state
from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.errors import GrnError
from grncli.runtime.stopping import Stop, Stopped
from grncli.runtime.tensor_files import read_tensors
from grncli.training.objective import Trainable
from grncli.training.training_state import learning_rate


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulating_pieces_of_a_batch_is_the_whole_batch(whole, tmp_path, pieces):
    settings = Optimization(learning_rate=0.01, warmup_steps=3, schedule="cosine", gradient_accumulation=pieces)
    launch(tmp_path, optimization=settings)
    for name, tensor in files(whole)["weights"].items():
        torch.testing.assert_close(files(tmp_path)["weights"][name], tensor)
    assert [line["loss"] for line in metrics(tmp_path)] == pytest.approx([line["loss"] for line in metrics(whole)])


# Several networks


class Duel(Toy):
    """A second network that learns what the first one gets wrong."""

    def trainables(self):
        self.critic = nn.Linear(3, 1)
        nn.init.ones_(self.critic.weight)
        theirs = Optimization(learning_rate=0.1)
        return [*super().trainables(), Trainable("critic", self.critic, self.judge, theirs)]

    def judge(self, batch, step):
        if step < 2:
            return torch.zeros(()), {}
        loss = self.critic(self.module(batch.data).detach()).square().mean()
        return loss, {"critic_level": loss.detach()}


def test_a_second_network_is_trained_saved_and_resumed(tmp_path):
    launch(tmp_path / "whole", Duel())
    objective = Duel()
    with pytest.raises(Stopped):
        launch(tmp_path / "cut", objective, stop=StopAfter(objective, 5))
    launch(tmp_path / "cut", Duel())
    for name in ("critic_weights", "critic_optimizer", "weights", "ema"):
        ours, theirs = (
            read_tensors(list_checkpoints(tmp_path / run)[-1] / f"{name}.safetensors") for run in ("cut", "whole")
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert not torch.equal(theirs["0.weight"], network()[0].weight)


def test_a_network_whose_loss_has_not_set_in_stays_as_it_is(tmp_path):
    launch(tmp_path, Duel(), steps=2, checkpoint_every=2)
    weights = read_tensors(list_checkpoints(tmp_path)[-1] / "critic_weights.safetensors")
    assert torch.equal(weights["weight"], torch.ones(1, 3))


# Validation


def test_what_is_held_out_is_measured_at_its_interval_and_in_the_end(tmp_path):
    objective = Toy()
    objective.validate = lambda module: {"validation_error": next(module.parameters()).sum().item()}
    launch(tmp_path, objective, steps=7, validate_every=3)
    assert [line["step"] for line in metrics(tmp_path) if "validation_error" in line] == [3, 6, 7]


# Stopping


def test_a_stop_saves_the_last_step(tmp_path):
    objective = Toy()
    with pytest.raises(Stopped):
        launch(tmp_path, objective, stop=StopAfter(objective, 3))
    assert read_state(list_checkpoints(tmp_path)[-1]).step == 3


def test_a_stop_tells_why_and_where(tmp_path):
    objective = Toy()
    with pytest.raises(Stopped, match="SIGTERM: stopped after step 3 of 8, with everything saved"):
        launch(tmp_path, objective, stop=StopAfter(objective, 3))


def test_a_stop_asked_for_in_the_last_step_is_no_stop(tmp_path):
    objective = Toy()
    launch(tmp_path, objective, stop=StopAfter(objective, 8))
    assert read_state(list_checkpoints(tmp_path)[-1]).step == 8


def test_a_stop_that_arrives_while_saving_does_not_claim_an_unsaved_step(tmp_path):
    """Each look at the reason may find another answer."""

    class Restless(Stop):
        looks = 0

        @property
        def reason(self):
            self.looks += 1
            return "SIGTERM" if self.looks % 2 == 0 else None

    with pytest.raises(Stopped, match="stopped after step") as stopped:
        launch(tmp_path, stop=Restless(), checkpoint_every=100)
    step = int(str(stopped.value).split("after step ")[1].split()[0])
    assert read_state(list_checkpoints(tmp_path)[-1]).step == step


def test_batches_are_closed_after_a_stop(tmp_path):
    objective = Toy()
    with pytest.raises(Stopped):
        launch(tmp_path, objective, stop=StopAfter(objective, 3))
    assert objective.open == 0


def test_batches_are_closed_at_the_end(tmp_path):
    objective = Toy()
    launch(tmp_path, objective)
    assert objective.open == 0


# What breaks


def spoiled(value, at):
    objective = Toy()
    objective.spoil = lambda step, loss: loss * value if step == at else loss
    return objective


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path, value):
    """Steps count from 1, as in the log and in the names of checkpoints."""
    with pytest.raises(GrnError, match="the loss of step 6 is not a finite number"):
        launch(tmp_path, spoiled(value, 5))


def test_a_loss_that_is_not_finite_names_its_sources(tmp_path):
    with pytest.raises(GrnError, match=r"on 5-0\.png, 5-1\.png, 5-2\.png, 5-3\.png and 4 more;"):
        launch(tmp_path, spoiled(math.nan, 5))


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(tmp_path):
    with pytest.raises(GrnError, match=r"the last good checkpoint is .*step-00000004"):
        launch(tmp_path, spoiled(math.nan, 5))


def test_a_loss_that_is_not_finite_tells_where_there_is_no_checkpoint(tmp_path):
    with pytest.raises(GrnError, match="there is no checkpoint yet"):
        launch(tmp_path, spoiled(math.nan, 1))


class SpoiledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def test_weights_spoiled_by_a_gradient_are_never_saved(tmp_path):
    objective = Toy()
    objective.spoil = lambda step, loss: SpoiledGradient.apply(loss) if step == 3 else loss
    with pytest.raises(GrnError, match="the gradient of step 4 is not a finite number"):
        launch(tmp_path, objective)
    assert list_checkpoints(tmp_path) == []


# What a run leaves


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    launch(tmp_path, checkpoint_every=2, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000006", "step-00000008"]


def test_the_last_step_is_saved_whatever_the_interval(tmp_path):
    launch(tmp_path, steps=5, checkpoint_every=100)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000005"]


def test_the_log_has_its_steps_and_the_last(tmp_path):
    launch(tmp_path, steps=7, log_every=3)
    assert [line["step"] for line in metrics(tmp_path)] == [3, 6, 7]


def test_the_log_tells_loss_rate_norm_and_time(whole):
    assert metrics(whole)[0].keys() == {"step", "loss", "error", "gradient_norm", "learning_rate", *TIMINGS}


def test_the_log_holds_means_over_the_steps_since_the_last_line(tmp_path, whole):
    launch(tmp_path, log_every=1)
    fine = [line["loss"] for line in metrics(tmp_path)]
    coarse = [line["loss"] for line in metrics(whole)]
    assert coarse == pytest.approx([(a + b) / 2 for a, b in zip(fine[::2], fine[1::2], strict=True)])


def test_reports_are_the_lines_of_the_log(tmp_path):
    reports = []
    launch(tmp_path, report=reports.append)
    assert [{"step": report.step, **report.numbers} for report in reports] == metrics(tmp_path)


def test_previews_come_at_their_interval_and_at_the_end(tmp_path):
    objective = Toy()
    launch(tmp_path, objective, steps=7, preview_every=3)
    assert [step for step, _ in objective.previews] == [3, 6, 7]


def test_previews_show_the_average(tmp_path):
    objective, module = Toy(), network()
    launch(tmp_path, objective, module=module)
    shown = dict(objective.previews[-1][1].named_parameters())
    assert all(torch.equal(shown[name], tensor) for name, tensor in files(tmp_path)["ema"].items())


def test_the_loss_falls(tmp_path):
    launch(tmp_path, steps=300, log_every=50, checkpoint_every=300, preview_every=300)
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[-1] < losses[0] / 2


# Learning rate


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)]),
        (
            {"schedule": "cosine", "warmup_steps": 2},
            [0.5, 1.0, *((1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))],
        ),
    ],
    ids=["constant", "warm-up", "cosine", "warm-up and cosine"],
)
def test_the_rate_follows_its_schedule(settings, rates):
    settings = Optimization(learning_rate=1.0, **settings)
    assert [learning_rate(settings, step, 6) for step in range(6)] == pytest.approx(rates)


def test_the_rate_in_force_is_the_one_logged(tmp_path):
    settings = Optimization(learning_rate=0.01, warmup_steps=4)
    launch(tmp_path, optimization=settings, log_every=1)
    expected = [learning_rate(settings, step, 8) for step in range(8)]
    assert [line["learning_rate"] for line in metrics(tmp_path)] == pytest.approx(expected)


def test_a_rate_warms_up_from_a_first_small_step(tmp_path):
    """The first step moves each weight by about its rate, which Adam makes of any gradient."""
    module = network()
    before = module[0].weight.detach().clone()
    launch(
        tmp_path, module=module, steps=1, optimization=Optimization(learning_rate=0.01, warmup_steps=10, weight_decay=0)
    )
    torch.testing.assert_close((module[0].weight - before).abs().max(), torch.tensor(0.001), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("part", "decays"), [("weight", True), ("bias", False)])
def test_only_matrices_decay(tmp_path, part, decays):
    module = network()
    nn.init.ones_(module[0].bias)
    before = getattr(module[0], part).detach().clone()
    objective = Toy()
    objective.spoil = lambda step, loss: loss * 0
    settings = Optimization(learning_rate=0.1, weight_decay=0.5)
    launch(tmp_path, objective, module=module, steps=1, optimization=settings)
    expected = before * (1 - 0.1 * 0.5) if decays else before
    torch.testing.assert_close(getattr(module[0], part).detach(), expected)


# Moving average


def test_the_average_follows_the_weights_by_its_recurrence(tmp_path):
    module, seen = network(), []
    launch(
        tmp_path,
        module=module,
        log_every=1,
        report=lambda _: seen.append(module[0].weight.detach().clone()),
        optimization=Optimization(learning_rate=0.01, ema=0.3),
    )
    average = seen[0]
    for count, weight in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(files(tmp_path)["ema"]["0.weight"], average)


def test_the_average_is_not_the_weights(whole):
    found = files(whole)
    assert all((found["ema"][name] - found["weights"][name]).abs().max() > 0 for name in found["ema"])


def test_weights_and_average_stay_in_float32_under_autocast(tmp_path):
    launch(tmp_path, dtype=torch.bfloat16)
    assert {t.dtype for named in files(tmp_path).values() for t in named.values()} == {torch.float32}


def test_autocast_reaches_the_forward_pass(tmp_path):
    class Seen(Toy):
        def losses(self, batch, step):
            self.dtype = self.module(batch.data).dtype
            return super().losses(batch, step)

    objective = Seen()
    launch(tmp_path, objective, dtype=torch.bfloat16)
    assert objective.dtype == torch.bfloat16
