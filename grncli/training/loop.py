"""The training loop: steps, logs, previews, validation, checkpoints and stopping; what is trained is passed in.

A resumed run repeats the uninterrupted one: batches and random draws depend on (seed, step) alone, and a checkpoint
holds everything else that changes.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from grncli.runs.checkpoint import PREVIEWS
from grncli.runs.tokenizer_recipe import Training
from grncli.runtime.errors import GrnError
from grncli.runtime.freed_memory import freed_memory_kept
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.runtime.stopping import Stopped
from grncli.training.checkpointer import Checkpointer
from grncli.training.logs import Averages, LogLine, RunLog, Stopwatch
from grncli.training.objective import Objective, StepBatch
from grncli.training.restoring import Position
from grncli.training.sharding import WHOLE, Sharding
from grncli.training.training_state import TrainingState


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """Where a training runs and who follows it.

    Parameters
    ----------
    dtype : of the forward pass; below float32 through autocast, with weights and losses in float32
    processes : those that train together, each with its share of every batch
    sharding : how weights, gradients, moments and averages lie in them
    report : called with each line of the log
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    processes: Processes = SINGLE_PROCESS
    sharding: Sharding = WHOLE
    monitor: Monitor = field(default_factory=Monitor)
    report: Callable[[LogLine], None] = lambda line: None


class TrainingLoop:
    """Trains the networks of an objective to ``training.steps``, from the newest sound checkpoint, if any."""

    def __init__(
        self, objective: Objective, run: Path, training: Training, checkpointer: Checkpointer, context: TrainingContext
    ) -> None:
        self.objective, self.run = objective, run
        self.training, self.checkpointer, self.context = training, checkpointer, context
        self.states = make_states(objective, context)
        self.step = 0
        self._averages, self._watch = Averages(), Stopwatch()
        self._log: RunLog | None = None  # of the first process
        self._note = ""

    def train(self) -> None:
        """Train until all steps are done.

        Raises
        ------
        Stopped
            If the stop of any process asked for it; a checkpoint of the last step is there.
        GrnError
            If the loss is not finite, or the gradient at a checkpoint; if the run was moved away.
        """
        try:
            self._train()
            self.checkpointer.finish()
        except BaseException:
            self.checkpointer.leave()
            raise

    def _train(self) -> None:
        position = self.checkpointer.restore(self.states)
        self.step = position.step
        if self.step >= self.training.steps:
            return
        if self.context.processes.is_main:
            self._log = RunLog(self.run, self.step, self.training)
        if self.step % self.training.log_every:
            self._averages.restore(position.sums, self.context.device)
        self._show_progress()
        with freed_memory_kept(), closing(self.objective.batches(self.step)) as batches:
            self._watch.lap()
            while self.step < self.training.steps:
                with self._watch.waiting():
                    batch = next(batches)
                numbers = optimize(self.states, batch, self.step, self.training.steps, self.context)
                self._averages.add(numbers)
                asked = self._exchange(numbers["loss"], batch)
                self.step += 1
                self._show_progress()
                self._report()
                if asked or self._is_due(self.training.checkpoint_every):
                    self._save(numbers["gradient_norm"], batch)
                if asked and self.step < self.training.steps:
                    self._stop()

    def _exchange(self, loss: Tensor, batch: StepBatch) -> bool:
        """Whether any process was asked to stop; GrnError where the loss of any is not finite, or a save failed."""
        own = torch.tensor(
            [loss.item(), bool(self.context.monitor.stop_reason), self.checkpointer.failed], device=self.context.device
        )
        total, asked, failed = self.context.processes.total(own).tolist()
        if failed:
            self.checkpointer.finish()
        if not math.isfinite(total):
            raise self._not_finite("loss", self.step + 1, batch)
        return bool(asked)

    def _report(self) -> None:
        """Log, preview and validate, each at its interval."""
        line: dict[str, float] = {}
        if self._is_due(self.training.log_every):
            means = self.context.processes.mean(self._averages.means())
            line = {**means, "learning_rate": self.states[0].rate, **self._watch.lap()}
        if self.step % self.training.log_every == 0:
            self._averages.clear()
        looks = self._log is not None or self.states[0].is_sharded  # its parts compute together
        if looks and self._is_due(self.training.preview_every):
            if self._log:
                self._log.place.check()
            folder = self.run / PREVIEWS if self._log else None
            self.objective.preview(self.states[0].average.module, folder, self.step)
        if looks and self._is_due(self.training.validate_every):
            line |= self.objective.validate(self.states[0].average.module)
        if not line:
            return
        if self._log:
            self._log.write(self.step, line)
        logged = LogLine(self.step, line)
        self.context.report(logged)
        if logged.summary:
            self._note = logged.summary
            self._show_progress()

    def _save(self, gradient_norm: Tensor, batch: StepBatch) -> None:
        # It would have spoilt the weights, which only the next loss shows.
        if not gradient_norm.isfinite():
            raise self._not_finite("gradient", self.step, batch)
        if self._log:
            self._log.sync()
        self.checkpointer.save(Position(self.step, self._averages.sums()), self.states)

    def _stop(self) -> None:
        self.checkpointer.finish()
        reason = self.context.monitor.stop_reason or "another process"
        raise Stopped(f"{reason}: stopped after step {self.step} of {self.training.steps}, with everything saved")

    def _is_due(self, every: int) -> bool:
        """Whether something happens after this step that happens every so many steps and at the end."""
        return self.step % every == 0 or self.step == self.training.steps

    def _show_progress(self) -> None:
        self.context.monitor.progress(self.step, self.training.steps, self._note)

    def _not_finite(self, what: str, step: int, batch: StepBatch) -> GrnError:
        good = self.checkpointer.newest()
        keys = ", ".join(batch.keys[:4]) + (f" and {len(batch.keys) - 4} more" if len(batch.keys) > 4 else "")
        where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        return GrnError(
            f"{self.run}: the {what} of step {step} is not a finite number, on {keys}; {where}; "
            "lower optimization.learning_rate or look at these sources"
        )


def make_states(objective: Objective, context: TrainingContext) -> list[TrainingState]:
    """What changes while the networks of an objective are trained; every process makes its part."""
    return [
        TrainingState(each, context.device, context.processes, context.sharding, context.dtype)
        for each in objective.trainables()
    ]


def optimize(
    states: Sequence[TrainingState], batch: StepBatch, step: int, steps: int, context: TrainingContext
) -> dict[str, Tensor]:
    """Gradients of every trainable from one batch, then a step of each; returns the numbers for the log.

    Parameters
    ----------
    step, steps : this one, counted from 0, of how many
    """
    device, dtype = context.device, context.dtype
    averages = Averages()
    pieces = batch.pieces(states[0].settings.gradient_accumulation)
    for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
        for state in states:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss, numbers = state.trainable.losses(piece, step)
            averages.add({state.called("loss"): loss, **numbers})
            if loss.requires_grad:
                state.backward(loss / len(pieces), is_last=left == 0)
    for state in states:
        averages.add({state.called("gradient_norm"): state.optimizer_step(step, steps)})
    return averages.take()
