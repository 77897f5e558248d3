"""Tokenizers as run directories: loading one, and importing a released checkpoint as one."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.checkpoint import (
    CHECKPOINTS,
    EMA,
    RECIPE,
    check_run_is_free,
    clear_run,
    find_checkpoint,
    read_config,
    read_released,
    read_state,
    read_tensors,
    run_of,
    sha256_of,
    write_checkpoint,
)
from grncli.errors import CheckpointError, GrnError, UsageError
from grncli.models.released import tokenizer_config, tokenizer_weights
from grncli.models.tokenizer import Tokenizer
from grncli.recipe import dump_recipe, parse_recipe, read_recipe
from grncli.training.recipes import TokenizerRecipe

IMPORTED = ("kind", "network", "rounds", "imported")  # the parts of a recipe that an imported run has


def load_tokenizer(run: str | Path, device: str | torch.device = "cpu") -> Tokenizer:
    """The tokenizer of a run directory (its newest checkpoint's moving average), ready for inference.

    Parameters
    ----------
    run : run directory, or one of its checkpoints
    device : where to put it

    Returns
    -------
    Tokenizer
        In evaluation mode, float32; see its ``encode``, ``decode``, ``rounds`` and ``stride``.

    Raises
    ------
    CheckpointError
        If there is no such run, or its weights are damaged or do not fit its recipe.
    """
    checkpoint = find_checkpoint(Path(run))
    recipe = read_recipe(run_of(checkpoint) / RECIPE, TokenizerRecipe)
    _check_config(recipe, checkpoint)
    tokenizer = _assemble(recipe, read_tensors(checkpoint / EMA), str(checkpoint / EMA))
    return tokenizer.to(device)


def verify_tokenizer(run: str | Path) -> list[str]:
    """Problems of a run's weights, one sentence each; none if they load and are finite."""
    try:
        tokenizer = load_tokenizer(run)
    except GrnError as error:
        return [str(error)]
    file = find_checkpoint(Path(run)) / EMA
    wrong = [name for name, weight in tokenizer.state_dict().items() if not weight.isfinite().all()]
    return [f"{file}: {name} has values that are no finite numbers; use another checkpoint" for name in wrong]


def tokenizer_identity(run: str | Path) -> dict[str, str]:
    """``{name, sha256}`` of a run's tokenizer for a store's fingerprint; the hash is that of the weights file."""
    checkpoint = find_checkpoint(Path(run))
    return {"name": run_of(checkpoint).name, "sha256": sha256_of(checkpoint / EMA)}


def describe_tokenizer(run: str | Path) -> dict[str, Any]:
    """What ``grn info`` tells of a run: recipe, stride, parameters, checkpoints, step and identity."""
    checkpoint = find_checkpoint(Path(run))
    folder = run_of(checkpoint)
    recipe = read_recipe(folder / RECIPE, TokenizerRecipe)
    with torch.device("meta"):
        network = Tokenizer(recipe.network, recipe.most_rounds)
    return {
        "kind": recipe.kind,
        "name": folder.name,
        "rounds": recipe.most_rounds,
        "channels": recipe.network.channels,
        "stride": list(recipe.network.stride),
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": checkpoint.name,
        "step": read_state(checkpoint)["step"],
        "complete": bool(recipe.imported) or read_state(checkpoint)["step"] >= recipe.training.steps,
        "sha256": sha256_of(checkpoint / EMA),
        "recipe": {key: value for key, value in asdict(recipe).items() if not recipe.imported or key in IMPORTED},
    }


def import_tokenizer(
    file: Path,
    run: Path,
    *,
    weights: str | None = None,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn a released tokenizer checkpoint into a run directory.

    Parameters
    ----------
    file : pickled dictionary with the weights under ``ema`` or ``vae``
    run : directory to make
    weights : which of the two; by default ``ema`` where there is one
    settings : ``field=value`` for what the file cannot tell: ``rounds`` (4 if not given), ``network.attention``
    overwrite : replace a run directory that is already there

    Raises
    ------
    CheckpointError
        If the file is no released tokenizer, or ``run`` exists.
    """
    check_run_is_free(run, overwrite=overwrite)
    chosen, released = _choose_weights(read_released(file), weights, file)
    try:
        named = tokenizer_weights(released)
        network = asdict(tokenizer_config(named))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # shapes and names may be anything
        raise CheckpointError(f"{file}: {error}, expected the weights of a released tokenizer") from None
    recipe = read_settings(network, settings, file, chosen)
    # Placed under a hidden name and renamed, so that a run directory is whole or absent; links stay what they are.
    run = run.resolve()
    partial = run.with_name(f".{run.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = _assemble(recipe, named, str(file))
    write_checkpoint(partial, 0, {"ema": tokenizer.state_dict()}, {"step": 0}, asdict(recipe.network))
    (partial / RECIPE).write_text(dump_recipe(recipe, IMPORTED), encoding="utf-8")
    if run.exists():
        clear_run(run)
        for name in (RECIPE, CHECKPOINTS):
            (partial / name).rename(run / name)
        partial.rmdir()
    else:
        partial.rename(run)
    return describe_tokenizer(run)


def read_settings(network: dict[str, Any], settings: Sequence[str], file: Path, chosen: str) -> TokenizerRecipe:
    """The recipe of an imported network, with the user's ``field=value`` settings applied."""
    import yaml

    data: dict[str, Any] = {"network": network, "imported": {"file": file.name, "weights": chosen}}
    data["imported"]["sha256"] = sha256_of(file)
    for setting in settings:
        field, equals, text = setting.partition("=")
        try:
            value = yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise UsageError(f"--set {setting}: has no readable value, expected rounds=M or attention=false") from None
        if field == "rounds" and equals:
            data["rounds"] = value
        elif field in ("attention", "network.attention") and equals:
            network["attention"] = value
        else:
            raise UsageError(f"--set {setting}: expected rounds=M or attention=false, the rest is in the file")
    return parse_recipe(data, TokenizerRecipe, str(file))


def _choose_weights(loaded: dict[str, Any], wanted: str | None, file: Path) -> tuple[str, dict[str, Tensor]]:
    present = [name for name in ("ema", "vae") if isinstance(loaded.get(name), dict)]
    if wanted is not None and wanted not in present:
        raise CheckpointError(f"{file}: has no weights under {wanted!r}, expected one of {present or list(loaded)[:5]}")
    if not present:
        raise CheckpointError(
            f"{file}: has the entries {list(loaded)[:5]}, expected the weights of a tokenizer under 'ema' or 'vae'"
        )
    chosen = wanted or present[0]
    if not all(isinstance(value, Tensor) for value in loaded[chosen].values()):
        raise CheckpointError(f"{file}: the entry {chosen!r} holds more than tensors, expected weights")
    return chosen, loaded[chosen]


def _check_config(recipe: TokenizerRecipe, checkpoint: Path) -> None:
    """The weights remember the sizes they were made with; a recipe edited since may fit them by chance."""
    made, told = read_config(checkpoint / EMA), json.loads(json.dumps(asdict(recipe.network)))
    for field, value in (made or {}).items():
        if field not in told or told[field] != value:
            raise CheckpointError(
                f"{checkpoint / EMA}: was made with network.{field}={value}, and {RECIPE} says {told.get(field)}; "
                f"restore {RECIPE}"
            )


def _assemble(recipe: TokenizerRecipe, weights: dict[str, Tensor], name: str) -> Tokenizer:
    with torch.device("meta"):
        tokenizer = Tokenizer(recipe.network, recipe.most_rounds)
    # Weights of a block that the recipe switches off (middle attention) are left behind.
    if not recipe.network.attention:
        weights = {key: value for key, value in weights.items() if ".middle.attention." not in key}
    try:
        tokenizer.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{name}: the weights do not fit the network of the recipe ({reason})") from None
    return tokenizer.eval().requires_grad_(False)
