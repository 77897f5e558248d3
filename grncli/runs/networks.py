"""Networks are filled with weights, if these fit."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.runs.checkpoint import RECIPE, check_tensors
from grncli.runs.kinds import AnyModule, Weights
from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.jsonfiles import brief, parse_json
from grncli.runtime.monitor import Monitor
from grncli.runtime.system import memory_bytes
from grncli.runtime.tensor_files import LazyTensor, is_finite, made

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


def checked_weights(weights: Weights, file: Path, monitor: Monitor) -> Weights:
    """The same weights of ``file``; one with a value that is no finite number is refused when it is made.

    ``monitor`` gets the bytes that were made, and those in all.
    """
    sizes = {name: tensor.dtype.itemsize * torch.Size(tensor.shape).numel() for name, tensor in weights.items()}
    total, done = sum(sizes.values()), 0

    def make(name: str) -> Tensor:
        nonlocal done
        weight = made(weights[name])
        check_finite(weight, name, str(file))
        done += sizes[name]
        monitor.progress(done, total, "")
        return weight

    return {
        name: LazyTensor(partial(make, name), tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()
    }


def check_memory(
    parameters: int, needed: int, memory: int, place: str, *, saved: int = 0, remedy: str = "make it smaller"
) -> None:
    """Raise RecipeError where training a network of so many parameters exceeds all memory.

    Parameters
    ----------
    needed, memory : bytes that weights, gradients, moments and averages take, and that ``place`` has
    saved : bytes of their copy there that is written while the training goes on
    """
    if needed + saved > memory:
        copy = f" and {saved / 1e9:.4g} GB for the copy that is saved" if saved else ""
        raise RecipeError(
            f"the network has {parameters / 1e6:.4g} M parameters, and training it takes {needed / 1e9:.4g} GB for "
            f"weights, gradients, moments and averages{copy}; {place} has {memory / 1e9:.4g} GB: {remedy}"
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
