"""``grn train-gen``: its run directory, kills and resumes, refusals before anything is written, several processes."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import SQUARE, STEPS, WIDE, here, make_store, metrics, sentence, settled, succeed, wait_for

from grncli.runs.checkpoint import list_checkpoints
from grncli.runs.rundir import locked_run
from grncli.runtime import devices
from grncli.runtime.tensor_files import read_tensors, sha256_of
from grncli.store import open_store

# What a run leaves


def test_the_run_s_recipe_says_which_bits_it_learned(trained: Path, store: Path) -> None:
    assert settled(trained)["bits"] == {
        "tokenizer": {"name": "toy", "sha256": "3f9c" * 16},
        "stride": [1, 16, 16],
        "labels": ["ant", "bee"],
        "grids": {"1x2x2": 14, "1x2x3": 6},
        "stores": [open_store(store).digest()],
        "fps": 8,
    }


def test_the_run_s_recipe_has_the_sizes_that_follow_from_the_bits(trained: Path) -> None:
    network = settled(trained)["network"]
    assert (network["rounds"], network["channels"], network["classes"]) == (3, 10, 2)


def test_a_checkpoint_has_both_moving_averages(trained: Path) -> None:
    ema, ema2, weights = (
        read_tensors(trained / f"checkpoints/latest/{name}.safetensors") for name in ("ema", "ema2", "weights")
    )
    assert ema.keys() == ema2.keys() == weights.keys()
    assert not torch.equal(ema["classes"], ema2["classes"])


def test_so_many_checkpoints_are_kept(trained: Path) -> None:
    assert [path.name for path in list_checkpoints(trained)] == ["step-00000018", "step-00000024"]


def test_the_log_has_accuracies_by_the_selection_ratio(trained: Path) -> None:
    found = {name for line in metrics(trained) for name in line if name.startswith("accuracy_")}
    assert {"accuracy_0.2", "accuracy_0.3", "accuracy_0.4"} <= found <= {f"accuracy_0.{i}" for i in range(10)}


def test_the_log_has_a_line_for_every_step(trained: Path) -> None:
    assert [line["step"] for line in metrics(trained) if "loss" in line] == list(range(1, STEPS + 1))


def test_what_is_held_out_is_validated_now_and_then(trained: Path) -> None:
    assert [line["step"] for line in metrics(trained) if "validation_loss" in line] == [8, 16, 24]


# Running again


def test_a_finished_run_is_left_alone(trained: Path, recipe: Path, store: Path, read_tree: Callable) -> None:
    before = read_tree(trained)
    result = here(recipe, store, "--out", trained)
    assert (result.exit_code, "nothing to do" in result.stderr) == (0, True)
    assert read_tree(trained) == before


@pytest.fixture(scope="module")
def killed(
    start_grn: Callable, grn: Callable, recipe: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that was killed after its first checkpoint, and run again."""
    run = tmp_path_factory.mktemp("killed") / "run"
    process = start_grn("train-gen", recipe, store, "--out", run)
    wait_for(run / "checkpoints/step-00000006")
    process.kill()
    process.communicate()
    assert list_checkpoints(run)[-1].name < f"step-{STEPS:08d}", "it was done before it could be killed"
    result = grn("train-gen", recipe, store, "--out", run)
    assert result.returncode == 0, result.stderr
    return run


@pytest.mark.parametrize("name", ["ema", "ema2", "weights", "optimizer"])
def test_a_killed_run_ends_with_the_same_tensors(trained: Path, killed: Path, name: str) -> None:
    whole, again = (read_tensors(run / f"checkpoints/latest/{name}.safetensors") for run in (trained, killed))
    assert whole.keys() == again.keys()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []


def test_a_killed_run_ends_with_the_same_log(trained: Path, killed: Path) -> None:
    assert metrics(killed) == metrics(trained)


def test_a_finished_run_is_marked_and_says_how_it_was_made(trained: Path, killed: Path) -> None:
    records = [json.loads((run / "run.json").read_text()) for run in (trained, killed)]
    assert all((run / "COMPLETE").read_bytes() == b"" for run in (trained, killed))
    assert [record["resumed"] is None for record in records] == [True, False]
    assert records[0]["data"] == records[1]["data"]
    assert records[0]["data"]["items"] == 20
    assert "train-gen" in records[0]["command"]
    assert set(records[0]["versions"]) == {"grn", "torch", "python"}


