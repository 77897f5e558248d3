"""What is measured: the networks of a recipe or of our own choice, with drawn weights, and a store of drawn bits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from grncli.bench.storage_stages import drawn_fingerprint
from grncli.models.tokenizer import TokenizerConfig
from grncli.runs.generator_recipe import AskedGenerator, AskedGeneratorRecipe, BitData
from grncli.runs.networks import memory_of
from grncli.runs.recipe import load_fields
from grncli.runs.shipped_recipes import find_recipe
from grncli.runs.tokenizer_recipe import ClipData, Data, ImageData, TokenizerRecipe
from grncli.runtime.errors import RecipeError, UsageError
from grncli.store import Grid, open_part
from grncli.training.estimate import estimate, tokens_of_grid
from grncli.training.generator_training import GeneratorPlan, make_plan
from grncli.training.run_setup import read_training_recipe

CPU_TOKENS, GPU_TOKENS = 2048, 32768  # of a training step, where the recipe's batch has more
ROUNDS, CHANNELS, CLASSES = 4, 16, 1000  # where the recipe leaves them to the bits
MEMORY_SHARE = 0.8  # of the device's memory that a training may take
# The released layout in a size that an ordinary machine runs in both number formats within seconds.
TOKENIZER = TokenizerRecipe(
    network=TokenizerConfig(encoder_width=64, decoder_width=96),
    data=Data(image=ImageData(size=256, batch=2), clip=ClipData(size=128, batch=1, frames=9)),
)


@dataclass(frozen=True)
class MeasuredNetworks:
    """The networks that are measured; at least one is there."""

    tokenizer: TokenizerRecipe | None
    generator: AskedGeneratorRecipe | None


def chosen_networks(recipe: Path | None, overrides: Sequence[str]) -> MeasuredNetworks:
    """The network of a recipe, or without one a tokenizer of the released layout and the generator GRN_ind-B.

    Raises
    ------
    RecipeError
        If there is no such recipe, or it cannot be read or is for a generator that is conditioned on text.
    UsageError
        If there are overrides, and no recipe to change.
    """
    if recipe is None:
        if overrides:
            raise UsageError(f"{overrides[0]}: changes a field of a recipe, and there is no RECIPE")
        return MeasuredNetworks(TOKENIZER, AskedGeneratorRecipe())
    recipe = find_recipe(recipe)
    if load_fields(recipe).get("kind") == "tokenizer":
        return MeasuredNetworks(read_training_recipe(recipe, TokenizerRecipe, list(overrides)), None)
    asked = read_training_recipe(recipe, AskedGeneratorRecipe, list(overrides))
    if not isinstance(asked.network, AskedGenerator):
        raise RecipeError(
            f"{recipe}: is for network.type={asked.network.type}, expected a tokenizer or a generator with "
            "network.type=class_transformer, which are what grn bench measures"
        )
    return MeasuredNetworks(None, asked)


def drawn_plan(asked: AskedGeneratorRecipe, grid: Grid, folder: Path, device: torch.device) -> GeneratorPlan:
    """A recipe and a store of drawn bits of one grid to train on, in ``folder``.

    A step has as many samples of the recipe's batch as take reasonable time and memory.

    Raises
    ------
    RecipeError
        If there is not enough memory for one sample.
    """
    network, data = asked.network, asked.data
    assert isinstance(network, AskedGenerator)
    assert isinstance(data, BitData)
    most = (GPU_TOKENS if device.type == "cuda" else CPU_TOKENS) // tokens_of_grid(grid)
    batch = max(1, min(data.batch, most))
    path = folder / "drawn.zarr"
    rounds, channels = network.rounds or ROUNDS, network.channels or CHANNELS
    _write_drawn(path, grid, rounds, channels, CLASSES if network.classes is None else network.classes, 2 * batch)
    pieces = replace(asked.optimization, gradient_accumulation=1)
    whole = replace(asked.training, dtype="float32")  # which takes the most memory
    while True:
        smaller = replace(asked, data=replace(data, batch=batch, validation=0), optimization=pieces, training=whole)
        plan = make_plan(smaller, [path])
        assert isinstance(plan, GeneratorPlan)
        needed, memory = estimate(plan.recipe)["memory"]["total"], memory_of(device)
        if needed <= MEMORY_SHARE * memory:
            return plan
        if batch == 1:
            raise RecipeError(
                f"training takes {needed / 1e9:.3g} GB with one sample, and {device.type} has {memory / 1e9:.3g} GB"
            )
        batch //= 2


def _write_drawn(path: Path, grid: Grid, rounds: int, channels: int, classes: int, samples: int) -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 256, (samples, *grid, rounds, -(-channels // 8)), dtype=np.uint8)
    labels = random.integers(0, classes, samples, dtype=np.int32) if classes else None
    with open_part(path, drawn_fingerprint(rounds, channels, tuple(map(str, range(classes))))) as writer:
        writer.append(grid, bits, labels, [{"key": str(i), "source": str(i)} for i in range(samples)])
        writer.commit(1, "")
        writer.finish()
