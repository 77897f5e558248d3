"""Where the time of a computation goes, by kinds of operations, as PyTorch's profiler counts it."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The first kind whose part occurs in an operator's name; what has none works element by element.
KINDS = {
    "attention": ("scaled_dot_product", "softmax", "bmm", "flash", "fmha"),
    "convolutions": ("conv",),
    "products": ("mm", "linear_pointwise", "grncli::product", "gemm"),
    "optimizer": ("adamw", "lerp"),
    "copies": ("copy", "cat", "clone", "pad", "embedding", "index", "gather", "fill_", "zero_", "upsample"),
    "sums": ("sum", "norm", "mean", "cumsum", "argmax", "reduce"),
}
ELEMENTWISE = "element by element"
SMALLEST = 0.02  # share below which a kind is not named


def profiler(device: torch.device) -> Any:
    """Of what the processor does, and a GPU."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the library behind it prints two lines on standard error
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities)


def shares_of_kinds(profiled: Any, device: torch.device) -> dict[str, float]:
    """Share of each kind in the time of all operators of a profile, the largest first."""
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    # Kernels of a GPU are listed twice: by themselves, and with the operator that launched them.
    events = profiled.key_averages()
    operators = [event for event in events if "::" in event.key and event.device_type.name == "CPU"]
    return _shares({event.key: float(getattr(event, field)) for event in operators})


def _shares(times: Mapping[str, float]) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for name, seconds in times.items():
        spent[kind_of(name)] += seconds  # type: ignore[assignment]
    total = sum(spent.values()) or 1.0
    return {kind: seconds / total for kind, seconds in spent.most_common() if seconds / total >= SMALLEST}


def kind_of(operator: str) -> str:
    """The kind of an operator such as ``aten::addmm``."""
    name = operator.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), ELEMENTWISE)
