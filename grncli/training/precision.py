"""The number format of a run's forward pass: settled when the run begins, and kept until it ends."""

from collections.abc import Callable
from dataclasses import replace

import torch

from grncli.runs.checkpoint import list_checkpoints
from grncli.runs.tokenizer_recipe import Training
from grncli.runtime.devices import dtype_name, pick_dtype
from grncli.runtime.processes import Processes
from grncli.training.run_setup import AnyRecipe, PresentRun


def settle_dtype(
    recipe: AnyRecipe,
    present: PresentRun | None,
    device: torch.device,
    processes: Processes,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> AnyRecipe:
    """The recipe with ``float32`` or ``bfloat16`` as its ``training.dtype``.

    For ``auto``, that of the run that is resumed, on whatever processor, and for a new run (``present`` is None) what
    the device computes in. The first of several processes decides for all.
    """
    recorded = None if present is None else present.dtype
    dtype = recipe.training.dtype
    if dtype == "auto":
        dtype = "bfloat16" if (recorded or dtype_name(pick_dtype("auto", device))) == "bfloat16" else "float32"
        first = torch.tensor(int(processes.leads and dtype == "bfloat16"), device=device)
        dtype = "bfloat16" if processes.total(first).item() else "float32"
    if present is not None and recorded is None and list_checkpoints(present.run):
        say(
            f"{present.run}: its recipe does not say training.dtype, the number format it was trained in; "
            f"resumes in {dtype}"
        )
    training: Training = replace(recipe.training, dtype=dtype)
    return replace(recipe, training=training)
