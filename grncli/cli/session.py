"""What the commands that several processes may run together do alike: join the others, listen to signals, progress."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from grncli.cli.console import Progress, describe, end_log, guarded, launched, make_stop, say_ending, trace
from grncli.runtime.errors import UsageError
from grncli.runtime.launch import Launch, parent_watch, read_launch
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped, begin_command

if TYPE_CHECKING:
    import torch

    from grncli.runtime.group_watch import GroupWatch
    from grncli.runtime.processes import Processes

P = ParamSpec("P")
R = TypeVar("R")

_TOLD = "told_to_the_others"  # attribute of an exception that a session has seen


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


def guarded_together(command: Callable[P, R]) -> Callable[P, R]:
    """As `guarded`, for a command that opens a session.

    Of several processes none is ended alone by a signal, and what all refuse before they have joined is said once.
    """

    def begin() -> None:
        if not _is_one_of_several():
            begin_command()

    together = guarded(command, begin, _refuse_together)
    together.refused = _refuse_together  # type: ignore[attr-defined]
    return together


def _refuse_together(error: UsageError) -> None:
    """Of several processes that refuse alike the first explains why, and the others end; returns for a single one."""
    if _is_one_of_several() and not hasattr(error, _TOLD):
        with make_stop().listening() as stop, Progress("", "") as progress, _watched(launched(), stop, progress):
            raise error


def _is_one_of_several() -> bool:
    with suppress(UsageError):  # which the session raises
        return read_launch(os.environ).count > 1
    return False


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
    with (
        make_stop(max_time, parent=parent_watch(launch)).listening() as stop,
        Progress(what, unit) as progress,
        _watched(launch, stop, progress) as watch,
    ):
        import torch

        from grncli.runtime.devices import pick_device, require_own_gpus
        from grncli.runtime.processes import joined

        chosen = pick_device(device, launch.local_rank)

        def show(done: int, total: int | None, note: str) -> None:
            if watch is not None:
                watch.note_progress(done, unit)
            if launch.rank == 0:
                progress(done if total is None else min(done, total), total, note)

        with joined(launch, torch.device("cpu") if own_shares else chosen, stop, watch) as processes:
            if not own_shares:
                require_own_gpus(processes, chosen)
            speaks = processes.is_main or own_shares
            monitor = Monitor(stop, show, progress.say) if speaks else Monitor(stop, show)
            yield Session(chosen, processes, progress, monitor)


@contextmanager
def _watched(launch: Launch, stop: Stop, progress: Progress) -> Iterator["GroupWatch | None"]:
    """Of several processes each watches the others in a block, so that one of them explains why all end."""
    if launch.count == 1:
        yield None
        return
    # PyTorch reports each broken connection at length, before the sentence that says whose it was.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from grncli.runtime.group_faults import Fault, Verdict
    from grncli.runtime.group_watch import watched

    def describe_fault(error: BaseException) -> Fault:
        return Fault(*describe(error), stopped=isinstance(error, Stopped | KeyboardInterrupt))

    def tell(verdict: Verdict) -> None:
        progress.close()
        say_ending(verdict.text, verdict.code)

    watch = None
    try:
        with watched(launch, stop, describe_fault, tell, end_log) as watch:
            yield watch
    except BaseException as error:
        setattr(error, _TOLD, True)
        code = None if watch is None else watch.hand_over(error)
        if code is None:
            raise
        trace(error)  # of this process, whoever says the sentence
        raise typer.Exit(code) from None
