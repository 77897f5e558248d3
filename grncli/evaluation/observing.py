"""One pass over pictures for all that is measured of them: decoding them is often what takes longest."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic

from torch import Tensor

from grncli.evaluation.measuring import OneSize, Pictures, R, measured_by_all
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes


class Observer(ABC, Generic[R]):
    """Something that is measured of pictures: first of a batch, and then counted for each whose source was sound."""

    @abstractmethod
    def compute(self, frames: Tensor) -> Sequence[R]:
        """What is measured of each sample of uint8 ``[B, T, H, W, 3]``."""

    @abstractmethod
    def add(self, place: int, result: R, label: str | None = None, /) -> None:
        """Count one sample by its place in the order of its source; ``label`` names its class."""


def observe(
    pictures: Pictures,
    observers: Sequence[Observer[Any]],
    *,
    one_size: bool = True,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """Show each observer this process's share of the pictures; returns where they are from, how many, and their size.

    Raises
    ------
    UsageError
        If their sizes differ and ``one_size`` expects them alike.
    MediaError
        If none can be read.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor, done, sizes = monitor or Monitor(), 0, OneSize(wanted=one_size)

    def compute(frames: Tensor) -> list[tuple[Any, ...]]:
        return list(zip(*(observer.compute(frames) for observer in observers), strict=True))

    measured = pictures.measure(compute, share=(processes.rank, processes.count), monitor=monitor)
    for each in measured_by_all(measured, len(pictures), sizes, processes, monitor):
        for observer, result in zip(observers, each.result, strict=True):
            observer.add(each.place, result, each.label)
        done += 1
    samples = processes.count_all(done)
    if not samples:
        raise MediaError(f"{pictures.src}: none of its pictures could be read")
    return {
        **pictures.about(),
        "samples": samples,
        "picture": sizes.size,
        "failed": processes.count_all(pictures.failed),
    }
