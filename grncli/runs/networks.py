"""Networks are filled with weights, if these fit."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grncli.runs.checkpoint import RECIPE, check_tensors
from grncli.runs.kinds import AnyModule
from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.jsonfiles import brief, parse_json
from grncli.runtime.system import memory_bytes
from grncli.runtime.tensor_files import is_finite

FORMATS = (torch.bfloat16,)
"""Types that the weights of a run may have instead of float32, in a file and in memory."""


def fill(network: AnyModule, weights: Mapping[str, Tensor], name: str) -> AnyModule:
    """A network made on the meta device with its weights, ready for inference; ``name`` is what errors name.

    Raises
    ------
    CheckpointError
        If a weight is missing, is one too many, has another shape or type, or a value that is no finite number.
    """
    check_tensors(weights, network.state_dict(), name, formats=FORMATS)
    for key, weight in weights.items():
        check_finite(weight, key, name)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def check_finite(weight: Tensor, key: str, name: str) -> None:
    """Raise CheckpointError, about the weight ``key`` of ``name``, for a value that is no finite number."""
    if not is_finite(weight):
        raise CheckpointError(f"{name}: {key} has values that are no finite numbers; use another checkpoint")


def check_memory(network: nn.Module, copies: int, device: torch.device) -> None:
    """Raise RecipeError where so many copies of a network's weights, which are on no device yet, exceed all memory."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    memory = memory_of(device)
    needed = parameters * torch.float32.itemsize * copies
    if needed > memory:
        raise RecipeError(
            f"the network has {parameters / 1e6:.4g} M parameters, and training it takes {needed / 1e9:.4g} GB for "
            f"weights, gradients, moments and averages; {device.type} has {memory / 1e9:.4g} GB: make it smaller"
        )


def memory_of(device: torch.device) -> int:
    """Bytes of all memory that a device has, used or free."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_bytes() or sys.maxsize


def check_config(config: Any, header: Mapping[str, str], file: Path) -> None:
    """Compare the recipe with the sizes in the header of the weights: an edited recipe may fit them by chance.

    Parameters
    ----------
    config : the recipe's section ``network``
    header : what the safetensors file has beside its tensors
    """
    remedy = "use another checkpoint"
    text = header.get("config", "{}").encode()
    made = parse_json(text, f"{file}: config", error=CheckpointError, remedy=remedy)
    if not isinstance(made, dict):
        raise CheckpointError(f"{file}: config is {brief(made)}, expected the network's sizes; {remedy}")
    sizes = json.loads(json.dumps(asdict(config)))
    for field, value in made.items():
        if field not in sizes or sizes[field] != value:
            raise CheckpointError(
                f"{file}: was made with network.{field[:60]}={brief(value)}, and {RECIPE} says "
                f"{brief(sizes.get(field))}; restore {RECIPE}"
            )
