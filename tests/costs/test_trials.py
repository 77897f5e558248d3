"""From what a few seconds of work did to what all of it takes."""

import pytest
import torch

from grncli.costs import trials
from grncli.costs.measuring_costs import TrialProgress, measuring_costs
from grncli.costs.run_costs import Rate
from grncli.costs.trials import Clock, MemoryWatch
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped, Unfinished

CPU = torch.device("cpu")


class Hours:
    """A clock that tests move on."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def hours(monkeypatch):
    hours = Hours()
    for module in ("grncli.costs.trials", "grncli.costs.measuring_costs"):
        monkeypatch.setattr(f"{module}.time", hours)
    return hours


def test_the_start_counts_once():
    rate = Rate(unit="samples", done=10, seconds=5, first=4, start=3)
    assert rate.seconds_for(24) == 3 + 20 / 2
    assert rate.seconds_for(2) == 3


def test_a_first_batch_warms_up(hours):
    clock = Clock("samples")
    for seconds, units in ((8, 4), (1, 6), (1, 6)):
        hours.now += seconds
        clock.mark(units)
    rate = clock.rate()
    assert (rate.first, rate.start, rate.done, rate.seconds) == (4, 8, 12, 2)
    assert rate.seconds_for(100) == 8 + 96 / 6


def test_a_trial_ends_after_its_time_or_one_long_unit(hours):
    clock = Clock("samples")
    assert clock.rate() is None
    hours.now += 1
    clock.mark(1)
    hours.now += 100
    assert not clock.is_over  # nothing was measured yet
    clock.mark(1)
    assert clock.is_over
    slow = Clock("samples")
    hours.now += 4 * trials.TRIAL_SECONDS
    slow.mark(1)
    assert slow.is_over
    assert slow.rate().seconds_for(2) == 8 * trials.TRIAL_SECONDS


def pictures(hours, batches, total, *, at_start=0.0):
    """Work that reports the pictures of a batch one after the other once the batch is done."""

    def work(monitor):
        hours.now += at_start
        done = 0
        for size, seconds in batches:
            hours.now += seconds
            for _ in range(size):
                done += 1
                monitor.progress(done, total, "")
            if monitor.stop_reason:
                raise Unfinished(f"{monitor.stop_reason}: stopped")

    return work


def test_pictures_reported_in_bursts_are_timed_by_batches(hours):
    work = pictures(hours, [(8, 1.0)] * 100, 800, at_start=5.0)
    costs = measuring_costs("eval", "pictures", {"pictures": work}, device=CPU)
    assert costs.counts == {"pictures": 800}
    assert costs.seconds == pytest.approx(5 + 100, rel=0.02)


def test_work_that_ends_within_a_trial_is_told_as_it_was(hours):
    costs = measuring_costs("eval", "pictures", {"pictures": pictures(hours, [(8, 2.0)], 8)}, device=CPU)
    assert costs.seconds == pytest.approx(2, abs=0.1)


def test_passes_add_up(hours):
    passes = {name: pictures(hours, [(10, 1.0)] * 50, 500) for name in ("reference", "pictures")}
    costs = measuring_costs("eval", "pictures", passes, device=CPU)
    assert costs.counts == {"reference": 500, "pictures": 500}
    assert costs.seconds == pytest.approx(100, abs=2)


def test_a_command_that_is_asked_to_end_is_no_trial_that_is_over(hours):
    stop = Stop(max_time=1e-9)
    with pytest.raises(Stopped):
        measuring_costs("eval", "x", {"x": pictures(hours, [(1, 1.0)] * 9, 9)}, device=CPU, monitor=Monitor(stop=stop))


def test_progress_without_units_is_no_rate(hours):
    progress = TrialProgress(Monitor(), MemoryWatch(CPU))
    progress.monitor.progress(0, 7, "")
    assert progress.rate("samples") is None
    assert progress.total == 7
