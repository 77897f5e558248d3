"""What a training step of a generator takes, counted on the meta device: nothing is computed and no memory is used."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from grncli.models.generator import Generator
from grncli.refinement import cross_entropy
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.generators import build_generator
from grncli.runtime.devices import DTYPES
from grncli.store import parse_grid
from grncli.training.wrapping import checkpoint_activations

BACKWARD = 2  # operations of a backward pass, in forward passes
FLOAT_BYTES = 4


def estimate(recipe: GeneratorRecipe) -> dict[str, Any]:
    """Parameters, tokens, operations and bytes of a step on the largest grid of the bits; JSON-ready.

    The number format of the recipe is that of the forward pass; weights, gradients, moments and moving averages are
    float32 in any case.
    """
    dtype = recipe.training.dtype
    grids = {name: grid for name in recipe.bits.grids if (grid := parse_grid(name))}
    largest = max(grids, key=lambda name: grids[name][0] * grids[name][1] * grids[name][2])
    tokens = torch.Size(grids[largest]).numel()
    piece = recipe.data.batch // recipe.optimization.gradient_accumulation
    samples = sum(recipe.bits.grids.values()) - recipe.data.validation
    with torch.device("meta"):
        network = build_generator(recipe.network)
        if recipe.training.activation_checkpointing:
            checkpoint_activations(network.transformer_blocks)
        flops, activations = _count(network.to(DTYPES[dtype]), piece, grids[largest])
    parameters = sum(p.numel() for p in network.parameters())
    weights = parameters * FLOAT_BYTES * recipe.optimization.copies
    passes = 1 + BACKWARD + (1 if recipe.training.activation_checkpointing else 0)
    step_flops = flops * passes * recipe.optimization.gradient_accumulation
    return {
        "parameters": parameters,
        "samples": samples,
        "largest_grid": largest,
        "steps_per_epoch": samples / recipe.data.batch,
        "epochs": recipe.training.steps * recipe.data.batch / samples,
        "tokens_per_step": tokens * recipe.data.batch,
        "elements_per_step": tokens * recipe.data.batch * recipe.network.codec.token_channels,
        "flops_per_step": step_flops,
        "flops": step_flops * recipe.training.steps,
        "dtype": dtype,
        "memory": {"weights": weights, "activations": activations, "total": weights + activations},
    }


def _count(network: Generator, batch: int, grid: tuple[int, int, int]) -> tuple[int, int]:
    """Operations of a forward pass, and bytes that it keeps for the backward pass."""
    config = network.config
    state = torch.zeros(batch, config.codec.token_channels, *grid, dtype=torch.uint8)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as flops:
        labels = torch.zeros(batch, dtype=torch.int64)
        loss = cross_entropy(network(state, torch.zeros(batch), labels), state)
    del loss  # and with it what was kept, so that no two storages shared an address
    return flops.get_total_flops(), sum(kept.values())
