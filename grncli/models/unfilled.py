"""Networks before they have weights."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def made_on_meta(build: Callable[[], AnyNetwork]) -> AnyNetwork:
    """A network without memory for its weights, to be filled."""
    with torch.device("meta"), _NoFirstWeights():
        return build()


class _NoFirstWeights(TorchFunctionMode):
    """Draws no random weights: without memory there are none, and PyTorch imports its compiler for it, in 1.5 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
