"""The training loop: optimizer, schedule, moving average, checkpoints, logs and stopping; what is trained comes in.

A resumed run repeats the uninterrupted one: batches and random draws depend on (seed, step) alone, and a checkpoint
holds everything else that changes.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from grncli.runs.checkpoint import (
    METRICS,
    PREVIEWS,
    TENSORBOARD,
    check_checkpoint,
    check_tensors,
    list_checkpoints,
    prune_checkpoints,
    read_state,
    read_tensors,
    set_aside,
    write_checkpoint,
)
from grncli.runs.rundir import Place
from grncli.runs.tokenizer_recipe import Optimization, Training
from grncli.runtime.errors import CheckpointError, GrnError
from grncli.runtime.processes import ALONE, Processes
from grncli.runtime.stopping import Stop, Stopped
from grncli.training.logs import Averages, MetricsLog, Stopwatch, TensorBoardLog, own_sums

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter


@dataclass(frozen=True)
class Batch:
    """What one step trains on: pixels or packed bits, and the names of their sources.

    Parameters
    ----------
    labels, numbers : of samples of bits, int64 ``[B]``; the numbers count the samples of a run, and are what random
        draws for a sample depend on
    """

    data: Tensor
    keys: tuple[str, ...]
    labels: Tensor | None = None
    numbers: Tensor | None = None

    def pieces(self, count: int) -> list["Batch"]:
        """The batch in ``count`` equal pieces."""
        size = len(self.data) // count
        return [self._piece(slice(start, start + size)) for start in range(0, len(self.data), size)]

    def _piece(self, rows: slice) -> "Batch":
        labels, numbers = (None if part is None else part[rows] for part in (self.labels, self.numbers))
        return Batch(self.data[rows], self.keys[rows], labels, numbers)


@dataclass(frozen=True)
class Player:
    """A network that is trained, and by which loss. The first of several is the one that a run is about.

    Parameters
    ----------
    name : what its files and numbers are called by; empty for the first
    losses : for (batch, step counted from 0) the loss to descend, and named numbers for the log; players are asked in
        their order, for one piece of a batch after the other
    """

    name: str
    module: nn.Module
    losses: Callable[[Batch, int], tuple[Tensor, dict[str, Tensor]]]
    optimization: Optimization


class Objective(Protocol):
    """What differs between trainings."""

    def players(self) -> Sequence[Player]:
        """The networks to train."""

    def batches(self, first_step: int) -> Generator[Batch]:
        """This process's share of the batches from ``first_step`` on, each depending on (seed, step) only."""

    def preview(self, module: nn.Module, folder: Path, step: int) -> None:
        """Leave a picture of what the module can do."""

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Numbers on what the module is not trained on; empty where nothing is held out."""


@dataclass(frozen=True)
class Report:
    """One line of the log."""

    step: int
    numbers: Mapping[str, float]


def train(
    objective: Objective,
    run: Path,
    *,
    training: Training,
    config: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    processes: Processes = ALONE,
    stop: Stop,
    report: Callable[[Report], None] = lambda _: None,
    progress: Callable[[int], None] = lambda step: None,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Train the players of ``objective`` to ``training.steps``, from the newest sound checkpoint of ``run``, if any.

    Parameters
    ----------
    config : sizes of the first network, for the checkpoint's header
    dtype : of the forward pass; below float32 through autocast, with weights and losses in float32
    processes : those that train together, each with its share of a batch
    progress : told the number of steps done, at the start and after every step
    warn : told one sentence when a damaged checkpoint is passed over

    Raises
    ------
    Stopped
        If ``stop`` of any process asked for it; a checkpoint of the last step is there.
    GrnError
        If the loss is not finite, or the gradient at a checkpoint; if the run was moved away.
    """
    states = [TrainingState(player, player.module.to(device), processes) for player in objective.players()]
    restored = load_newest(run, states, warn)
    step = restored.step
    if step >= training.steps:
        return
    processes.wait()  # until all have read, also what is damaged
    output = _Output(run, restored, training) if processes.leads else None
    averages, first = Averages(), states[0]
    if step % training.log_every:
        averages.restore(own_sums(restored.sums, processes.rank, processes.count), device)
    progress(step)
    with closing(objective.batches(step)) as batches:
        watch = Stopwatch()
        while step < training.steps:
            with watch.waiting():
                batch = next(batches)
            numbers = _step(states, batch, step, training.steps, device, dtype)
            averages.add(numbers)
            told = torch.tensor([numbers["loss"].item(), bool(stop.reason)], device=device)
            total, asked = processes.total(told).tolist()
            if not math.isfinite(total):
                raise _not_finite(run, "loss", step + 1, batch)
            step += 1
            progress(step)
            last = step == training.steps
            line: dict[str, float] = {}
            if step % training.log_every == 0 or last:
                line = {**processes.mean(averages.means()), "learning_rate": first.rate, **watch.lap()}
            if step % training.log_every == 0:
                averages.clear()
            if output and (step % training.preview_every == 0 or last):
                output.place.check()
                objective.preview(first.average.module, run / PREVIEWS, step)
            if output and (step % training.validate_every == 0 or last):
                line |= objective.validate(first.average.module)
            if line:
                if output:
                    output.log(step, line)
                report(Report(step, line))
            if step % training.checkpoint_every == 0 or last or asked:
                # It would have spoilt the weights, which only the next loss tells.
                if not numbers["gradient_norm"].isfinite():
                    raise _not_finite(run, "gradient", step, batch)
                sums = processes.gather_json(averages.sums())
                if output:
                    output.save(step, states, sums, config)
                processes.wait()
            if asked and not last:
                reason = stop.reason or "another process"
                raise Stopped(f"{reason}: stopped after step {step} of {training.steps}, with everything saved")


