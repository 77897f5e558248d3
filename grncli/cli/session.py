"""The processes that run one command together: who computes where, who speaks, and when they stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grncli.cli.console import Progress, launched, make_stop
from grncli.runtime.launch import parent_watch
from grncli.runtime.monitor import Monitor

if TYPE_CHECKING:
    import torch

    from grncli.runtime.processes import Processes


@dataclass(frozen=True)
class Session:
    """One of the processes that run a command together; a command that is started once has one."""

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
    exchange_on_cpu: bool = False,
    all_speak: bool = False,
) -> Iterator[Session]:
    """Join the other processes that were started together, if any, and listen to signals for the time of a block."""
    launch = launched()
    with make_stop(max_time, parent=parent_watch(launch)).listening() as stop, Progress(what, unit) as progress:
        import torch

        from grncli.runtime.devices import pick_device
        from grncli.runtime.processes import joined

        chosen = pick_device(device, launch.local_rank)
        with joined(launch, torch.device("cpu") if exchange_on_cpu else chosen, stop) as processes:
            first = processes.leads

            def show(done: int, total: int | None, note: str) -> None:
                if first:
                    progress(done if total is None else min(done, total), total, note)

            monitor = replace(progress.monitor(stop), progress=show)
            if not (first or all_speak):
                monitor = replace(monitor, say=lambda text: None)
            yield Session(chosen, processes, progress, monitor)
