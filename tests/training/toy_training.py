"""A toy network in the training loop, and what a run of it leaves."""

import json

import torch
from torch import nn

from grncli.runs.checkpoint import list_checkpoints, read_state
from grncli.runs.stored_tensors import open_stored
from grncli.runs.tokenizer_recipe import Optimization, Training
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS
from grncli.runtime.stopping import Stop
from grncli.training.checkpointer import WholeFileCheckpointer
from grncli.training.loop import TrainingContext, TrainingLoop
from grncli.training.objective import Batch, Trainable
from grncli.training.sharded_checkpointer import ShardedCheckpointer
from grncli.training.sharding import WHOLE

TIMINGS = ("seconds", "waiting_share")


class Toy:
    """Regression on numbers that depend on (seed, step) only."""

    def __init__(self):
        self.steps = []  # begun, by their number from 0
        self.previews = []
        self.spoil = lambda step, loss: loss
        self.open = 0

    def batches(self, first_step):
        self.open += 1
        try:
            for step in range(first_step, 10**6):
                self.steps.append(step)
                generator = torch.Generator().manual_seed(1000 + step)
                yield Batch(torch.randn(8, 3, generator=generator), tuple(f"{step}-{i}.png" for i in range(8)))
        finally:
            self.open -= 1

    def trainables(self):
        return [Trainable("", self.module, self.losses, self.optimization, shard=shard_layers)]

    def losses(self, batch, step):
        error = (self.module(batch.data) - batch.data.sin()).square().mean()
        return self.spoil(step, error), {"error": error.detach()}

    def validate(self, module):
        return {}

    def preview(self, module, folder, step):
        self.previews.append((step, module))


class StopAfter(Stop):
    """Asks to stop once the objective has begun so many steps."""

    def __init__(self, objective, steps):
        super().__init__()
        self.asked = lambda: len(objective.steps) >= steps

    @property
    def reason(self):
        return "SIGTERM" if self.asked() else None


def shard_layers(module, sharding, dtype):
    """Every layer by itself; the last has three rows, fewer than some tests have processes."""
    sharding.apply(module, [module[0], module[2]], dtype)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))


def launch(
    run,
    objective=None,
    *,
    module=None,
    stop=None,
    dtype=torch.float32,
    report=None,
    say=None,
    optimization=None,
    processes=SINGLE_PROCESS,
    sharding=WHOLE,
    **training,
):
    defaults = {"steps": 8, "log_every": 2, "checkpoint_every": 4, "preview_every": 4, "keep": 2}
    objective = objective or Toy()
    objective.module = module or network()
    objective.optimization = optimization or Optimization(learning_rate=0.01, warmup_steps=3, schedule="cosine")
    settings = Training(**{**defaults, **training})
    monitor = Monitor(stop or Stop(), say=say or (lambda _: None))
    context = TrainingContext(
        device=torch.device("cpu"),
        dtype=dtype,
        processes=processes,
        sharding=sharding,
        monitor=monitor,
        report=report or (lambda _: None),
    )
    kind = ShardedCheckpointer if sharding.is_sharded else WholeFileCheckpointer
    checkpointer = kind(
        run, {"width": 16}, processes, keep=settings.keep, keep_every=settings.keep_every, say=monitor.say
    )
    TrainingLoop(objective, run, settings, checkpointer, context).train()


def metrics(run, leave_out=()):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in leave_out} for line in lines]


def files(run):
    newest, tensors = list_checkpoints(run)[-1], {}
    for name in ("ema", "weights", "optimizer"):
        with open_stored(newest, name) as stored:
            tensors[name] = {key: stored.read(key) for key in stored.sizes}
    return tensors


def assert_same_end(run, other):
    assert list_checkpoints(run)[-1].name == list_checkpoints(other)[-1].name
    assert read_state(list_checkpoints(run)[-1]) == read_state(list_checkpoints(other)[-1])
    left, right = files(run), files(other)
    for name in left:
        assert left[name].keys() == right[name].keys()
        unequal = [key for key in left[name] if not torch.equal(left[name][key], right[name][key])]
        assert unequal == [], name
    assert metrics(run, TIMINGS) == metrics(other, TIMINGS)
