"""Tokenizers as run directories."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.runs.kinds import NetworkKind, ReleasedLayout, ReleasedWeights, Weights
from grncli.runs.loading import Loaded, identify_network, open_run, read_newest, read_run
from grncli.runs.recipe import parse_recipe
from grncli.runs.released_names import tokenizer_config, tokenizer_weights
from grncli.runs.released_weights import released_tokenizer
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.monitor import Say

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

    ``say`` is called with one sentence where the training is not finished.
    """
    loaded = open_run(run, TOKENIZER, say=say)
    loaded.network.to(device)
    return loaded


def identify_tokenizer(run: str | Path) -> LoadedTokenizer:
    """As `open_tokenizer`, without its weights: see `identify_network`."""
    return read_newest(Path(run), lambda checkpoint: identify_network(read_run(Path(run), checkpoint, [TOKENIZER])))


def build_tokenizer(recipe: TokenizerRecipe) -> Tokenizer:
    """The network of a recipe, initialized for training."""
    return Tokenizer(recipe.network, recipe.most_rounds)


def _facts(recipe: TokenizerRecipe) -> dict[str, Any]:
    return {
        "rounds": recipe.most_rounds,
        "channels": recipe.network.channels,
        "stride": list(recipe.network.stride),
    }


def _convert(released: ReleasedWeights) -> tuple[TokenizerRecipe, dict[str, Tensor]]:
    """Sizes are those of the weights; the settings can switch attention off, and give the rounds (default 4)."""
    weights = tokenizer_weights(released.weights)
    settings = dict(released.settings)
    network = asdict(tokenizer_config(weights))
    if "attention" in settings:
        network["attention"] = settings.pop("attention")
    data = {"network": network, **settings}
    recipe = parse_recipe(data, TokenizerRecipe, str(released.file))
    if not recipe.network.attention:
        weights = {name: weight for name, weight in weights.items() if ".middle.attention." not in name}
    return recipe, weights


def _release(recipe: TokenizerRecipe, weights: Weights) -> tuple[Weights, dict[str, Any]]:
    network = recipe.network
    if not network.attention:
        raise ValueError("network.attention is false, expected true")
    if not set(network.halve_time) <= set(network.halve_space):
        raise ValueError(f"network.halve_time is {list(network.halve_time)}, expected stages that halve space too")
    return released_tokenizer(weights, network), {"rounds": recipe.most_rounds}


TOKENIZERS = ReleasedLayout(
    name="tokenizer",
    entries={"ema": "ema", "vae": "vae"},
    settings={"rounds": "rounds=4", "attention": "attention=false"},
    convert=_convert,
    network=TokenizerConfig,
    release=_release,
    plain=("encoder.downsamples.", "decoder.upsamples."),
)

TOKENIZER = NetworkKind(
    name="tokenizer",
    schema=TokenizerRecipe,
    build=build_tokenizer,
    facts=_facts,
    sections=lambda recipe: ("kind", "network", "rounds", "imported"),
    layouts=(TOKENIZERS,),
)
