"""How long sampling took: a line in ``timing.jsonl`` of a part for each run that made samples; no part of the data."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from grncli.runtime.errors import StoreError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonlines import append_line, parse_line

TIMING = "timing.jsonl"


@dataclass(frozen=True)
class Timing:
    """Samples, at least one, and the seconds that refining them took, over all runs that left a line."""

    samples: int
    seconds: float

    @property
    def seconds_per_sample(self) -> float:
        """Mean over the samples; those of parts that were made side by side count as if one after the other."""
        return self.seconds / self.samples


def log_timing(part: Path, *, samples: int, seconds: float, batch: int, device: str, dtype: str) -> None:
    """Add the line of one run to the directory of its part, unless it made no samples."""
    if not samples:
        return
    run = {"samples": samples, "seconds": round(seconds, 6), "batch": batch, "device": device, "dtype": dtype}
    # The samples are committed; an error of this log must not hide why a run ended.
    with suppress(OSError):
        append_line(part / TIMING, {**run, "threads": torch.get_num_threads(), "torch": torch.__version__})


def read_timing(store: Path) -> Timing | None:
    """Sums over all parts of a store; None where no run left a line."""
    logged = [line for path in sorted(store.glob(f"part-*/{TIMING}")) for line in _lines(path)]
    samples = sum(line.samples for line in logged)
    return Timing(samples, sum(line.seconds for line in logged)) if samples else None


def _lines(path: Path) -> list[Timing]:
    """Lines of one log; one that was cut off in writing, or says no time, is passed over."""
    timings = []
    with os.fdopen(open_plain(path), "rb") as file:
        for line in file:
            with suppress(StoreError, ValueError, KeyError, TypeError, OverflowError):
                run = parse_line(line, str(path), error=StoreError, remedy="remove that line")
                samples, seconds = run["samples"], float(run["seconds"])
                if type(samples) is int and 0 < samples < 2**53 and 0 <= seconds < math.inf:
                    timings.append(Timing(samples, seconds))
    return timings