def test_a_finished_run_that_is_extended_has_the_log_of_one_that_was_never_finished(
    trained: Path, recipe: Path, store: Path, tmp_path: Path
) -> None:
    arguments = [recipe, store, "--out", tmp_path / "run", "training.log_every=7", "training.validate_every=8"]
    for steps in (10, STEPS):
        assert here(*arguments, f"training.steps={steps}").exit_code == 0
        assert (tmp_path / "run" / "COMPLETE").exists()
    assert here(*arguments[:3], tmp_path / "once", *arguments[4:]).exit_code == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "once")
    assert [line["step"] for line in metrics(tmp_path / "run")] == [7, 8, 14, 16, 21, 24]


@pytest.fixture(scope="module")
def opened() -> Callable[[Callable[[], Any]], Counter[str]]:
    """Counts how often a call opens each file."""
    counts: list[Counter[str]] = []

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if counts and event == "open" and isinstance(arguments[0], str | os.PathLike):
            counts[-1][os.fspath(arguments[0])] += 1

    sys.addaudithook(listen)  # which stays, and does nothing once the test is over

    def count(call: Callable[[], Any]) -> Counter[str]:
        counts.append(Counter())
        call()
        return counts.pop()

    return count


def test_a_command_opens_its_recipe_and_its_stores_once(
    opened: Callable, recipe: Path, store: Path, tmp_path: Path
) -> None:
    arguments = [recipe, store, "--out", tmp_path / "run", "--allow-incomplete"]
    first = opened(lambda: here(*arguments, "training.steps=2"))
    assert first[str(recipe)] == 1
    assert first[str(store / "zarr.json")] == 1
    assert first[str(store / "part-00000" / "commit.json")] <= 2  # its content, and its hash
    again = opened(lambda: here(*arguments, "training.steps=4"))
    # Its own recipe before and under the lock, and once more to leave it as it is where nothing changed.
    assert again[str(tmp_path / "run" / "recipe.yaml")] <= 3
    assert again[str(recipe)] == again[str(store / "zarr.json")] == 1
    # Its checkpoint before and under the lock, and to be restored.
    assert again[str(tmp_path / "run" / "checkpoints" / "step-00000002" / "state.json")] <= 3


