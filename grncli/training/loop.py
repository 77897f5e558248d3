"""The training loop: optimizer, schedule, moving average, checkpoints, logs and stopping; what is trained comes in.

A resumed run repeats the uninterrupted one: batches and random draws depend on (seed, step) alone, and a checkpoint
holds everything else that changes.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from grncli.checkpoint import (
    METRICS,
    PREVIEWS,
    list_checkpoints,
    prune_checkpoints,
    read_state,
    read_tensors,
    write_checkpoint,
)
from grncli.errors import GrnError
from grncli.stopping import Stop, Stopped
from grncli.training.recipes import Optimization, Training


@dataclass(frozen=True)
class Batch:
    """What one step trains on: pixels (or bits) and the names of their sources."""

    data: Tensor
    keys: tuple[str, ...]


class Objective(Protocol):
    """What differs between trainings."""

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on, each depending on (seed, step) only."""

    def losses(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend, and named numbers for the log."""

    def preview(self, module: nn.Module, folder: Path, step: int) -> None:
        """Leave a picture of what the module can do."""


@dataclass(frozen=True)
class Report:
    """One line of the log."""

    step: int
    numbers: Mapping[str, float]


def train(
    module: nn.Module,
    objective: Objective,
    run: Path,
    *,
    optimization: Optimization,
    training: Training,
    config: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    stop: Stop,
    report: Callable[[Report], None] = lambda _: None,
) -> None:
    """Train ``module`` to ``training.steps``, from the newest checkpoint of ``run`` if it has one.

    Parameters
    ----------
    module : what to train; its weights are replaced by the checkpoint's
    config : sizes of the network, for the checkpoint's header
    dtype : of the forward pass; below float32 through autocast, with weights and losses in float32

    Raises
    ------
    Stopped
        If ``stop`` asked for it; a checkpoint of the last step is there.
    GrnError
        If the loss is not finite, or the gradient at a checkpoint.
    """
    state = TrainingState(module.to(device), optimization)
    step = state.load_newest(run)
    log = MetricsLog(run / METRICS, step)
    module.train()
    with closing(objective.batches(step)) as batches:
        watch, averages = Stopwatch(), Averages()
        while step < training.steps:
            with watch.waiting():
                batch = next(batches)
            state.set_rate(learning_rate(optimization, step, training.steps))
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss, numbers = objective.losses(module, batch)
            if not math.isfinite(loss.item()):
                raise _not_finite(run, "loss", step + 1, batch)
            norm = state.descend(loss)
            averages.add({"loss": loss.detach(), **numbers, "gradient_norm": norm})
            step += 1
            last, asked = step == training.steps, stop.reason
            if step % training.log_every == 0 or last:
                line = {**averages.take(), "learning_rate": state.rate, **watch.lap()}
                log.write(step, line)
                report(Report(step, line))
            if step % training.preview_every == 0 or last:
                objective.preview(state.average.module, run / PREVIEWS, step)
            if step % training.checkpoint_every == 0 or last or asked:
                if not norm.isfinite():  # it spoilt the weights, which only the next loss would tell
                    raise _not_finite(run, "gradient", step, batch)
                write_checkpoint(run, step, state.tensors(), {"step": step, **state.counters()}, config)
                prune_checkpoints(run, training.keep)
            if asked and not last:
                raise Stopped(f"{asked}: stopped after step {step} of {training.steps}, with everything saved")


class Averages:
    """Mean of each named number over the steps that had it, without waiting for the device at every step."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """Count the numbers of one step."""
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
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


class TrainingState:
    """Everything that changes while training: weights, their moving average, and the optimizer's moments."""

    def __init__(self, module: nn.Module, settings: Optimization) -> None:
        self.module = module
        self.settings = settings
        self.names = [name for name, _ in module.named_parameters()]
        matrices = [p for p in module.parameters() if p.dim() > 1]
        vectors = [p for p in module.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # One pass over the weights instead of a dozen: a seventh of a small network's step on a CPU.
        fused = all(p.device.type in ("cpu", "cuda") for p in matrices)
        self.optimizer = AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=fused)
        self.average = AveragedModel(module, multi_avg_fn=self._average)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def descend(self, loss: Tensor) -> Tensor:
        """One step down the gradient of ``loss``; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.module)
        return norm.detach()

    def _average(self, average: Any, current: Any, count: Any) -> None:
        # The window grows with the run, so that a short run's average is not mostly its first weights.
        decay = min(self.settings.ema, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(average, current, 1 - decay)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Named tensors of each file of a checkpoint."""
        moments = {}
        for name, parameter in zip(self.names, self.module.parameters(), strict=True):
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                moments[f"{moment}.{name}"] = value
        return {
            "ema": dict(self.average.module.state_dict()),
            "weights": dict(self.module.state_dict()),
            "optimizer": moments,
        }

    def counters(self) -> dict[str, int]:
        """What JSON holds of a checkpoint."""
        return {"averaged": int(self.average.n_averaged)}

    def load_newest(self, run: Path) -> int:
        """Restore the newest checkpoint of ``run``, if any; returns the number of steps done."""
        checkpoints = list_checkpoints(run)
        if not checkpoints:
            return 0
        newest = checkpoints[-1]
        self.module.load_state_dict(read_tensors(newest / "weights.safetensors"))
        self.average.module.load_state_dict(read_tensors(newest / "ema.safetensors"))
        moments = read_tensors(newest / "optimizer.safetensors")
        for name, parameter in zip(self.names, self.module.parameters(), strict=True):
            for moment in ("step", "exp_avg", "exp_avg_sq"):
                if (value := moments.get(f"{moment}.{name}")) is not None:
                    # A fused AdamW wants its step count beside the weights, the other on the CPU.
                    device = parameter.device if self.optimizer.defaults["fused"] or moment != "step" else value.device
                    self.optimizer.state[parameter][moment] = value.to(device)
        state = read_state(newest)
        self.average.n_averaged.fill_(state["averaged"])
        return int(state["step"])


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


def learning_rate(settings: Optimization, step: int, steps: int) -> float:
    """Rate of a step counted from 0: linear warm-up, then constant, or a cosine down to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _not_finite(run: Path, what: str, step: int, batch: Batch) -> GrnError:
    good = list_checkpoints(run)
    keys = ", ".join(batch.keys[:4]) + (f" and {len(batch.keys) - 4} more" if len(batch.keys) > 4 else "")
    where = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
    return GrnError(
        f"{run}: the {what} of step {step} is not a finite number, on {keys}; {where}; "
        "lower optimization.learning_rate or look at these sources"
    )


def _lines(path: Path) -> list[str]:
    """Complete lines of a log; a line torn by a crash is left out."""
    if not path.is_file():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line.startswith("{") and line.endswith("}")]
