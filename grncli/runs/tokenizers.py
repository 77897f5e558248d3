"""Tokenizers as run directories: loading one, and importing a released checkpoint as one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.models.tokenizer import Tokenizer
from grncli.runs.loading import Loaded, Released, Say, open_released, open_run
from grncli.runs.networks import (
    choose_weights,
    describe_network,
    fill,
    made_on_meta,
    read_run,
    read_settings,
    verify_network,
    write_imported,
)
from grncli.runs.recipe import parse_recipe
from grncli.runs.released_names import tokenizer_config, tokenizer_weights
from grncli.runs.rundir import check_run_is_free
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.errors import CheckpointError

KIND = "tokenizer"
IMPORTED = ("kind", "network", "rounds", "imported")  # the parts of a recipe that an imported run has
WEIGHTS = {"ema": "ema", "vae": "vae"}
SETTINGS = {"rounds": "rounds=4", "attention": "attention=false"}

LoadedTokenizer = Loaded[Tokenizer, TokenizerRecipe]


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
    return open_tokenizer(run, device).network


def open_tokenizer(
    run: str | Path, device: str | torch.device = "cpu", *, say: Say = lambda text: None
) -> LoadedTokenizer:
    """As `load_tokenizer`, with the recipe, the step and the identity of the weights that were read.

    ``say`` is told in one sentence where the training is not finished.
    """
    loaded = open_run(run, TokenizerRecipe, KIND, _build, say=say)
    loaded.network.to(device)
    return loaded


def verify_tokenizer(run: str | Path) -> list[str]:
    """Problems of a run's weights, one sentence each; none if they load and are finite."""
    return verify_network(run, load_tokenizer)


def describe_tokenizer(run: str | Path) -> dict[str, Any]:
    """What ``grn info`` tells of a run: recipe, stride, parameters, checkpoints, step and identity."""
    checkpoint, recipe = read_run(run, TokenizerRecipe, KIND)
    network = made_on_meta(lambda: _build(recipe))
    return describe_network(checkpoint, recipe, network, IMPORTED) | {
        "rounds": recipe.most_rounds,
        "channels": recipe.network.channels,
        "stride": list(recipe.network.stride),
    }


def import_tokenizer(
    file: Path,
    run: Path,
    *,
    loaded: Released | None = None,
    weights: str | None = None,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn a released tokenizer checkpoint into a run directory.

    Parameters
    ----------
    file : pickled dictionary with the weights under ``ema`` or ``vae``
    run : directory to make
    loaded : what the file holds, where it has been read already
    weights : which of the two; by default ``ema`` where there is one
    settings : ``field=value`` for what the file cannot tell: ``rounds`` (4 if not given), ``attention``
    overwrite : replace a run directory that is already there

    Raises
    ------
    CheckpointError
        If the file is no released tokenizer, or ``run`` exists.
    """
    check_run_is_free(run, KIND, overwrite=overwrite)
    contents, sha256 = loaded or open_released(file)
    chosen, released = choose_weights(contents, WEIGHTS, weights, file, KIND)
    try:
        named = tokenizer_weights(released)
        network = asdict(tokenizer_config(named))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # shapes and names may be anything
        raise CheckpointError(f"{file}: {str(error)[:300]}, expected the weights of a released tokenizer") from None
    told = read_settings(settings, SETTINGS)
    data: dict[str, Any] = {"imported": {"file": file.name, "weights": chosen, "sha256": sha256}}
    data["network"] = network | {key: value for key, value in told.items() if key == "attention"}
    data |= {key: value for key, value in told.items() if key == "rounds"}
    recipe = parse_recipe(data, TokenizerRecipe, str(file))
    write_imported(run, recipe, _assemble(recipe, named, str(file)), IMPORTED, overwrite=overwrite)
    return describe_tokenizer(run)


def _assemble(recipe: TokenizerRecipe, weights: Mapping[str, Tensor], name: str) -> Tokenizer:
    # Weights of a block that the recipe switches off (middle attention) are left behind.
    if not recipe.network.attention:
        weights = {key: value for key, value in weights.items() if ".middle.attention." not in key}
    return fill(made_on_meta(lambda: _build(recipe)), weights, name)


def _build(recipe: TokenizerRecipe) -> Tokenizer:
    return Tokenizer(recipe.network, recipe.most_rounds)
