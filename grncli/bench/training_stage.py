"""Speed of the training of a generator: the training loop itself, on drawn bits, with nothing saved."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from grncli.bench.limits import Machine
from grncli.bench.speeds import StageSpeed
from grncli.bench.spent_time import profiler, shares_of_kinds
from grncli.runs.generator_recipe import BitData
from grncli.runs.generators import build_generator
from grncli.runtime.devices import dtype_name
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.training.bit_loader import BitLoader
from grncli.training.estimate import estimate
from grncli.training.generator_training import GIB, GeneratorPlan
from grncli.training.logs import LogLine
from grncli.training.loop import TrainingContext, TrainingLoop
from grncli.training.refinement_objective import RefinementObjective
from grncli.training.restoring import Position
from grncli.training.training_state import TrainingState
from grncli.training.wrapping import wrap_generator

MEASURED = 3  # steps, between one before them to warm up and one behind them that is profiled
PRODUCTS = 4  # of the limit, between two steps

# Shares that GRN_ind-B reaches at 8 samples of 16x16 tokens on one core of an AMD EPYC with AVX-512 and bfloat16.
EXPECTED = {torch.float32: 0.65, torch.bfloat16: 0.6}


def training_stage(machine: Machine, plan: GeneratorPlan, dtype: torch.dtype) -> StageSpeed:
    """Tokens a second of ``grn train-gen``, and what share of the product rate they take."""
    training = replace(plan.recipe.training, steps=MEASURED + 2, log_every=1)
    recipe = replace(plan.recipe, training=training)
    assert isinstance(recipe.data, BitData)
    costs = estimate(recipe)
    subject = f"{costs['parameters'] / 1e6:.4g} M, {recipe.data.batch} samples of {costs['largest_grid']} tokens a step"
    watch = _StepWatch(machine, dtype, costs["flops_per_step"])
    torch.manual_seed(0)
    network = build_generator(recipe.network)
    wrap_generator(network, training)
    loader = BitLoader(plan.samples, batch=recipe.data.batch, buffer=recipe.data.buffer * GIB)
    objective = RefinementObjective(recipe, network, loader, machine.device)
    context = TrainingContext(device=machine.device, dtype=dtype, monitor=Monitor(machine.monitor.stop), report=watch)
    try:
        TrainingLoop(objective, machine.folder / "run", training, _Unsaved(), context).train()
    except Stopped:
        machine.monitor.require_time("before all was measured")
        raise
    return StageSpeed(
        name="training",
        subject=subject,
        dtype=dtype_name(dtype),
        value=costs["tokens_per_step"] / statistics.median(watch.seconds),
        unit="tokens/s",
        share=statistics.median(watch.shares),
        of=machine.products[dtype].name,
        expected=EXPECTED[dtype],
        waiting=statistics.median(watch.waiting),
        spent=watch.spent,
    )


class _StepWatch:
    """Gets a log line after every step; times the steps, and between them the limit."""

    def __init__(self, machine: Machine, dtype: torch.dtype, operations: float) -> None:
        self.machine, self.dtype, self.operations = machine, dtype, operations
        self.seconds: list[float] = []
        self.shares: list[float] = []
        self.waiting: list[float] = []
        self.spent: dict[str, float] = {}
        self._profiler = profiler(machine.device)
        self._limit = 0.0
        self._resumed = 0.0

    def __call__(self, line: LogLine) -> None:
        self.machine.wait()
        seconds = time.perf_counter() - self._resumed
        if line.step == MEASURED + 2:
            self._profiler.stop()
            self.spent = shares_of_kinds(self._profiler, self.machine.device)
            return
        before, self._limit = self._limit, self._multiply()
        if line.step > 1:
            self.seconds.append(seconds)
            self.shares.append(self.operations / seconds / statistics.mean((before, self._limit)))
            # The log counts the time between two steps too.
            self.waiting.append(line.numbers["waiting_share"] * line.numbers["seconds"] / seconds)
        if line.step == MEASURED + 1:
            self._profiler.start()
        self._resumed = time.perf_counter()

    def _multiply(self) -> float:
        work = self.machine.multiplying(self.dtype)
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            work.act()
        rate = PRODUCTS * work.amount / (time.perf_counter() - began)
        self.machine.products[self.dtype].rates.append(rate)
        return rate


class _Unsaved:
    """A checkpointer that keeps nothing."""

    failed = False

    def restore(self, states: Sequence[TrainingState]) -> Position:
        return Position()

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        pass

    def finish(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def newest(self) -> Path | None:
        return None
