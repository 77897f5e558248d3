"""Timing works in turn, so that noise on the machine meets all of them: what is compared is compared in one round."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grncli.runtime.monitor import Monitor

LEAST_ROUNDS, MOST_ROUNDS = 3, 25


@dataclass(frozen=True)
class Work:
    """Something whose speed is measured.

    Attributes
    ----------
    amount : what ``act`` does at a time: bytes, operations, pictures
    act : does it, and returns when it is done, on whatever device
    """

    amount: float
    act: Callable[[], object]


def alternate(works: Sequence[Work], *, seconds: float, monitor: Monitor) -> list[list[float]]:
    """Rates of each work (its amount a second) in rounds of all works, after one round that is not counted.

    Parameters
    ----------
    seconds : after which no further round begins; at least ``LEAST_ROUNDS`` and at most ``MOST_ROUNDS`` are counted

    Raises
    ------
    Unfinished
        If the monitor's stop asks for it between two works.
    """
    rates: list[list[float]] = [[] for _ in works]
    ends = time.monotonic() + seconds
    for number in range(1 + MOST_ROUNDS):
        if number > LEAST_ROUNDS and time.monotonic() > ends:
            break
        for work, own in zip(works, rates, strict=True):
            monitor.require_time("before all was measured")
            began = time.perf_counter()
            work.act()
            own.append(work.amount / max(time.perf_counter() - began, 1e-9))
    return [own[1:] for own in rates]


def ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """Median over the rounds of one rate in units of another."""
    return statistics.median(rate / other for rate, other in zip(rates, others, strict=True))
