"""The number format of a run's forward pass: settled when the run begins, told, and kept until it ends."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from grncli.runs.checkpoint import list_checkpoints
from grncli.runs.tokenizer_recipe import Training
from grncli.runtime.devices import dtype_name, pick_dtype
from grncli.runtime.processes import Processes
from grncli.training.run_setup import AnyRecipe, recorded_dtype


def settle_dtype(
    recipe: AnyRecipe,
    run: Path | None,
    device: torch.device,
    processes: Processes,
    *,
    overwrite: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> AnyRecipe:
    """The recipe with ``float32`` or ``bfloat16`` as its ``training.dtype``.

    For ``auto``, that of the run where there is one, on whatever processor it goes on, and what the device computes in
    for a new one. The first of several processes decides for all.
    """
    begun = None if run is None or overwrite else recorded_dtype(run)
    dtype = recipe.training.dtype
    if dtype == "auto":
        dtype = "bfloat16" if (begun or dtype_name(pick_dtype("auto", device))) == "bfloat16" else "float32"
        first = torch.tensor(int(processes.leads and dtype == "bfloat16"), device=device)
        dtype = "bfloat16" if processes.total(first).item() else "float32"
    if run is not None and begun is None and not overwrite and list_checkpoints(run):
        warn(f"{run}: its recipe does not say training.dtype, the number format it was trained in; goes on in {dtype}")
    training: Training = replace(recipe.training, dtype=dtype)
    return replace(recipe, training=training)


def describe_start(
    command: str, network: nn.Module, training: Training, device: torch.device, processes: Processes
) -> str:
    """What is trained, in which number format and where, such as ``train-gen: 4.2 M parameters in float32 on cpu``."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    count = f"{processes.count} process{'es' if processes.count > 1 else ''}"
    size = f"{millions:.1f} M" if millions >= 0.1 else f"{millions * 1e3:.1f} k"
    return f"{command}: {size} parameters in {training.dtype} on {device}, {count}"
