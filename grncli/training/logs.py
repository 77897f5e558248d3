"""What a run tells of itself: means over steps, time, ``metrics.jsonl``, TensorBoard."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from grncli.errors import UsageError
from grncli.training.recipes import Training


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

    def take(self) -> dict[str, Tensor]:
        """The means so far, and the totals of pairs; starts anew."""
        means = {name: total if total.dim() else total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, Counter()
        return means


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


class MetricsLog:
    """``metrics.jsonl``, cut back to the step a run resumes from."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        # Replaced at once, so that a crash here does not lose the log.
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(f"{line}\n" for line in kept))
        partial.replace(path)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one JSON object."""
        with self.path.open("a") as log:
            log.write(json.dumps({"step": step, **numbers}) + "\n")


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


def _lines(path: Path) -> list[str]:
    """Complete lines of a log; a line torn by a crash is left out."""
    if not path.is_file():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line.startswith("{") and line.endswith("}")]