def test_a_run_that_another_process_trains_is_refused(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run")
    with locked_run(tmp_path / "run"):
        for more in (["training.steps=4"], ["--overwrite"]):
            result = here(recipe, store, "--out", tmp_path / "run", *more)
            assert (result.exit_code, "is being trained by" in sentence(result)) == (1, True)
        succeed(recipe, store, "--out", tmp_path / "run")  # there is nothing to do


def test_the_command_that_was_stopped_resumes_also_with_overwrite(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "network.depth=3")
    stopped = [recipe, store, "--out", tmp_path / "run", "--overwrite", "--max-time", "0.001s"]
    for step in (1, 2, 3):
        result = here(*stopped)
        assert (result.exit_code, f"after step {step} of {STEPS}" in result.stderr) == (75, True), result.stderr
    assert here(*stopped[:-2]).exit_code == 0
    assert (tmp_path / "run" / "COMPLETE").exists()
    assert "after step 1 of" in here(*stopped).stderr  # a finished one is made anew


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_a_link_in_a_run_is_refused_and_replaced_by_overwriting(
    recipe: Path, store: Path, tmp_path: Path, read_tree: Callable, name: str
) -> None:
    run = tmp_path / "run"
    succeed(recipe, store, "--out", run)
    (tmp_path / "scratch").mkdir()
    (run / name).rename(tmp_path / "scratch" / name)
    (run / name).symlink_to(tmp_path / "scratch" / name)
    before = read_tree(tmp_path / "scratch")
    result = here(recipe, store, "--out", run, "training.steps=4")
    assert (result.exit_code, f"{run / name}: is a link" in sentence(result)) == (1, True)
    succeed(recipe, store, "--out", run, "training.seed=7", "--overwrite")
    assert read_tree(tmp_path / "scratch") == before
    assert not (run / name).is_symlink()
    assert [line["step"] for line in metrics(run)] == [1, 2]


def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(
    recipe: Path, store: Path, tmp_path: Path
) -> None:
    result = here(recipe, store, "--out", tmp_path / "run", "network.width=65536", "network.depth=64")
    assert (result.exit_code, "GB: make it smaller" in sentence(result)) == (2, True)
    assert not (tmp_path / "run").exists()


def test_sigterm_leaves_a_checkpoint_to_go_on_from(
    start_grn: Callable, recipe: Path, store: Path, tmp_path: Path
) -> None:
    arguments = [recipe, store, "--out", tmp_path / "run", "training.checkpoint_every=100000"]
    process = start_grn("train-gen", *arguments, "training.steps=100000")
    wait_for(tmp_path / "run/metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    step = int(list_checkpoints(tmp_path / "run")[-1].name.removeprefix("step-"))
    more = here(*arguments, f"training.steps={step + 2}", "--json")
    assert (more.exit_code, json.loads(more.stdout)["step"]) == (0, step + 2)
    assert len(metrics(tmp_path / "run")) >= step + 2


def test_a_run_of_another_recipe_is_refused_and_kept(
    trained: Path, recipe: Path, store: Path, read_tree: Callable
) -> None:
    before = read_tree(trained)
    result = here(recipe, store, "--out", trained, "network.depth=3")
    assert (result.exit_code, "network.depth=2 there, 3 asked" in sentence(result)) == (1, True)
    assert read_tree(trained) == before


def test_a_run_of_another_recipe_is_overwritten_on_request(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run")
    succeed(recipe, store, "--out", tmp_path / "run", "network.depth=3", "--overwrite")
    assert settled(tmp_path / "run")["network"]["depth"] == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("=3", "'=3' is not of the form field=value"),
        ("data..batch=3", "'data..batch=3' is not of the form field=value"),
        ("data.batch=abc", "data.batch is 'abc': expected a whole number"),
        ("optimisation.lr=1", "there is no field optimisation.lr; did you mean optimization.learning_rate?"),
        ("training.tensorboard=true", "needs the tensorboard package"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_made(
    override: str, words: str, recipe: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = here(recipe, store, override, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert words in sentence(result)
    assert not list(tmp_path.iterdir())


# The number format


@pytest.fixture
def computes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the processor one that has bfloat16, or has not."""
    return lambda has: monkeypatch.setattr(devices, "_has_bfloat16", lambda device: has)


@pytest.mark.parametrize(("has", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_settled_when_a_run_begins_and_told(
    computes_in_bfloat16: Callable, recipe: Path, store: Path, tmp_path: Path, has: bool, dtype: str
) -> None:
    computes_in_bfloat16(has)
    said = succeed(recipe, store, "--out", tmp_path / "run", "--dtype", "auto").stderr
    weights = read_tensors(tmp_path / "run/checkpoints/latest/weights.safetensors").values()
    thousands = sum(tensor.numel() for tensor in weights) / 1e3
    assert said.splitlines()[0] == f"train-gen: {thousands:.1f} k parameters in {dtype} on cpu, 1 process"
    assert settled(tmp_path / "run")["training"]["dtype"] == dtype


@pytest.mark.parametrize("begun", ["bfloat16", "float32"])
def test_a_resume_with_auto_keeps_the_format_of_the_run_on_another_processor(
    computes_in_bfloat16: Callable, recipe: Path, store: Path, tmp_path: Path, begun: str
) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "--dtype", begun)
    computes_in_bfloat16(begun == "float32")
    more = here(recipe, store, "--out", tmp_path / "run", "--dtype", "auto", "training.steps=4")
    assert (more.exit_code, f"in {begun} on cpu" in more.stderr) == (0, True)
    assert settled(tmp_path / "run")["training"]["dtype"] == begun


def test_a_run_does_not_go_on_in_another_format_that_is_asked_for(
    recipe: Path, store: Path, tmp_path: Path, read_tree: Callable
) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "--dtype", "bfloat16")
    before = read_tree(tmp_path / "run")
    result = here(recipe, store, "--out", tmp_path / "run", "--dtype", "float32", "training.steps=4")
    said = sentence(result)
    assert (result.exit_code, "training.dtype=bfloat16 there, float32 asked" in said) == (1, True)
    assert str(tmp_path / "run") in said
    assert read_tree(tmp_path / "run") == before


def test_a_run_from_before_the_format_was_kept_goes_on_and_says_so(recipe: Path, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed(recipe, store, "--out", run)
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("  dtype: float32\n", ""))
    assert "dtype" not in settled(run)["training"]
    result = here(recipe, store, "--out", run, "--dtype", "bfloat16", "training.steps=4")
    assert (result.exit_code, "does not say training.dtype" in result.stderr) == (0, True)
    assert settled(run)["training"]["dtype"] == "bfloat16"


def test_the_format_is_the_recipe_s_unless_an_option_says_another(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "training.dtype=bfloat16", "--dtype", "bfloat16")
    assert settled(tmp_path / "run")["training"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "float32", "training.dtype=bfloat16"], "--dtype float32 and training.dtype=bfloat16 contradict"),
        (["--dtype", "float16"], "--dtype float16: expected auto, float32 or bfloat16"),
    ],
)
def test_a_format_that_cannot_be_is_wrong_usage(
    recipe: Path, store: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = here(recipe, store, "--out", tmp_path / "run", *arguments)
    assert (result.exit_code, words in sentence(result)) == (2, True)
    assert not (tmp_path / "run").exists()


# Stores


def test_two_stores_train_together(recipe: Path, store: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", {SQUARE: 5}, labels=("bee", "cat"))
    succeed(recipe, store, other, "--out", tmp_path / "run")
    found = settled(tmp_path / "run")
    assert found["bits"]["grids"] == {"1x2x2": 19, "1x2x3": 6}
    assert (found["bits"]["labels"], found["network"]["classes"]) == (["ant", "bee", "cat"], 3)


def test_an_incomplete_store_is_trained_on_on_request(recipe: Path, tmp_path: Path) -> None:
    part = make_store(tmp_path / "part.zarr", {SQUARE: 8}, finish=False)
    said = succeed(recipe, part, "--out", tmp_path / "run", "--allow-incomplete").stderr
    assert "part.zarr: is not complete, training on the 8 samples it has so far" in said


def test_no_classes_are_learned_where_none_are_asked_for(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "network.classes=0")
    assert (settled(tmp_path / "run")["network"]["classes"], settled(tmp_path / "run")["bits"]["labels"]) == (0, [])
    assert len(read_tensors(tmp_path / "run/checkpoints/latest/ema.safetensors")["classes"]) == 1


def test_a_store_without_labels_is_learned_without_classes(recipe: Path, tmp_path: Path) -> None:
    plain = make_store(tmp_path / "plain.zarr", {SQUARE: 8}, labels=(), unlabelled=8)
    succeed(recipe, plain, "--out", tmp_path / "run")
    assert settled(tmp_path / "run")["network"]["classes"] == 0


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_fewer_rounds_than_the_store_has_are_learned(
    recipe: Path, store: Path, tmp_path: Path, prediction: str
) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "network.rounds=2", f"network.prediction={prediction}")
    logits = read_tensors(tmp_path / "run/checkpoints/latest/ema.safetensors")["head.linear.bias"]
    assert len(logits) == {"ind": 2**2 * 10, "bit": 2 * 2 * 10}[prediction]


# Refusals


@pytest.fixture(scope="module")
def places(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores that cannot be trained on, by name."""
    folder = tmp_path_factory.mktemp("refused")
    return {
        "store": store,
        "nothing": folder / "nothing.zarr",
        "empty": make_store(folder / "empty.zarr", {}),
        "incomplete": make_store(folder / "incomplete.zarr", {SQUARE: 8}, finish=False),
        "unlabelled": make_store(folder / "unlabelled.zarr", {SQUARE: 8}, labels=(), unlabelled=8),
        "partly": make_store(folder / "partly.zarr", {SQUARE: 8}, unlabelled=3),
        "coarse": make_store(folder / "coarse.zarr", {SQUARE: 8}, rounds=2),
    }


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{nothing}"], 1, "does not exist"),
        (["{empty}"], 1, "no sample to train on"),
        (["{incomplete}"], 1, "is not complete (8 samples so far)"),
        (["{store}", "{coarse}"], 1, "coarse.zarr has rounds=2"),
        (["{store}", "network.rounds=4"], 1, "has rounds=3, and the recipe rounds=4"),
        (["{store}", "network.channels=12"], 1, "has channels=10, and the recipe channels=12"),
        (["{store}", "network.classes=3"], 2, "2 classes, and the recipe says network.classes=3"),
        (["{unlabelled}", "network.classes=2"], 2, "no classes, and the recipe says network.classes=2"),
        (["{partly}"], 1, "3 samples have no label and others do"),
        (["{store}", "network.dept=3"], 2, "did you mean network.depth?"),
        (["network.depth=3"], 2, "there is no STORE"),
        (["{store}", "data.validation=14"], 2, "data.validation is 14, expected less than the 14 samples"),
        (["{store}", "optimization.gradient_accumulation=8"], 2, "data.batch is 4, expected a multiple of 8"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    arguments: list[str], code: int, words: str, dry: list[str], recipe: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    result = here(recipe, *(text.format(**places) for text in arguments), "--out", tmp_path / "run", *dry)
    assert words in sentence(result)
    assert result.exit_code == code
    assert not (tmp_path / "run").exists()


def test_a_missing_run_directory_is_wrong_usage(grn: Callable, recipe: Path, store: Path) -> None:
    result = grn("train-gen", recipe, store)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "--out RUN is missing" in result.stderr


# Several processes


def test_a_training_begins_with_the_average_of_another_run(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run", "training.steps=4")
    small = ["optimization.learning_rate=1e-30", "training.steps=1"]
    succeed(recipe, store, "--out", tmp_path / "more", "--from", tmp_path / "run", *small)
    average = read_tensors(tmp_path / "run/checkpoints/latest/ema.safetensors")
    begun = read_tensors(tmp_path / "more/checkpoints/latest/weights.safetensors")
    for name, value in average.items():
        torch.testing.assert_close(begun[name], value, msg=name)
    assert settled(tmp_path / "more")["started_from"]["name"] == "run"
    wider = here(recipe, store, "--out", tmp_path / "wider", "--from", tmp_path / "run", "network.width=32")
    assert (wider.exit_code, "of other sizes" in sentence(wider)) == (2, True)


def test_two_processes_do_what_one_does(recipe: Path, store: Path, tmp_path: Path) -> None:
    options = ["training.steps=8", "optimization.gradient_accumulation=2"]
    assert here(recipe, store, "--out", tmp_path / "one", *options).exit_code == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "grncli"]
    command += ["train-gen", recipe, store, "--out", tmp_path / "two", *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("trained to step 8") == 1
    for name in ("weights", "ema"):
        one, two = (read_tensors(tmp_path / run / f"checkpoints/latest/{name}.safetensors") for run in ("one", "two"))
        for key in one:
            torch.testing.assert_close(two[key], one[key], atol=1e-4, rtol=0, msg=f"{name} {key}")
    assert [line["step"] for line in metrics(tmp_path / "two")] == [line["step"] for line in metrics(tmp_path / "one")]


def test_sheets_of_samples_are_drawn_on_the_way(make_run: Callable, recipe: Path, tmp_path: Path) -> None:
    tokenizer = make_run(tmp_path / "tok", rounds=3)
    identity = {"name": "tok", "sha256": sha256_of(tokenizer / "checkpoints" / "latest" / "ema.safetensors")}
    bits = make_store(tmp_path / "s.zarr", {SQUARE: 8}, channels=4, stride=(2, 4, 4), tokenizer=identity)
    succeed(recipe, bits, "--out", tmp_path / "run", "--tokenizer", tokenizer, "preview.steps=3")
    assert (tmp_path / "run" / "previews" / "samples-00000002.png").stat().st_size > 500


def test_a_tokenizer_of_other_bits_draws_no_sheets(
    make_run: Callable, recipe: Path, store: Path, tmp_path: Path
) -> None:
    tokenizer = make_run(tmp_path / "tok", rounds=3)
    result = here(recipe, store, "--out", tmp_path / "run", "--tokenizer", tokenizer)
    assert result.exit_code == 1
    assert "learned the bits of toy" in sentence(result)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_bits(recipe: Path, store: Path, tmp_path: Path) -> None:
    succeed(recipe, store, "--out", tmp_path / "run")
    other = make_store(tmp_path / "other.zarr", {SQUARE: 14, WIDE: 6})
    (other / "part-00000" / "commit.json").write_text((other / "part-00000" / "commit.json").read_text() + " ")
    result = here(recipe, other, "--out", tmp_path / "run", "training.steps=4")
    assert result.exit_code == 1
    assert "bits.stores" in sentence(result)


def test_a_tokenizers_run_is_not_overwritten(recipe: Path, store: Path, make_run: Callable, tmp_path: Path) -> None:
    tokenizer = make_run(tmp_path / "tok", rounds=3)
    result = here(recipe, store, "--out", tokenizer, "--overwrite")
    assert result.exit_code == 1
    assert "is the run of a tokenizer" in sentence(result)
    assert (tokenizer / "checkpoints" / "latest" / "ema.safetensors").is_file()
