"""Opening runs while others write them: weights, recipe, step and hash are of one checkpoint."""

import os
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from grncli.runs import describing, importing, loading, stored_tensors
from grncli.runs.checkpoint import find_checkpoint, write_checkpoint
from grncli.runs.recipe import dump_recipe
from grncli.runs.tokenizer_recipe import Data, ImageData, TokenizerRecipe, Training
from grncli.runs.tokenizers import load_tokenizer, open_tokenizer
from grncli.runtime.errors import CheckpointError
from grncli.runtime.tensor_files import sha256_of


@pytest.fixture
def write(tmp_path, make_tokenizer):
    """Writes a checkpoint of a run of 30 steps, with weights that differ from step to step; gives its weights file."""
    run = tmp_path / "run"

    def write_step(step):
        network = make_tokenizer(seed=step)
        recipe = TokenizerRecipe(network=network.config, data=Data(image=ImageData()), training=Training(steps=30))
        run.mkdir(exist_ok=True)
        if not (run / "recipe.yaml").exists():
            (run / "recipe.yaml").write_text(dump_recipe(recipe))
        folder = write_checkpoint(run, step, {"ema": network.state_dict()}, {"step": step}, asdict(network.config))
        return folder / "ema.safetensors"

    return write_step


@pytest.fixture
def run(tmp_path, write):
    write(1)
    return tmp_path / "run"


def once(monkeypatch, owner, name, event):
    """Let something happen just before a function runs for the first time."""
    original, left = getattr(owner, name), [event]

    def wrapped(*arguments, **named):
        if left:
            left.pop()()
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, wrapped)


def message_of(call, *arguments):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def agrees(loaded, file, make_tokenizer):
    """Whether network, step and hash are those of a weights file."""
    expected = make_tokenizer(seed=loaded.step).to_moments.weight
    return loaded.identity["sha256"] == sha256_of(file) and torch.equal(loaded.network.to_moments.weight, expected)


# Checkpoints that appear and go

