"""What both training commands do with a run directory: settle the recipe, see what is done, open it, and train."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor, nn

from grncli.models.unfilled import made_on_meta
from grncli.runs.kinds import AnyModule, AnyRecipe, RunRecipe
from grncli.runs.networks import check_memory
from grncli.runs.rundir import DataRecord
from grncli.runs.shipped_recipes import COMMANDS
from grncli.runtime.devices import DTYPES
from grncli.runtime.writer_status import reporting
from grncli.training.checkpointer import WholeFileCheckpointer
from grncli.training.logs import check_extras
from grncli.training.loop import TrainingContext, TrainingLoop
from grncli.training.objective import Objective
from grncli.training.run_setup import PresentRun, open_run, settle_dtype, touch_complete
from grncli.training.sharded_checkpointer import ShardedCheckpointer
from grncli.training.sharding import choose_sharding


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

    def build(
        self, command: str, make: Callable[[], AnyModule], weights: Mapping[str, Tensor] | None = None
    ) -> AnyModule:
        """The network with ``weights``, or its first ones; says what is trained, in which number format and where.

        Where it is to be sharded, only that of the first process has memory.
        """
        processes, sharding, dtype = self.context.processes, self.context.sharding, self.recipe.training.dtype
        torch.manual_seed(self.recipe.training.seed)  # of the first weights; nothing later draws from it
        has_memory = processes.is_main or not sharding.is_sharded
        network = make() if has_memory else made_on_meta(make)
        if has_memory and weights is not None:
            network.load_state_dict(weights)
        several = f"{processes.count} processes ({sharding.kind})"
        self.context.monitor.say(
            f"{command}: {_count(network)} parameters in {dtype} on {self.context.device}, "
            f"{several if processes.count > 1 else '1 process'}"
        )
        return network

    def spread(self, make: Callable[[], nn.Module]) -> "TrainingRun[AnyRecipe]":
        """With a decision on how the state of the network lies in the processes; see `spread_state`."""
        return replace(self, context=spread_state(self.recipe, make, self.context))

    def train(self, objective: Objective) -> None:
        """Train to the recipe's last step."""
        training = self.recipe.training
        kind = ShardedCheckpointer if self.context.sharding.is_sharded else WholeFileCheckpointer
        checkpointer = kind(
            self.run,
            asdict(self.recipe.network),
            self.context.processes,
            keep=training.keep,
            keep_every=training.keep_every,
            say=self.context.monitor.say,
        )
        with self._reported() as context:
            TrainingLoop(objective, self.run, training, checkpointer, context).train()

    @contextmanager
    def _reported(self) -> Iterator[TrainingContext]:
        """The first of the processes says in the run how far all are."""
        context = self.context
        if not context.processes.is_main:
            yield context
            return
        with reporting(self.run, COMMANDS[self.recipe.kind], "steps", context.monitor) as monitor:
            yield replace(context, monitor=monitor)


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


def spread_state(
    recipe: RunRecipe, make: Callable[[], nn.Module], context: TrainingContext, *, check: bool = True
) -> TrainingContext:
    """The context with a decision on how the state of a network lies in its processes.

    Raises
    ------
    RecipeError
        If ``training.parallel`` does not fit the processes, or, unless ``check`` is off, the state exceeds all memory.
    """
    parameters = sum(parameter.numel() for parameter in made_on_meta(make).parameters())
    settings = recipe.optimization
    whole = parameters * torch.float32.itemsize * settings.copies
    sharding = choose_sharding(recipe.training.parallel, whole, context.processes, context.device)
    context = replace(context, sharding=sharding)
    if not check:
        return context
    each = sharding.bytes_of(parameters, settings)
    kind, count = context.device.type, context.processes.count
    if count == 1:
        check_memory(parameters, each, sharding.memory, kind)
    else:
        place, saved = f"each of {count} processes on {kind}", sharding.bytes_of_save(parameters, settings)
        saved = saved if kind == "cpu" else 0  # it lies in main memory
        remedy = "make it smaller" if sharding.is_sharded else "say training.parallel=fsdp, or make it smaller"
        check_memory(parameters, each, sharding.memory, place, saved=saved, remedy=remedy)
    return context


def _count(network: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return f"{millions:.1f} M" if millions >= 0.1 else f"{millions * 1e3:.1f} k"
