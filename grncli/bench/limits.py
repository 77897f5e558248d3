"""The machine's own limits: what copies, products of matrices and a plain file reach at best."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grncli.bench.alternation import Work, alternate
from grncli.bench.speeds import Limit
from grncli.models import products
from grncli.runtime.devices import dtype_name
from grncli.runtime.monitor import Monitor

GIGA = 1e9
COPIED = 1 << 26  # bytes, beyond what caches hold
# Rows, columns, and what is summed over. The first is an MLP of GRN-B at 2304 tokens.
PRODUCTS = {"cpu": ((2304, 4096, 768), (2048, 2048, 2048)), "cuda": ((8192, 8192, 8192),), "mps": ((4096, 4096, 4096),)}
SYNCED = 1 << 25  # bytes between two fsyncs, of a plain file and of a store's commits

Way = Callable[[Tensor, Tensor], Tensor]


class Machine:
    """One device of this machine, its memory and a disk, with the limits of each.

    Parameters
    ----------
    folder : where the disk is measured
    dtypes : number formats whose products are limits
    seconds : for each comparison, and a quarter of it to find the best product of a number format
    """

    def __init__(
        self, device: torch.device, folder: Path, dtypes: list[torch.dtype], seconds: float, monitor: Monitor
    ) -> None:
        self.device, self.folder, self.seconds, self.monitor = device, folder, seconds, monitor
        self.copy = Limit("memory copy", "GB/s", GIGA)
        self.disk = Limit("file with fsync", "MB/s", 1e6)
        self.products = {dtype: Limit(f"products {dtype_name(dtype)}", "GFLOP/s", GIGA) for dtype in dtypes}
        self._product_works = {dtype: self._best_product(dtype) for dtype in dtypes}

    @property
    def limits(self) -> list[Limit]:
        """Those that were measured."""
        return [limit for limit in (self.copy, *self.products.values(), self.disk) if limit.rates]

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def timed(self, act: Callable[[], object]) -> Callable[[], None]:
        """The same without gradients, done when it returns."""

        def run() -> None:
            with torch.inference_mode():
                act()
            self.wait()

        return run

    def copying(self) -> Work:
        """Copies of bytes, each of which is read and written once."""
        source = torch.randint(0, 256, (COPIED,), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return Work(COPIED, self.timed(lambda: target.copy_(source)))

    def multiplying(self, dtype: torch.dtype) -> Work:
        """The fastest product there is, in operations (two for each multiplication)."""
        return self._product_works[dtype]

    def writing(self, size: int) -> Work:
        """A plain file of random bytes, on disk after every ``SYNCED`` of them."""
        block = np.random.default_rng(0).integers(0, 256, min(size, SYNCED), dtype=np.uint8).data

        def write() -> None:
            with (self.folder / "plain").open("wb") as file:
                for _ in range(-(-size // SYNCED)):
                    file.write(block)
                    file.flush()
                    os.fsync(file.fileno())

        return Work(size, write)

    def compare(
        self, works: list[Work], limits: list[tuple[Limit, Work]]
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Rates of works and of limits, in turn; the limits remember theirs."""
        rates = alternate([*(work for _, work in limits), *works], seconds=self.seconds, monitor=self.monitor)
        for (limit, _), own in zip(limits, rates, strict=False):
            limit.rates.extend(own)
        return rates[len(limits) :], rates[: len(limits)]

    def _best_product(self, dtype: torch.dtype) -> Work:
        works = []
        for rows, columns, summed in PRODUCTS[self.device.type]:
            a = torch.randn(rows, summed, device=self.device).to(dtype)
            b = torch.randn(columns, summed, device=self.device).to(dtype)
            for way in self._ways(dtype):
                act = self.timed(lambda way=way, a=a, b=b: way(a, b))  # type: ignore[misc]
                works.append(Work(2.0 * rows * columns * summed, act))
        rates = alternate(works, seconds=self.seconds / 4, monitor=self.monitor)
        return max(zip(works, rates, strict=True), key=lambda pair: max(pair[1]))[0]

    def _ways(self, dtype: torch.dtype) -> list[Way]:
        """PyTorch's own product, and oneDNN's where PyTorch may take another library."""
        ways: list[Way] = [lambda a, b: a @ b.t()]
        onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if self.device.type == "cpu" and dtype == torch.float32 and onednn:
            ways.append(lambda a, b: products.onednn_product(a, b, None))
        return ways
