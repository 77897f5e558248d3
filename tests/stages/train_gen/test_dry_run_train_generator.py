"""``grn train-gen --dry-run``: what a training counts and tries, without a trace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_training import STEPS, here, sentence

from grncli.costs import training_costs
from grncli.runs.checkpoint import list_checkpoints
from grncli.runtime.tensor_files import read_tensors
from grncli.training import run_setup


def test_a_dry_run_prints_and_writes_nothing(recipe: Path, store: Path, tmp_path: Path) -> None:
    result = here(recipe, store, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[2] != " "] == [
        *("samples", "tokens", "operations", "to", "time", "parameters", "state", "memory", "disk")
    ]
    assert max(map(len, lines)) <= 80
    assert not list(tmp_path.iterdir())


def test_a_dry_run_needs_no_run_directory(recipe: Path, store: Path) -> None:
    assert here(recipe, store, "--dry-run").exit_code == 0


@pytest.fixture(scope="module")
def costs(recipe: Path, store: Path) -> dict[str, Any]:
    return json.loads(here(recipe, store, "--dry-run", "--json").stdout)


def test_a_dry_run_counts_the_parameters_of_the_network(costs: dict[str, Any], trained: Path) -> None:
    weights = read_tensors(trained / "checkpoints/latest/weights.safetensors")
    assert costs["parameters"] == sum(tensor.numel() for tensor in weights.values())


def test_a_dry_run_counts_epochs_without_what_is_held_out(costs: dict[str, Any]) -> None:
    assert (costs["samples"], costs["steps_per_epoch"]) == (18, 4.5)
    assert costs["epochs"] == pytest.approx(STEPS / 4.5)


def test_a_dry_run_is_about_the_largest_grid(costs: dict[str, Any]) -> None:
    assert (costs["largest_grid"], costs["tokens_per_step"]) == ("1x2x3", 4 * 6)


def test_a_dry_run_tries_steps_of_every_grid(costs: dict[str, Any], trained: Path) -> None:
    tried = costs["costs"]
    assert tried["counts"]["steps"] == STEPS
    assert tried["seconds"] > 0
    assert tried["memory"]["process"] > 50e6  # PyTorch alone takes more
    kept = [checkpoint for checkpoint in list_checkpoints(trained) if not checkpoint.is_symlink()]
    tensors = sum(file.stat().st_size for checkpoint in kept for file in checkpoint.glob("*.safetensors"))
    assert tried["disk"]["written"] == pytest.approx(tensors, rel=0.3)  # headers weigh much in a tiny network


def test_a_dry_run_counts_the_steps_that_a_run_lacks(recipe: Path, store: Path, trained: Path) -> None:
    done = json.loads(here(recipe, store, "--out", trained, "--dry-run", "--json").stdout)["costs"]
    assert (done["counts"]["steps"], done["seconds"]) == (0, 0)
    more = here(recipe, store, f"training.steps={STEPS + 5}", "--out", trained, "--dry-run", "--json")
    assert json.loads(more.stdout)["costs"]["counts"]["steps"] == 5


def test_a_dry_run_says_that_a_run_would_be_refused(recipe: Path, store: Path, trained: Path) -> None:
    other = here(recipe, store, "network.width=32", "--out", trained, "--dry-run")
    assert other.exit_code == 0
    assert "would be refused" in other.stderr
    assert "network.width=16 there, 32 asked" in other.stderr


def test_a_dry_run_tries_no_network_that_exceeds_all_memory(recipe: Path, store: Path) -> None:
    huge = here(recipe, store, "network.width=65536", "--dry-run", "--json")
    costs = json.loads(huge.stdout)["costs"]
    assert (huge.exit_code, costs["seconds"], costs["rates"]) == (0, None, [])
    assert "no step was tried" in costs["notes"][0]


@pytest.mark.parametrize(("limit", "value"), [("LONGEST_STEP", 0.0), ("_free_bytes", None)])
def test_a_dry_run_tries_a_piece_of_a_batch_that_is_too_much(
    recipe: Path, store: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float | None
) -> None:
    monkeypatch.setattr(training_costs, "_has_room", lambda *_: True)
    monkeypatch.setattr(training_costs, limit, (lambda device: 0) if value is None else value)
    costs = json.loads(here(recipe, store, "--dry-run", "--json").stdout)["costs"]
    assert any("no whole step was tried" in note for note in costs["notes"])
    assert costs["seconds"] > 0


def test_a_dry_run_in_bfloat16_needs_less_memory(costs: dict[str, Any], recipe: Path, store: Path) -> None:
    half = json.loads(here(recipe, store, "--dry-run", "--json", "--dtype", "bfloat16").stdout)
    assert half["memory"]["activations"] < costs["memory"]["activations"]


@pytest.mark.parametrize(("option", "dtype"), [((), "bfloat16"), (("--overwrite",), "float32")])
def test_a_dry_run_counts_in_the_number_format_of_the_run_unless_that_is_replaced(
    recipe: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], dtype: str
) -> None:
    monkeypatch.setattr(run_setup, "pick_dtype", lambda name, device: torch.float32)
    own = {"kind": "generator", "network": {}, "training": {"dtype": "bfloat16"}}
    (tmp_path / "recipe.yaml").write_text(yaml.dump(own))
    result = here(recipe, store, "--out", tmp_path, "--dry-run", "--json", "--dtype", "auto", *option)
    assert json.loads(result.stdout)["dtype"] == dtype


def test_a_dry_run_of_a_smaller_piece_needs_less_memory(costs: dict[str, Any], recipe: Path, store: Path) -> None:
    pieces = json.loads(here(recipe, store, "--dry-run", "--json", "optimization.gradient_accumulation=4").stdout)
    assert pieces["memory"]["activations"] < costs["memory"]["activations"]


def test_a_dry_run_refuses_a_tokenizer_that_the_training_would(
    make_run: Callable, recipe: Path, store: Path, tmp_path: Path
) -> None:
    arguments = (recipe, store, "--out", tmp_path / "run", "--tokenizer", make_run(tmp_path / "tok"))
    dry, real = here(*arguments, "--dry-run"), here(*arguments)
    assert dry.exit_code == real.exit_code == 1
    assert sentence(dry) == sentence(real)
