"""What the commands that several processes may run together do alike: join the others, listen to signals, progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grncli.cli.console import Progress, launched, make_stop
from grncli.runtime.launch import parent_watch
from grncli.runtime.monitor import Monitor

if TYPE_CHECKING:
    import torch

    from grncli.runtime.processes import Processes


@dataclass(frozen=True)
class Session:
    """One of the processes that run a command together.

    Attributes
    ----------
    device : where this process computes
    monitor : for the stages of the command
    """

    device: "torch.device"
    processes: "Processes"
    progress: Progress
    monitor: Monitor


@contextmanager
def open_session(
    what: str,
    unit: str,
    device: str,
    max_time: str | None,
    *,
    own_shares: bool = False,
) -> Iterator[Session]:
    """Join the processes that were started together, if any, and listen to signals for the time of a block.

    Parameters
    ----------
    what, unit : name of the command, and what its progress counts; the first process shows it
    device, max_time : the options of the command
    own_shares : each process has pictures of its own, so that its sentences are printed too (and not those of the first
        only), and sums are exchanged between CPUs in float64, wherever the networks run
    """
    launch = launched()
    with make_stop(max_time, parent=parent_watch(launch)).listening() as stop, Progress(what, unit) as progress:
        import torch

        from grncli.runtime.devices import pick_device
        from grncli.runtime.processes import joined

        chosen = pick_device(device, launch.local_rank)

        def show(done: int, total: int | None, note: str) -> None:
            progress(done if total is None else min(done, total), total, note)

        with joined(launch, torch.device("cpu") if own_shares else chosen, stop) as processes:
            monitor = Monitor(stop)
            if processes.is_main:
                monitor = Monitor(stop, show, progress.say)
            elif own_shares:
                monitor = Monitor(stop, say=progress.say)
            yield Session(chosen, processes, progress, monitor)
