"""What a run records of itself: means over steps, time, ``metrics.jsonl``, TensorBoard."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.runs.checkpoint import TENSORBOARD
from grncli.runs.metrics_log import METRICS, read_metrics
from grncli.runs.rundir import Place
from grncli.runs.tokenizer_recipe import Training
from grncli.runtime.errors import UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.jsonlines import LineFile, append_line


@dataclass(frozen=True)
class LogLine:
    """One line of the log."""

    step: int
    numbers: Mapping[str, float]

    @property
    def summary(self) -> str:
        """Loss, accuracy and PSNR in a few words; empty where the line has no loss."""
        if "loss" not in self.numbers:
            return ""
        shown = {k: v for k, v in self.numbers.items() if k in ("loss", "accuracy") or k.endswith("psnr")}
        return ", ".join(f"{name} {value:.4g}" for name, value in shown.items())


class Averages:
    """Mean of each named number over the steps that had it, without waiting for the device at every step.

    A number may also be a pair (sum, weight), for means over less than a whole batch; sums and weights add up.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """Count the numbers of one step."""
        for name, value in numbers.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] += 1

    def means(self) -> dict[str, Tensor]:
        """The means so far, and the totals of pairs."""
        return {name: total if total.dim() else total / self._counts[name] for name, total in self._sums.items()}

    def clear(self) -> None:
        """Start anew."""
        self._sums, self._counts = {}, Counter()

    def take(self) -> dict[str, Tensor]:
        """The means so far, and the totals of pairs; starts anew."""
        means = self.means()
        self.clear()
        return means

    def sums(self) -> dict[str, list[float]]:
        """What is added up and, last, over how many steps: for a checkpoint, exactly."""
        return {
            name: [*(total.tolist() if total.dim() else [total.item()]), self._counts[name]]
            for name, total in self._sums.items()
        }

    def restore(self, sums: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """Take over what ``sums`` gave."""
        for name, (*total, count) in sums.items():
            value = torch.tensor(total, dtype=torch.float32, device=device)
            self._sums[name] = value if len(total) > 1 else value[0]
            self._counts[name] = int(count)


def own_sums(saved: Sequence[Mapping[str, Sequence[float]]], rank: int, count: int) -> dict[str, list[float]]:
    """What one of ``count`` processes starts from, of the sums of all that saved: its own, or an equal share."""
    if len(saved) == count:
        return {name: list(values) for name, values in saved[rank].items()}
    shares: dict[str, list[float]] = {}
    for sums in saved:
        for name, (*total, steps) in sums.items():
            before = shares.get(name, [0.0] * len(total) + [steps])
            # Of a pair, all processes together have the total; of a mean, each has that of all.
            among = count if len(total) > 1 else len(saved)
            shares[name] = [old + new / among for old, new in zip(before[:-1], total, strict=True)] + [steps]
    return shares


class Stopwatch:
    """Seconds since the last lap, and the share of them spent waiting for batches."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block as waiting."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def lap(self) -> dict[str, float]:
        """``seconds`` and ``waiting_share`` since the last lap."""
        spent = time.monotonic() - self._began
        share = self._waited / max(spent, 1e-9)
        self._began, self._waited = time.monotonic(), 0.0
        return {"seconds": spent, "waiting_share": share}


class RunLog:
    """Every log of a run, which one process writes, cut back to the step the run resumes from.

    Attributes
    ----------
    place : the run directory, to be checked before anything is written there
    """

    def __init__(self, run: Path, step: int, training: Training) -> None:
        def is_logged(name: str) -> bool:
            every = training.validate_every if name.startswith("validation_") else training.log_every
            return step % every == 0

        run.mkdir(parents=True, exist_ok=True)
        self.place = Place(run)
        self._logs: list[MetricsLog | TensorBoardLog] = [MetricsLog(run / METRICS, step, is_logged)]
        if training.tensorboard:
            self._logs.append(TensorBoardLog(run / TENSORBOARD, step))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line to every log."""
        self.place.check()
        for log in self._logs:
            log.write(step, numbers)

    def sync(self) -> None:
        """Wait until all lines are on disk."""
        self.place.check()
        for log in self._logs:
            log.sync()


class MetricsLog:
    """``metrics.jsonl``, cut back to the step a run resumes from.

    Parameters
    ----------
    belongs : whether a number of that very step would be logged there by a run that was never meant to end at it

    Raises
    ------
    CheckpointError
        If a line before the last is damaged.
    """

    def __init__(self, path: Path, step: int, belongs: Callable[[str], bool] = lambda name: True) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Replaced at once, so that a crash here does not lose the log.
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as log:
            for line in read_metrics(path):
                kept = {name: value for name, value in line.items() if name == "step" or belongs(name)}
                if line["step"] < step:
                    log.write(json.dumps(line) + "\n")
                elif line["step"] == step and len(kept) > min(1, len(line) - 1):
                    log.write(json.dumps(kept) + "\n")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one JSON object."""
        append_line(self.path, {"step": step, **numbers})

    def sync(self) -> None:
        """Wait until all lines are on disk."""
        with LineFile(self.path) as log:
            log.sync()


class TensorBoardLog:
    """The same numbers as event files for TensorBoard; what lies behind ``step`` is hidden there.

    Raises
    ------
    UsageError
        If the tensorboard package is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = summary_writer()(folder, purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def sync(self) -> None:
        """Nothing more: each point is written out at once."""


def summary_writer() -> Any:
    """TensorBoard's writer; UsageError if the tensorboard package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # an optional extra
    except ImportError:
        raise UsageError(
            "training.tensorboard=true needs the tensorboard package: pip install 'grncli[tensorboard]'"
        ) from None
    return SummaryWriter


def check_extras(training: Training) -> None:
    """Raise UsageError for what a run needs and is not installed, before anything of it is made."""
    if training.tensorboard:
        summary_writer()
