"""What a training step of a generator takes, counted on the meta device: nothing is computed and no memory is used."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformer
from grncli.refinement import cross_entropy
from grncli.runs.generator_recipe import BitData, GeneratorRecipe, PackedData
from grncli.runs.generators import build_generator
from grncli.runtime.devices import DTYPES
from grncli.store import Grid, grid_name, parse_grid
from grncli.training.captioned_plan import CaptionedPlan
from grncli.training.packing import RATIO_TOKENS, PackingPlan
from grncli.training.sharding import WHOLE, Sharding
from grncli.training.wrapping import checkpoint_activations

BACKWARD = 2  # operations of a backward pass, in forward passes
FLOAT_BYTES = 4


def estimate(recipe: GeneratorRecipe, processes: int = 1, sharding: Sharding = WHOLE) -> dict[str, Any]:
    """Parameters, tokens, operations and bytes of a step on the largest grid of the bits; JSON-ready.

    The number format of the recipe is that of the forward pass; weights, gradients, moments and moving averages are
    float32 in any case.

    Parameters
    ----------
    processes : that share each batch; the bytes are those of one of them, all else is of them all
    sharding : how the state lies in them
    """
    assert isinstance(recipe.data, BitData)
    grids = {name: grid for name in recipe.bits.grids if (grid := parse_grid(name))}
    largest = max(grids.values(), key=tokens_of_grid)
    pieces, batch = recipe.optimization.gradient_accumulation, recipe.data.batch
    network = _network(recipe)
    pieces *= processes
    flops, activations = _count(network, batch // pieces, largest)
    return _costs(
        recipe,
        network,
        sharding,
        samples=sum(recipe.bits.grids.values()) - recipe.data.validation,
        step_samples=batch,
        largest=largest,
        tokens=tokens_of_grid(largest) * batch,
        predicted_tokens=tokens_of_grid(largest) * batch,
        flops=flops * pieces,
        activations=activations,
    )


def estimate_packed(plan: CaptionedPlan, sharding: Sharding = WHOLE) -> dict[str, Any]:
    """As ``estimate``, for packed sequences: the first ones of the plan stand for all.

    The bytes are those of a process that has one sequence in memory at a time.
    """
    recipe, counts, data = plan.recipe, plan.samples.counts, plan.recipe.data
    assert isinstance(data, PackedData)
    sequences = next(PackingPlan(counts, plan.rows, data, seed=recipe.training.seed).steps(0))
    grids = [plan.samples.grid(number) for number in sequences[0]["sample"].tolist()]
    words = sequences[0]["tokens"] - counts.visual[sequences[0]["sample"]] - RATIO_TOKENS
    network = _network(recipe)
    assert isinstance(network, TextTransformer)
    flops, activations = _count_packed(network, grids, words.tolist())
    return _costs(
        recipe,
        network,
        sharding,
        samples=len(plan.rows) - data.validation,
        step_samples=sum(map(len, sequences)),
        largest=max((part.grid for part in plan.samples.parts), key=tokens_of_grid),
        tokens=data.tokens * data.sequences,
        predicted_tokens=sum(int(counts.visual[sequence["sample"]].sum()) for sequence in sequences),
        flops=flops * data.sequences,
        activations=activations,
    )


def tokens_of_grid(grid: Grid) -> int:
    """Visual tokens of a sample."""
    return torch.Size(grid).numel()


def _network(recipe: GeneratorRecipe) -> Generator:
    with torch.device("meta"):
        network = build_generator(recipe.network)
        if recipe.training.activation_checkpointing:
            checkpoint_activations(network.transformer_blocks)
        return network.to(DTYPES[recipe.training.dtype])


def _costs(
    recipe: GeneratorRecipe,
    network: Generator,
    sharding: Sharding,
    *,
    samples: int,
    step_samples: int,
    largest: Grid,
    tokens: int,
    predicted_tokens: int,
    flops: int,
    activations: int,
) -> dict[str, Any]:
    """From the operations of a step's forward passes and the bytes that one keeps to what all of the training takes."""
    training = recipe.training
    parameters = sum(p.numel() for p in network.parameters())
    weights = sharding.bytes_of(parameters, recipe.optimization)
    step_flops = flops * (1 + BACKWARD + (1 if training.activation_checkpointing else 0))
    return {
        "parameters": parameters,
        "samples": samples,
        "largest_grid": grid_name(largest),
        "steps_per_epoch": samples / step_samples,
        "epochs": training.steps * step_samples / samples,
        "tokens_per_step": tokens,
        "elements_per_step": predicted_tokens * recipe.network.codec.token_channels,
        "flops_per_step": step_flops,
        "flops": step_flops * training.steps,
        "dtype": training.dtype,
        "memory": {"weights": weights, "activations": activations, "total": weights + activations},
    }


def _count_packed(network: TextTransformer, grids: list[Grid], words: list[int]) -> tuple[int, int]:
    """As ``_count`` for a sequence of samples of these grids and lengths of text."""
    config = network.config

    def loss() -> Tensor:
        states = [torch.zeros(config.codec.token_channels, *grid, dtype=torch.uint8) for grid in grids]
        texts = [torch.zeros(length, config.text_width) for length in words]
        logits = network.predict(states, torch.zeros(len(states)), texts)
        return torch.stack([cross_entropy(a[None], b[None]) for a, b in zip(logits, states, strict=True)]).mean()

    return _operations(loss)


def _count(network: Generator, batch: int, grid: tuple[int, int, int]) -> tuple[int, int]:
    """Operations of a forward pass, and bytes that it keeps for the backward pass."""

    def loss() -> Tensor:
        state = torch.zeros(batch, network.config.codec.token_channels, *grid, dtype=torch.uint8)
        labels = torch.zeros(batch, dtype=torch.int64)
        return cross_entropy(network(state, torch.zeros(batch), labels), state)

    return _operations(loss)


def _operations(compute: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of computing a loss, and bytes that are kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device("meta"), hooks, FlopCounterMode(display=False) as flops:
        loss = compute()
    del loss  # and with it what was kept, so that no two storages shared an address
    return flops.get_total_flops(), sum(kept.values())