MOMENTS = [
    (loading, "parse_own_recipe"),
    (loading, "read_state"),
    (stored_tensors, "HeldFile"),
    (stored_tensors, "open_tensors"),
    (loading, "check_tensors"),
    (loading, "fill"),
]
"""In the order in which a run is read."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_checkpoint_that_appears_while_one_is_read_changes_nothing(run, write, monkeypatch, make_tokenizer, moment):
    once(monkeypatch, *moment, lambda: write(2))
    loaded = open_tokenizer(run)
    assert loaded.step == 1
    assert agrees(loaded, run / "checkpoints/step-00000001/ema.safetensors", make_tokenizer)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_checkpoint_that_is_removed_while_it_is_read_gives_one_whole_network(
    run, write, monkeypatch, make_tokenizer, moment
):
    files = {1: run / "checkpoints/step-00000001/ema.safetensors"}
    kept = shutil.copy(files[1], run.parent / "kept")

    def prune():
        files[2] = write(2)
        shutil.rmtree(files[1].parent)

    once(monkeypatch, *moment, prune)
    loaded = open_tokenizer(run)
    assert agrees(loaded, files[2] if loaded.step == 2 else kept, make_tokenizer)


@pytest.mark.parametrize("moment", MOMENTS[1:4])
def test_the_only_checkpoint_removed_while_it_is_read_is_told_in_a_sentence(run, monkeypatch, moment):
    once(monkeypatch, *moment, lambda: shutil.rmtree(run / "checkpoints"))
    assert "has no complete checkpoint yet" in message_of(open_tokenizer, run)


@pytest.mark.parametrize("moment", MOMENTS[1:5])
def test_a_checkpoint_written_anew_while_it_is_read_is_of_one_piece(run, monkeypatch, make_tokenizer, moment):
    folder = find_checkpoint(run)

    def again():
        network = make_tokenizer(seed=1)
        network.requires_grad_(False).to_moments.bias += 1
        write_checkpoint(run, 1, {"ema": network.state_dict()}, {"step": 1}, asdict(network.config))

    before = shutil.copy(folder / "ema.safetensors", run.parent / "before")
    once(monkeypatch, *moment, again)
    loaded = open_tokenizer(run)
    candidates = {sha256_of(file): load_file(file)["to_moments.bias"] for file in (before, folder / "ema.safetensors")}
    assert torch.equal(loaded.network.to_moments.bias, candidates[loaded.identity["sha256"]])


@pytest.mark.parametrize(
    "moment", [(describing, "read_run"), *MOMENTS[2:4], (describing, "check_config"), (describing, "made_on_meta")]
)
def test_a_checkpoint_that_is_removed_while_it_is_described_gives_one_whole_description(
    run, write, monkeypatch, moment
):
    before = sha256_of(run / "checkpoints/step-00000001/ema.safetensors")

    def advance():
        write(2)
        shutil.rmtree(run / "checkpoints/step-00000001")

    once(monkeypatch, *moment, advance)
    facts = describing.describe(run)
    after = sha256_of(run / "checkpoints/step-00000002/ema.safetensors")
    assert (facts["step"], facts["sha256"]) in [(1, before), (2, after)]


def test_latest_is_followed_once(run, write, monkeypatch, make_tokenizer):
    once(monkeypatch, loading, "open_stored", lambda: write(2))
    loaded = open_tokenizer(run / "checkpoints" / "latest")
    assert loaded.step == 1
    assert agrees(loaded, run / "checkpoints/step-00000001/ema.safetensors", make_tokenizer)


def test_a_recipe_replaced_while_weights_are_read_is_read_again(run, monkeypatch):
    recipe = run / "recipe.yaml"

    def change():
        recipe.write_text(recipe.read_text().replace("rounds: 4", "rounds: 6"))
        os.utime(recipe, ns=(1, 1))

    once(monkeypatch, loading, "open_stored", change)
    loaded = open_tokenizer(run)
    assert (loaded.network.rounds, loaded.recipe.rounds) == (6, 6)


def test_a_run_that_never_stays_is_given_up(run, monkeypatch):
    recipe, ticks = run / "recipe.yaml", iter(range(1, 100))
    original = loading.open_stored

    def restless(*arguments):
        os.utime(recipe, ns=(0, next(ticks)))
        return original(*arguments)

    monkeypatch.setattr(loading, "open_stored", restless)
    assert "changed 5 times while it was read" in message_of(open_tokenizer, run)


def test_a_released_file_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    file, other = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"ema": {}}, file)
    torch.save({"ema": {}}, other)
    with importing.open_released(file) as released:
        assert (released.contents, released.held.sha256()) == ({"ema": {}}, sha256_of(file))
    once(monkeypatch, importing, "read_released", lambda: os.replace(other, file))
    with pytest.raises(CheckpointError, match="was replaced while it was read"), importing.open_released(file):
        pytest.fail("it was taken for the same file")


# How far a training is


@pytest.mark.parametrize(("step", "told"), [(18, True), (29, True), (30, False), (31, False)])
def test_a_run_that_is_not_fully_trained_is_told_once(run, write, step, told):
    write(step)
    said = []
    open_tokenizer(run, say=said.append)
    assert said == [f"{run}: is at step {step} of 30, its training is not finished"] * told


def test_an_imported_network_has_no_training_to_finish(run):
    recipe = open_tokenizer(run).recipe
    (run / "recipe.yaml").write_text(dump_recipe(replace(recipe, imported={"file": "drawn"})))
    said = []
    open_tokenizer(run, say=said.append)
    assert said == []


@pytest.mark.parametrize("step", ['"18"', "18.5", "true", "[1]"])
def test_a_step_that_is_no_number_is_refused(run, step):
    (find_checkpoint(run) / "state.json").write_text(f'{{"step": {step}}}')
    assert "state.json: field step is " in message_of(load_tokenizer, run)


# Weights that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_finite_number_is_refused_with_file_and_name(run, value):
    file = find_checkpoint(run) / "ema.safetensors"
    weights = load_file(file)
    weights["to_moments.weight"].view(-1)[3] = value
    save_file(weights, file)
    assert message_of(load_tokenizer, run) == (
        f"{file}: to_moments.weight has values that are no finite numbers; use another checkpoint"
    )


def changed(weights):
    """Other weights, and what the message must say of them."""
    return {
        "shape": (
            {**weights, "to_moments.weight": torch.zeros(5, 7, 1, 1, 1)},
            "to_moments.weight has the shape [5, 7, 1, 1, 1], expected [8, 8, 1, 1, 1]",
        ),
        "dimensions": (
            {**weights, "to_moments.bias": torch.zeros([1] * 40)},
            "to_moments.bias has the shape [1, 1, 1, 1, 1, 1, ...], expected [8]",
        ),
        "type": ({**weights, "to_moments.bias": torch.zeros(8).half()}, "to_moments.bias is float16, expected float32"),
        "integers": (
            {**weights, "to_moments.bias": torch.zeros(8).int()},
            "to_moments.bias is int32, expected float32",
        ),
        "one too many": ({**weights, "x" * 1000: torch.zeros(1)}, "there is no 'xxx"),
        "all others": ({f"name{i}": torch.zeros(1) for i in range(5000)}, f"and {5000 + len(weights) - 1} more"),
    }


@pytest.mark.parametrize("case", ["shape", "dimensions", "type", "integers", "one too many", "all others"])
def test_weights_of_other_sizes_are_told_in_a_short_line(run, case):
    file = find_checkpoint(run) / "ema.safetensors"
    weights, expected = changed(load_file(file))[case]
    save_file(weights, file)
    message = message_of(load_tokenizer, run)
    assert message.startswith(f"{file}: the weights do not fit the network of the recipe (")
    assert expected in message
    assert len(message) < len(str(file)) + 300


def test_sizes_in_the_header_are_compared_before_memory_is_asked_for(run, monkeypatch):
    file = find_checkpoint(run) / "ema.safetensors"
    save_file({**load_file(file), "to_moments.bias": torch.zeros(9)}, file)
    monkeypatch.setattr(loading, "fill", lambda *arguments: pytest.fail("memory was asked for"))
    assert "to_moments.bias has the shape [9], expected [8]" in message_of(load_tokenizer, run)


@pytest.mark.parametrize(
    "config", ["[" * 100_000, '{"channels": "' + "x" * 100_000 + '"}', "5", '{"' + "y" * 9999 + '": 1}']
)
def test_a_header_that_is_none_is_told_in_a_short_line(run, config):
    file = find_checkpoint(run) / "ema.safetensors"
    save_file(load_file(file), file, metadata={"config": config})
    assert len(message_of(load_tokenizer, run)) < len(str(file)) + 300


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, (10**6).to_bytes(8, "little") + b"{" * 10**6])
def test_a_damaged_weights_file_is_told_in_a_short_line(run, content):
    file = find_checkpoint(run) / "ema.safetensors"
    file.write_bytes(content)
    message = message_of(load_tokenizer, run)
    assert message.startswith(f"{file}: cannot be read as safetensors (")
    assert len(message) < len(str(file)) + 300