def _step(
    states: Sequence["TrainingState"], batch: Batch, step: int, steps: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Gradients of every player from one batch, then a step of each; returns the numbers for the log."""
    averages = Averages()
    pieces = batch.pieces(states[0].player.optimization.gradient_accumulation)
    for piece in pieces:
        for state in states:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss, numbers = state.player.losses(piece, step)
            averages.add({state.called("loss"): loss, **numbers})
            if loss.requires_grad:
                (loss / len(pieces)).backward()  # type: ignore[no-untyped-call]
    for state in states:
        averages.add({state.called("gradient_norm"): state.descend(step, steps)})
    return averages.take()


class _Output:
    """What a run leaves, of which the first process is the only writer: logs and checkpoints."""

    def __init__(self, run: Path, restored: "Restored", training: Training) -> None:
        self.run, self.training = run, training
        for checkpoint in restored.damaged:
            set_aside(checkpoint)
        run.mkdir(parents=True, exist_ok=True)
        self.place = Place(run)
        step = restored.step
        self.logs: list[MetricsLog | TensorBoardLog] = [
            MetricsLog(run / METRICS, step, lambda name: _is_logged(name, step, training))
        ]
        if training.tensorboard:
            self.logs.append(TensorBoardLog(run / TENSORBOARD, step))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line to every log."""
        self.place.check()
        for log in self.logs:
            log.write(step, numbers)

    def save(
        self, step: int, states: Sequence["TrainingState"], sums: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint; once this returns, it is known to be there."""
        self.place.check()
        for log in self.logs:
            log.sync()
        tensors = {file: named for state in states for file, named in state.tensors().items()}
        state = {"step": step, "averaged": states[0].averaged, "sums": sums}
        made = write_checkpoint(self.run, step, tensors, state, config)
        prune_checkpoints(self.run, self.training.keep, self.training.keep_every)
        self.place.check()
        check_checkpoint(made)


def _is_logged(name: str, step: int, training: Training) -> bool:
    """Whether a step has a number in the log when it is not the last one, which has all of them."""
    every = training.validate_every if name.startswith("validation_") else training.log_every
    return step % every == 0


@dataclass(frozen=True)
class Restored:
    """Where a run resumes.

    Parameters
    ----------
    step : steps done
    sums : what each process had added up for the next line of the log
    damaged : newer checkpoints, which cannot be read
    """

    step: int = 0
    sums: Sequence[Mapping[str, Sequence[float]]] = ()
    damaged: Sequence[Path] = ()


def load_newest(run: Path, states: Sequence["TrainingState"], warn: Callable[[str], None]) -> Restored:
    """Restore the newest checkpoint of ``run`` that can be read, if any.

    Raises
    ------
    CheckpointError
        If there are checkpoints and none can be read.
    """
    checkpoints = list_checkpoints(run)[::-1]
    for number, checkpoint in enumerate(checkpoints):
        try:
            loaded = [state.read(checkpoint) for state in states]
            done = read_state(checkpoint)
        except CheckpointError as error:
            if number == len(checkpoints) - 1:
                raise
            warn(f"{error}; going on from the checkpoint before it")
            continue
        for state, files in zip(states, loaded, strict=True):
            state.load(files, done.averaged)
        return Restored(done.step, done.sums, checkpoints[:number])
    return Restored()


class TrainingState:
    """Everything of one player that changes while training: weights, their moving average, the optimizer's moments.

    Only the first player, the one without a name, has moving averages, one for each decay; the first of them is what
    everything downstream uses.
    """

    def __init__(self, player: Player, module: nn.Module, processes: Processes) -> None:
        self.player = player
        self.module = module.train()
        self.settings = player.optimization
        self.processes = processes
        self.names = [name for name, _ in module.named_parameters()]
        matrices = [p for p in module.parameters() if p.dim() > 1]
        vectors = [p for p in module.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # One pass over the weights instead of a dozen: a seventh of a small network's step on a CPU.
        fused = all(p.device.type in ("cpu", "cuda") for p in matrices)
        self.optimizer = AdamW(groups, lr=self.settings.learning_rate, betas=self.settings.betas, fused=fused)
        decays = () if player.name else self.settings.decays
        # ema, ema2, ...
        self.averages = {
            f"ema{number if number > 1 else ''}": AveragedModel(module, multi_avg_fn=partial(_follow, decay))
            for number, decay in enumerate(decays, start=1)
        }

    @property
    def average(self) -> AveragedModel:
        """The moving average of the first player that everything downstream uses."""
        return self.averages["ema"]

    @property
    def averaged(self) -> int:
        """Steps that the moving average has seen."""
        return int(self.average.n_averaged)

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def called(self, name: str) -> str:
        """A number or file of this player by its full name."""
        return f"{self.player.name}_{name}" if self.player.name else name

    def descend(self, step: int, steps: int) -> Tensor:
        """One step down the gradients there are; returns their norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, step, steps)
        self.processes.average_gradients(self.module.parameters())
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for average in self.averages.values():
            average.update_parameters(self.module)
        return norm.detach()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Named tensors of each file of a checkpoint."""
        moments = {}
        for name, parameter in zip(self.names, self.module.parameters(), strict=True):
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                moments[f"{moment}.{name}"] = value
        files = {self.called("weights"): dict(self.module.state_dict()), self.called("optimizer"): moments}
        return {name: dict(average.module.state_dict()) for name, average in self.averages.items()} | files

    def read(self, checkpoint: Path) -> dict[str, dict[str, Tensor]]:
        """The files of ``tensors`` from a checkpoint; CheckpointError if one does not fit."""
        check_checkpoint(checkpoint)
        files = {}
        for name, ours in self.tensors().items():
            file = checkpoint / f"{name}.safetensors"
            files[name] = read_tensors(file)
            check_tensors(
                files[name], self._moments_of(files[name]) if name == self.called("optimizer") else ours, file
            )
        return files

    def _moments_of(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a file of moments holds: all of a parameter, or none where it never had a gradient."""
        moments: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.module.parameters(), strict=True):
            if any(f"{moment}.{name}" in found for moment in MOMENTS):
                like = parameter.detach()
                moments |= {f"{moment}.{name}": like if moment != "step" else like.new_empty(()) for moment in MOMENTS}
        return moments

    def load(self, files: Mapping[str, Mapping[str, Tensor]], averaged: int) -> None:
        """Take over what ``read`` found."""
        self.module.load_state_dict(files[self.called("weights")])
        moments = files[self.called("optimizer")]
        for name, parameter in zip(self.names, self.module.parameters(), strict=True):
            for moment in MOMENTS:
                if (value := moments.get(f"{moment}.{name}")) is not None:
                    # A fused AdamW wants its step count beside the weights, the other on the CPU.
                    device = parameter.device if self.optimizer.defaults["fused"] or moment != "step" else value.device
                    self.optimizer.state[parameter][moment] = value.to(device)
        for name, average in self.averages.items():
            average.module.load_state_dict(files[name])
            average.n_averaged.fill_(averaged)


def _follow(decay: float, average: Any, current: Any, count: Any) -> None:
    # The window grows with the run, so that a short run's average is not mostly its first weights.
    decay = min(decay, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(average, current, 1 - decay)


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
