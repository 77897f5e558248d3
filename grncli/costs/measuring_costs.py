"""What a measurement would take: it begins, and is ended after a few seconds, with nothing kept of it."""

import time
from collections.abc import Callable, Mapping

import torch

from grncli.costs import trials
from grncli.costs.run_costs import Rate, RunCosts
from grncli.costs.trials import MemoryWatch
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped


class TrialStop(Stop):
    """Ends a trial; and tells whether the command itself was to end before that."""

    def __init__(self, outer: Stop) -> None:
        super().__init__()
        self.outer = outer
        self.over = False

    @property
    def reason(self) -> str | None:
        """Why to stop."""
        return self.outer.reason or ("the trial is over" if self.over else None)


class TrialProgress:
    """What a piece of work reported before it ended: units done, of how many, and when."""

    def __init__(self, monitor: Monitor, watch: MemoryWatch) -> None:
        self.stop = TrialStop(monitor.stop)
        self.monitor = Monitor(stop=self.stop, progress=self._report, say=monitor.say)
        self.total = 0
        self._watch = watch
        self._began = time.monotonic()
        self._reports: list[tuple[float, int]] = []  # seconds, and units done before

    def _report(self, done: int, total: int | None, note: str) -> None:
        now = time.monotonic() - self._began
        self.total = max(total or 0, done)
        if done == 0:
            return
        if not self._reports:
            self._watch.look()
        self._reports.append((now, done))
        self.stop.over = now >= self._reports[0][0] + trials.TRIAL_SECONDS and self._reports[0][0] < now

    def rate(self, unit: str) -> Rate | None:
        """Units a second, between the first reports of two batches: all of a batch are reported in a row.

        From the beginning on where there was one batch only.
        """
        if not self._reports:
            return None
        gaps = [after[0] - before[0] for before, after in zip(self._reports, self._reports[1:], strict=False)]
        starts = [self._reports[0]] + [
            report for gap, report in zip(gaps, self._reports[1:], strict=True) if gap >= max(gaps) / 2
        ]
        (first, before), (last, done) = starts[0], starts[-1]
        if done == before:
            first, before, (last, done) = 0.0, 0, self._reports[-1]
        return Rate(unit=unit, done=done - before, seconds=max(last - first, 1e-6), first=before, start=first)


def measuring_costs(
    command: str,
    unit: str,
    passes: Mapping[str, Callable[[Monitor], object]],
    *,
    device: torch.device,
    decoders: int = 0,
    processes: int = 1,
    monitor: Monitor | None = None,
) -> RunCosts:
    """What a measurement takes, by the beginning of each of its passes.

    Parameters
    ----------
    unit : what the passes count
    passes : what each goes over, by its name; called with a monitor that ends it
    decoders, processes : decoding processes beside each process, and how many of these share the work

    Raises
    ------
    GrnError
        As the measurement itself.
    """
    monitor, watch = monitor or Monitor(), MemoryWatch(device)
    counts: dict[str, int] = {}
    rates, seconds = [], 0.0
    for name, work in passes.items():
        trial = TrialProgress(monitor, watch)
        try:
            work(trial.monitor)
        except Stopped:
            if trial.stop.outer.reason is not None:
                raise
        counts[name] = trial.total
        rate = trial.rate(unit)
        if rate is not None:
            rates.append(rate)
            seconds += rate.seconds_for(trial.total)
    return RunCosts(
        command=command,
        counts=counts,
        seconds=seconds if rates else None,
        rates=rates,
        memory=watch.use(decoders=decoders, processes=processes),
    )
