"""Several processes that run one command together: their ranks, and what they exchange.

In training each takes its share of every batch and gradients are averaged, so the result is that of one process with
the whole batch up to rounding. Slurm's ``srun`` or ``torchrun`` starts them; gloo exchanges between CPUs, NCCL between
GPUs.
"""

import json
import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Its functions take the group of the moment they are imported for a default. Imported later, by a first optimizer step,
# they would keep the group and its threads alive until Python ends, and such a thread can abort the process there.
import torch.distributed.nn.functional
from numpy.typing import NDArray
from torch import Tensor, nn

from grncli.runtime.errors import GrnError
from grncli.runtime.launch import Launch
from grncli.runtime.stopping import Stop, Stopped

JOIN_POLL_SECONDS = 0.1  # between two looks at whether to stop waiting for the others


@dataclass(frozen=True)
class Processes:
    """This process among those that run together; by default the only one."""

    rank: int = 0
    count: int = 1

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
        if self.count == 1:
            return [vector]
        length = torch.tensor([len(vector)])
        lengths = [torch.empty_like(length) for _ in range(self.count)]
        dist.all_gather(lengths, length)
        longest = max(int(other) for other in lengths)
        padded = torch.zeros(longest, dtype=torch.float64)
        padded[: len(vector)] = torch.from_numpy(vector)
        vectors = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(vectors, padded)
        return [part[: int(size)].numpy() for part, size in zip(vectors, lengths, strict=True)]

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
def joined(launch: Launch, device: torch.device, stop: Stop) -> Iterator[Processes]:
    """Join the processes that were started together for the time of a block.

    Raises
    ------
    Stopped
        If ``stop`` asked for it before all had joined.
    GrnError
        If they cannot connect, or one of them ends too early.
    """
    if launch.count == 1:
        yield SINGLE_PROCESS
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)  # or every process would use the first GPU
    with _explaining_failures(launch):
        # Some numbers are exchanged from the CPU even where the networks are on GPUs.
        _join(launch, "cpu:gloo,cuda:nccl" if on_gpu else "gloo", stop)
        try:
            yield Processes(launch.rank, launch.count)
        finally:
            dist.destroy_process_group()


def _join(launch: Launch, backend: str, stop: Stop) -> None:
    """Wait for the others in a thread: PyTorch waits for many minutes and handles no signal meanwhile."""
    failed: list[BaseException] = []

    def connect() -> None:
        try:
            dist.init_process_group(
                backend, init_method=launch.address or "env://", rank=launch.rank, world_size=launch.count
            )
        except BaseException as error:
            failed.append(error)

    joining = threading.Thread(target=connect, name="grn-join", daemon=True)
    joining.start()
    while joining.is_alive():
        joining.join(JOIN_POLL_SECONDS)
        if joining.is_alive() and stop.reason:
            raise Stopped(f"{stop.reason}: stopped before all {launch.count} processes had joined")
    if failed:
        raise failed[0]


@contextmanager
def _explaining_failures(launch: Launch) -> Iterator[None]:
    """Turn errors of gloo, NCCL and their rendezvous into a sentence."""
    try:
        yield
    except RuntimeError as error:  # of which those of torch.distributed are some
        text = " ".join(str(error).split())
        if isinstance(error, dist.DistStoreError | dist.DistNetworkError):
            place = launch.address or "MASTER_ADDR:MASTER_PORT"
            raise GrnError(
                f"the {launch.count} processes could not connect at {place} ({text[:160]}); start all of them, and set "
                "MASTER_ADDR and MASTER_PORT to a free port of the first one's machine where this is another"
            ) from error
        if isinstance(error, dist.DistBackendError) or _LOST.search(text):
            raise GrnError(
                f"another of the {launch.count} processes has ended; its own message says why; run the same command "
                "again to resume"
            ) from error
        raise


# What gloo says when a connection ends.
_LOST = re.compile(r"closed by peer|reset by peer|gloo/transport|Broken pipe|remote process exited", re.IGNORECASE)
