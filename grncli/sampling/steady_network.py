"""A generator as the sampler calls it: what a sample becomes does not depend on those beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from grncli.conditions import Condition, Movable, Rows, TextReader
from grncli.models.generator import STEADY_ROWS, Generator
from grncli.models.transformer import Grid

CPU_TOKENS, GPU_TOKENS = 2048, 8192  # that pass through the network at once
REMEMBERED_TOKENS = 8192  # of texts, for samples to come; keys and values of the released 2B take 258 KB each


class SteadyNetwork:
    """A generator, called in numbers of rows that make a row's logits independent of the others: see STEADY_ROWS.

    Parameters
    ----------
    condition_tokens : that the condition adds to the sequence of a sample, about
    """

    def __init__(self, network: Generator, grid: Grid, condition_tokens: int = 0) -> None:
        tokens = torch.Size(grid).numel()
        self._network = network
        self._memories: dict[int, tuple[Tensor, Movable]] = {}  # the last used ones are the last
        self.device = next(network.parameters()).device
        on_cpu = self.device.type == "cpu"
        self.call_rows = max(1, (CPU_TOKENS if on_cpu else GPU_TOKENS) // (tokens + condition_tokens))
        # Rows of a call come in multiples of this, and the last ones are filled up. On a GPU the size of a call decides
        # the order of its sums; texts make calls of all sizes, whatever is filled up.
        gpu_unit = 1 if condition_tokens else self.call_rows
        self.row_unit = -(-STEADY_ROWS // tokens) if on_cpu else gpu_unit

    def __call__(self, state: Tensor, ratio: Tensor, condition: Condition) -> Tensor:
        """Logits in float32."""
        rows = len(state)
        call = _NetworkInput(state, ratio, condition).padded(-rows % self.row_unit)
        # A multiple of the unit, so that only the last call can be short.
        size = max(self.row_unit, self.call_rows // self.row_unit * self.row_unit)
        parts = (call[start : start + size] for start in range(0, len(call), size))
        logits = [part.condition.predict(self._network, part.state, part.ratio).float() for part in parts]
        return torch.cat(logits)[:rows]

    def remember(self, text: Sequence[Tensor]) -> list[Movable]:
        """What the network keeps of each text ``[length, width]``, computed once for a tensor as long as there is room.

        One by one, so that no text depends on the others. The last one stays longest.
        """
        kept = [self._remembered(features) for features in text]
        tokens = sum(len(features) for features, _ in self._memories.values())
        for key, (features, _) in list(self._memories.items())[:-1]:
            if tokens <= REMEMBERED_TOKENS:
                break
            tokens -= len(features)
            del self._memories[key]
        return kept

    def _remembered(self, features: Tensor) -> Movable:
        key = id(features)
        if key in self._memories:
            entry = self._memories.pop(key)
        else:
            (memory,) = cast("TextReader", self._network).remember([features.to(self.device)])
            entry = features, memory  # features that are gone could leave their id to others
        self._memories[key] = entry
        return entry[1]


@dataclass(frozen=True)
class _NetworkInput(Rows):
    state: Tensor
    ratio: Tensor
    condition: Condition
