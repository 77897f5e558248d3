"""Training that is stopped, killed, extended or damaged: it resumes bit for bit, and the log has each line once."""

import pytest
import torch
from safetensors.torch import save_file
from toy_training import TIMINGS, StopAfter, Toy, assert_same_end, launch, metrics, network

from grncli.runs.checkpoint import list_checkpoints, read_state
from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.errors import CheckpointError, GrnError
from grncli.runtime.stopping import Stopped
from grncli.runtime.tensor_files import read_tensors

# Resuming


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, steps):
    objective = Toy()
    with pytest.raises(Stopped):
        launch(tmp_path, objective, stop=StopAfter(objective, steps))
    launch(tmp_path, module=network(seed=99))
    assert_same_end(tmp_path, whole)


def test_a_run_stopped_after_every_second_step_ends_the_same(whole, tmp_path):
    for _ in range(3):
        objective = Toy()
        with pytest.raises(Stopped):
            launch(tmp_path, objective, stop=StopAfter(objective, 2))
    launch(tmp_path)
    assert_same_end(tmp_path, whole)


def test_a_run_that_crashed_between_checkpoints_repeats_the_lost_steps(whole, tmp_path):
    objective = Toy()
    objective.spoil = lambda step, loss: loss / 0 if step == 7 else loss  # a crash of whatever kind
    with pytest.raises(GrnError):
        launch(tmp_path, objective)
    assert read_state(list_checkpoints(tmp_path)[-1]).step == 4
    launch(tmp_path)
    assert_same_end(tmp_path, whole)


def test_a_longer_run_continues_a_finished_one(tmp_path):
    constant = Optimization(learning_rate=0.01)
    launch(tmp_path / "twice", steps=4, optimization=constant)
    launch(tmp_path / "twice", steps=8, optimization=constant)
    launch(tmp_path / "once", steps=8, optimization=constant)
    assert_same_end(tmp_path / "twice", tmp_path / "once")


# The log has the same lines whatever happened. Intervals that divide neither each other nor the steps.
UNEVEN = {"steps": 11, "log_every": 4, "validate_every": 3, "checkpoint_every": 5, "keep": 9}

CONSTANT = Optimization(learning_rate=0.01)


class Told(Toy):
    """With all kinds of numbers: means, pairs, such that only some steps have, and validation."""

    def losses(self, batch, step):
        loss, numbers = super().losses(batch, step)
        pair = {"share": torch.stack([loss.detach(), torch.tensor(float(step))])}
        return loss, numbers | pair | ({"rare": loss.detach() / 3} if step % 3 == 1 else {})

    def validate(self, module):
        return {"validation_error": next(module.parameters()).sum().item()}


def launch_told(run, objective=None, **settings):
    launch(run, objective or Told(), optimization=CONSTANT, **{**UNEVEN, **settings})


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    run = tmp_path_factory.mktemp("told")
    launch_told(run)
    return run


def test_each_step_has_one_line_with_all_its_numbers(told):
    lines = metrics(told)
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 11]
    assert ["loss" in line for line in lines] == [False, True, False, True, False, True]
    assert ["validation_error" in line for line in lines] == [True, False, True, False, True, True]


@pytest.mark.parametrize("step", range(1, 11))
def test_a_run_stopped_at_any_step_has_the_same_log(told, tmp_path, step):
    objective = Told()
    with pytest.raises(Stopped):
        launch_told(tmp_path, objective, stop=StopAfter(objective, step))
    launch_told(tmp_path)
    assert metrics(tmp_path, TIMINGS) == metrics(told, TIMINGS)
    assert_same_end(tmp_path, told)


@pytest.mark.parametrize("step", range(1, 11))
def test_a_finished_run_that_is_extended_has_the_same_log(told, tmp_path, step):
    launch_told(tmp_path, steps=step)
    assert metrics(tmp_path)[-1]["step"] == step
    launch_told(tmp_path)
    assert metrics(tmp_path, TIMINGS) == metrics(told, TIMINGS)
    assert_same_end(tmp_path, told)


def test_a_run_extended_twice_and_stopped_between_has_the_same_log(told, tmp_path):
    launch_told(tmp_path, steps=2)
    objective = Told()
    with pytest.raises(Stopped):
        launch_told(tmp_path, objective, steps=7, stop=StopAfter(objective, 3))
    launch_told(tmp_path, steps=7)
    launch_told(tmp_path, steps=10)
    launch_told(tmp_path)
    assert metrics(tmp_path, TIMINGS) == metrics(told, TIMINGS)


