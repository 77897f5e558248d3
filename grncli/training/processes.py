"""Several processes that train one network: who they are, and what they exchange.

Each takes its share of every batch, gradients are averaged, so the result is that of one process with the whole batch
up to rounding. ``torchrun`` starts them; gloo carries the numbers between CPUs, NCCL between GPUs.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and talks to the user."""
        return self.rank == 0

    def total(self, numbers: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        if self.count > 1:
            numbers = numbers.clone()
            dist.all_reduce(numbers)
        return numbers

    def count_all(self, number: int) -> int:
        """Sum of a whole number over all processes."""
        return int(self.total(torch.tensor(number, dtype=torch.int64)))

    def mean(self, numbers: dict[str, Tensor]) -> dict[str, float]:
        """Mean of each named number over all processes, all of which have the same names.

        Of a pair (sum, weight) the weighted mean; it is left out where no process has any weight.
        """
        if not numbers:
            return {}
        pairs = [value if value.dim() else torch.stack([value, torch.ones_like(value)]) for value in numbers.values()]
        totals = self.total(torch.stack(pairs).float()).tolist()
        return {name: total / weight for name, (total, weight) in zip(numbers, totals, strict=True) if weight}

    def gather(self, vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """A float64 vector of each process, by rank; they may differ in length."""
        if self.count == 1:
            return [vector]
        length = torch.tensor([len(vector)])
        lengths = [torch.empty_like(length) for _ in range(self.count)]
        dist.all_gather(lengths, length)
        longest = max(int(other) for other in lengths)
        padded = torch.zeros(longest, dtype=torch.float64)
        padded[: len(vector)] = torch.from_numpy(vector)
        found = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded)
        return [part[: int(size)].numpy() for part, size in zip(found, lengths, strict=True)]

    def gather_json(self, document: Any) -> list[Any]:
        """A document of each process, by rank: anything that JSON can hold."""
        encoded = np.frombuffer(json.dumps(document).encode(), np.uint8).astype(np.float64)
        return [json.loads(part.astype(np.uint8).tobytes()) for part in self.gather(encoded)]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        works = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
        for work in works:
            work.wait()
        torch._foreach_div_(gradients, self.count)

    def wait(self) -> None:
        """Return once every process is here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


@contextmanager
def joined(rank: int, count: int, device: torch.device) -> Iterator[Processes]:
    """Meet the other processes for the time of a block; the address comes from torchrun."""
    if count == 1:
        yield ALONE
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # or every process would meet the others through the first GPU
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=count)
    try:
        yield Processes(rank, count)
    finally:
        dist.destroy_process_group()


def share_batch_norm(module: nn.Module) -> None:
    """Let batch norms take their statistics over the batches of all processes, on CPUs too."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.__class__ = _SharedBatchNorm


class _SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, which have the same size.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        count = dist.get_world_size()
        moments = torch.stack([x.float().mean(dims), x.float().square().mean(dims)])
        mean, square = (differentiable.all_reduce(moments) / count).unbind()  # type: ignore[no-untyped-call]
        variance = square - mean.square()
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * count)
        scale, shift = (value.view(-1, *[1] * (x.dim() - 2)) for value in (self.weight, self.bias))
        # By hand: F.batch_norm takes given moments for constants, without a gradient.
        mean, variance = (value.view_as(scale) for value in (mean, variance))
        return ((x - mean) * (variance + self.eps).rsqrt() * scale + shift).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def _remember(self, mean: Tensor, variance: Tensor, size: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * size / max(1, size - 1), momentum)
