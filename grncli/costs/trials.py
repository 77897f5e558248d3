"""How a trial is timed, and how much memory it has taken."""

import time

import torch

from grncli.costs.run_costs import MemoryUse, Rate
from grncli.runtime.memory_peaks import forget_peak, peak_of_process, peaks_of_children

TRIAL_SECONDS = 3.0
"""How long each kind of work is tried, after its first unit."""


class MemoryWatch:
    """Follows the memory of this process, of its GPU and of its decoding processes, from when it is made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._decoders: dict[int, int] = {}
        forget_peak()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def look(self) -> None:
        """Take note of the decoding processes that run now."""
        for process, peak in peaks_of_children().items():
            self._decoders[process] = max(peak, self._decoders.get(process, 0))

    def use(self, *, decoders: int = 0, processes: int = 1) -> MemoryUse:
        """The most so far."""
        on_gpu = self._device.type == "cuda"
        return MemoryUse(
            process=peak_of_process(),
            device=torch.cuda.max_memory_reserved(self._device) if on_gpu else None,
            decoders=decoders,
            decoder=max(self._decoders.values(), default=None),
            processes=processes,
        )


class Clock:
    """Times units of work; the first of several are for warming up.

    Parameters
    ----------
    unit : what is counted
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._began = time.monotonic()
        self._marks: list[tuple[float, float]] = []  # units and seconds so far

    def mark(self, units: float) -> None:
        """So many more are done."""
        before = self._marks[-1][0] if self._marks else 0
        self._marks.append((before + units, time.monotonic() - self._began))

    @property
    def done(self) -> float:
        """Units so far."""
        return self._marks[-1][0] if self._marks else 0

    @property
    def is_over(self) -> bool:
        """Whether there were two marks and time enough since the first, or the first alone took long."""
        if not self._marks:
            return False
        first, now = self._marks[0][1], time.monotonic() - self._began
        return now >= first + TRIAL_SECONDS if len(self._marks) > 1 else first >= 4 * TRIAL_SECONDS

    def rate(self) -> Rate | None:
        """What was measured; None where nothing was done."""
        if not self._marks:
            return None
        (units, seconds), (first, start) = self._marks[-1], self._marks[0] if len(self._marks) > 1 else (0.0, 0.0)
        return Rate(unit=self._unit, done=units - first, seconds=max(seconds - start, 1e-6), first=first, start=start)
