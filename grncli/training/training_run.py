"""What both training commands do with a run directory: settle the recipe, see what is done, open it, and train."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic

import torch
from torch import nn

from grncli.runs.kinds import AnyModule, AnyRecipe
from grncli.runs.rundir import DataRecord
from grncli.runtime.devices import DTYPES
from grncli.training.checkpointer import WholeFileCheckpointer
from grncli.training.logs import check_extras
from grncli.training.loop import TrainingContext, TrainingLoop
from grncli.training.objective import Objective
from grncli.training.run_setup import PresentRun, open_run, settle_dtype, touch_complete


@dataclass(frozen=True)
class TrainingRun(Generic[AnyRecipe]):
    """A run directory and what this command trains into it.

    Attributes
    ----------
    recipe : with its number format settled
    done : steps that are saved already
    """

    run: Path
    recipe: AnyRecipe
    data: DataRecord
    context: TrainingContext
    overwrite: bool
    done: int

    @property
    def left(self) -> int:
        """Steps to train, 0 for a finished run."""
        return max(0, self.recipe.training.steps - self.done)

    def opened(self) -> AbstractContextManager[None]:
        """Be the only writer for the time of a block; the run is complete when the block ends well."""
        processes, say = self.context.processes, self.context.monitor.say
        return open_run(self.run, self.recipe, self.data, processes, overwrite=self.overwrite, say=say)

    def build(self, command: str, make: Callable[[], AnyModule]) -> AnyModule:
        """The network with its first weights; says what is trained, in which number format and where."""
        torch.manual_seed(self.recipe.training.seed)  # of the first weights; nothing later draws from it
        network = make()
        count, dtype = self.context.processes.count, self.recipe.training.dtype
        self.context.monitor.say(
            f"{command}: {_count(network)} parameters in {dtype} on {self.context.device}, "
            f"{count} process{'es' if count > 1 else ''}"
        )
        return network

    def train(self, objective: Objective) -> None:
        """Train to the recipe's last step."""
        training = self.recipe.training
        checkpointer = WholeFileCheckpointer(
            self.run,
            asdict(self.recipe.network),
            self.context.processes,
            keep=training.keep,
            keep_every=training.keep_every,
            say=self.context.monitor.say,
        )
        TrainingLoop(objective, self.run, training, checkpointer, self.context).train()


def prepare_run(
    recipe: AnyRecipe, run: Path, data: DataRecord, context: TrainingContext, *, overwrite: bool
) -> TrainingRun[AnyRecipe]:
    """What is to be trained into ``run``; of a finished one only the date of its mark is renewed.

    Raises
    ------
    CheckpointError
        If ``run`` holds something else.
    UsageError
        If the recipe asks for a package that is not installed.
    """
    present = PresentRun(run)
    resumed = None if overwrite else present
    recipe = settle_dtype(recipe, resumed, context.device, context.processes, say=context.monitor.say)
    done = present.steps_done(recipe, data, overwrite=overwrite) or 0
    context = replace(context, dtype=DTYPES[recipe.training.dtype])
    prepared = TrainingRun(run, recipe, data, context, overwrite, done)
    if prepared.left:
        check_extras(recipe.training)
    elif context.processes.is_main:
        touch_complete(run, recipe)
    return prepared


def _count(network: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return f"{millions:.1f} M" if millions >= 0.1 else f"{millions * 1e3:.1f} k"