def test_a_crash_after_lines_that_no_checkpoint_has_leaves_each_line_once(told, tmp_path):
    objective = Told()
    objective.spoil = lambda step, loss: loss / 0 if step == 9 else loss
    with pytest.raises(GrnError):
        launch_told(tmp_path, objective)
    assert (metrics(tmp_path)[-1]["step"], read_state(list_checkpoints(tmp_path)[-1]).step) == (9, 5)
    launch_told(tmp_path)
    assert metrics(tmp_path, TIMINGS) == metrics(told, TIMINGS)


def test_a_damaged_line_of_the_log_is_named(tmp_path):
    launch(tmp_path, steps=4)
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"loss"', b'"lo\xfes"', 1))
    with pytest.raises(
        CheckpointError, match=r"metrics\.jsonl:1: cannot be read as JSON \(.*remove that line"
    ) as caught:
        launch(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_that_was_moved_while_it_is_trained_is_not_claimed_to_be_saved(tmp_path):
    objective = Toy()

    def move(step, loss):
        if step == 5:
            (tmp_path / "run").rename(tmp_path / "elsewhere")
        return loss

    objective.spoil = move
    with pytest.raises(CheckpointError, match="was moved, removed or replaced while it was being trained"):
        launch(tmp_path / "run", objective)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert [path.name for path in list_checkpoints(tmp_path / "elsewhere")] == ["step-00000004"]


def test_a_finished_run_is_left_alone(tmp_path):
    launch(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    objective = Toy()
    launch(tmp_path, objective)
    assert objective.steps == []
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def damaged(run, name):
    """Cut a file of the newest checkpoint short."""
    file = list_checkpoints(run)[-1] / name
    file.write_bytes(file.read_bytes()[:-2])


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(whole, tmp_path, name):
    launch(tmp_path)
    damaged(tmp_path, name)
    said = []
    launch(tmp_path, say=said.append)
    assert_same_end(tmp_path, whole)
    assert len(said) == 1
    assert "step-00000008" in said[0]
    assert "resuming from the checkpoint before it" in said[0]


def change_tensors(run, name, change):
    """Rewrite a file of the newest checkpoint."""
    file = list_checkpoints(run)[-1] / f"{name}.safetensors"
    tensors = read_tensors(file)
    change(tensors)
    save_file(tensors, file)


def without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


MOMENTS = tuple(f"{moment}.0.weight" for moment in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("optimizer", without("exp_avg.0.weight"), "holds 11 tensors, expected 12"),
        ("optimizer", without(*MOMENTS), "holds 9 tensors, expected 12"),
        ("optimizer", lambda tensors: tensors.update({"exp_avg.0.weight": torch.zeros(2)}), "has the shape [2]"),
        ("optimizer", lambda tensors: tensors.update({"x": tensors.pop("step.0.bias")}), "step.0.bias is missing"),
        ("weights", lambda tensors: tensors.update({"0.bias": torch.zeros(17)}), "0.bias has the shape [17], expected"),
        ("weights", lambda tensors: tensors.update({"x" * 999: tensors.pop("0.bias")}), "0.bias is missing"),
        (
            "ema",
            lambda tensors: tensors.update({"0.bias": tensors["0.bias"].half()}),
            "0.bias is float16, expected float32",
        ),
    ],
)
def test_tensors_that_are_not_the_network_s_are_named_and_passed_over(whole, tmp_path, name, change, words):
    launch(tmp_path)
    change_tensors(tmp_path, name, change)
    said = []
    launch(tmp_path, say=said.append)
    assert_same_end(tmp_path, whole)
    (told,) = said
    assert f"{name}.safetensors: " in told
    assert words in told
    assert len(told) < len(str(tmp_path)) + 400


def test_a_checkpoint_that_was_passed_over_is_set_aside_and_does_not_push_sound_ones_out(tmp_path):
    launch(tmp_path)
    damaged(tmp_path, "weights.safetensors")
    objective = Toy()
    with pytest.raises(Stopped):
        launch(tmp_path, objective, keep=1, stop=StopAfter(objective, 2))
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-00000006", "step-00000008.damaged", "latest"}


def test_a_run_with_no_sound_checkpoint_is_not_begun_anew(tmp_path):
    launch(tmp_path, steps=4)
    damaged(tmp_path, "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        launch(tmp_path, steps=8)
