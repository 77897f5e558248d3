"""Several processes that run one command together: their ranks, and what they exchange.

In training each takes its share of every batch and gradients are averaged, so the result is that of one process with
the whole batch up to rounding. Slurm's ``srun`` or ``torchrun`` starts them; gloo exchanges between CPUs, NCCL between
GPUs.
"""

import gc
import json
import sys
import traceback
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

# Its functions take the group of the moment they are imported for a default. Imported later, by a first optimizer step,
# they would keep the group and its threads alive until Python ends, and such a thread can abort the process there.
import torch.distributed.nn.functional
from numpy.typing import NDArray
from torch import Tensor

from grncli.runtime.errors import GrnError
from grncli.runtime.group_faults import is_lost
from grncli.runtime.group_watch import GroupWatch, wait_for
from grncli.runtime.launch import Launch
from grncli.runtime.stopping import Stop

COLLECTIVE_TIMEOUT = timedelta(days=7)
"""How long PyTorch waits for a process, also for groups of some of them: the watch tells a long phase from a hang."""


class Sum(Protocol):
    """A sum over all processes on its way."""

    def wait(self) -> object:
        """Return once it is there, or what computes with it waits for it."""


@dataclass(frozen=True)
class Processes:
    """This process among those that run together; by default the only one.

    Parameters
    ----------
    group : through which they exchange vectors and documents; None for that of the whole command
    """

    rank: int = 0
    count: int = 1
    group: Any = field(default=None, kw_only=True)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints messages."""
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
        parts = self.gather_bytes(np.ascontiguousarray(vector, np.float64).tobytes())
        return [np.frombuffer(part, np.float64) for part in parts]

    def gather_json(self, document: Any) -> list[Any]:
        """A document of each process, by rank: anything that JSON can hold."""
        return list(map(json.loads, self.gather_bytes(json.dumps(document).encode())))

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Some bytes of each process, by rank; they may differ in length."""
        if self.count == 1:
            return [data]
        length = torch.tensor([len(data)])
        lengths = [torch.empty_like(length) for _ in range(self.count)]
        dist.all_gather(lengths, length, group=self.group)
        padded = torch.zeros(max(1, *map(int, lengths)), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else padded[:0]
        every = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(every, padded, group=self.group)
        return [part[: int(size)].numpy().tobytes() for part, size in zip(every, lengths, strict=True)]

    def aside(self) -> "Processes":
        """The same processes with a connection of their own, for a thread of each; every process has to call this."""
        if self.count == 1:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT))

    def start_sum(self, numbers: Tensor) -> Sum:
        """Begin to replace a tensor by its sum over several processes, which call this in the same order."""
        work: Sum = dist.all_reduce(numbers, async_op=True)
        return work

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give several processes what the first one has in tensors that all have."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def alike(self, text: str, device: torch.device) -> bool:
        """Whether every process has the same text; all get the same answer."""
        if self.count == 1:
            return True
        number = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        extremes = torch.tensor([number, -number], dtype=torch.int64, device=device)
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])

    def wait(self) -> None:
        """Return once every process has called this."""
        if self.count > 1:
            dist.barrier()


SINGLE_PROCESS = Processes()


@contextmanager
def joined(launch: Launch, device: torch.device, stop: Stop, watch: GroupWatch | None) -> Iterator[Processes]:
    """Join the processes that were started together for the time of a block.

    Parameters
    ----------
    watch : of these processes; None for one process

    Raises
    ------
    Stopped
        If ``stop`` asked for it before all had joined.
    GrnError
        If one of them ends too early.
    """
    if watch is None:
        yield SINGLE_PROCESS
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # or every process would use the first GPU
    # Some numbers are exchanged from the CPU even where the networks are on GPUs.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"

    def join() -> None:
        watch.store.set_timeout(COLLECTIVE_TIMEOUT)
        dist.init_process_group(
            backend, store=watch.store, rank=launch.rank, world_size=launch.count, timeout=COLLECTIVE_TIMEOUT
        )

    try:
        wait_for(join, launch, stop)
        yield Processes(launch.rank, launch.count)
    except BaseException as error:
        failure = _explained(error, launch, watch)
        watch.hand_over(failure)  # before the connections end, which the others would take for the fault
        traceback.clear_frames(error.__traceback__)  # whose networks would keep the groups
        if failure is error:
            raise
        raise failure from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
            _forget_groups()


def _forget_groups() -> None:
    """Part networks in shards from the groups: they, and what PyTorch remembers of them, would keep the threads."""
    mesh = sys.modules.get("torch.distributed.device_mesh")
    if mesh is not None:
        gc.collect()
        for each in gc.get_objects():
            if type(each) is mesh.DeviceMesh:
                getattr(each, "_pg_registry", {}).clear()  # for which there is no public name


def _explained(error: BaseException, launch: Launch, watch: GroupWatch) -> BaseException:
    """An error as it is; for those of gloo, NCCL and their rendezvous a sentence, unless the watch ends the process."""
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError) or not (isinstance(error, dist.DistError) or is_lost(text)):
        return error
    watch.connection_broke()
    return GrnError(
        f"the connection to another of the {launch.count} processes broke ({text[:160]}), and all of them live; "
        "look at the network between their machines, and run the same command again"
    )
