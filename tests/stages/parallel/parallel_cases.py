"""Small trainings that processes share, and the program that one of them runs: several trainings, one start."""

import gc
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # this and the next are imported late otherwise, by each process
import torch.distributed.fsdp

import grncli
import grncli.calls.training_calls
from grncli.costs import trials
from grncli.runtime.group_faults import Fault
from grncli.runtime.group_watch import watched
from grncli.runtime.launch import read_launch
from grncli.runtime.processes import SINGLE_PROCESS, Processes, joined
from grncli.runtime.stopping import Stop
from grncli.training import loop, sharding

TIMEOUT = 900  # seconds, on a busy machine
CLASSES = """\
kind: generator
network: {prediction: ind, depth: 3, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 8, validation: 3}
optimization: {learning_rate: 1e-3, ema: [0.6, 0.3]}
training: {steps: 3, log_every: 1, checkpoint_every: 3, validate_every: 2, dtype: float32}
preview: {per_class: 2, steps: 2}
"""
TEXT = """\
kind: generator
network: {type: text_transformer, depth: 2, width: 16, heads: 2, key_value_heads: 1, hidden: 16}
data: {type: packed, tokens: 40, sequences: 8, window: 32, validation: 3}
refinement: {condition_dropout: 0.2, shift: area, tokens_power: 0.5}
optimization: {learning_rate: 1e-3, ema: 0.6}
training: {steps: 3, log_every: 1, checkpoint_every: 3, validate_every: 2, dtype: float32}
preview: {per_class: 2, steps: 2, prompts: [one 0]}
text:
  image: {prefix: <T2I>}
"""
TOKENIZER = """\
kind: tokenizer
network: {channels: 4, encoder_width: 8, decoder_width: 8, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}
rounds: 2
bit_errors: 0.1
data:
  image: {size: 16, batch: 4}
  clip: {size: 16, batch: 4, frames: 3}
  workers: 0
  validation: 1
losses: {gan: {weight: 0.5, start: 1}}
discriminator: {width: 8, layers: 1}
optimization: {learning_rate: 1e-3, ema: 0.6}
training: {steps: 4, log_every: 1, checkpoint_every: 4, preview_every: 4, validate_every: 2, dtype: float32}
"""
# What is trained, by the name of its case: the recipe, and what is changed in it.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "classes": ("classes", ("optimization.gradient_accumulation=2",)),
    # Also with a parameter that has no elements.
    "bfloat16": (
        "classes",
        ("training.dtype=bfloat16", "training.activation_checkpointing=true", "network.in_context_tokens=0"),
    ),
    "begun": ("classes", ()),
    "packed": ("text", ()),
    "one-a-sequence": (
        "text",
        ("data.tokens=16", "network.attention=text-only", "training.activation_checkpointing=true"),
    ),
    "tokenizer": ("tokenizer", ()),
}
# How so many processes train what; a run that begins in one way and resumes in another has both.
PLANS = {
    2: {
        "classes": ["ddp", "fsdp"],
        "bfloat16": ["fsdp"],
        "begun": ["ddp", "fsdp"],
        "packed": ["fsdp", "ddp-then-fsdp"],
        "one-a-sequence": ["fsdp"],
        "tokenizer": ["ddp", "fsdp"],
    },
    4: {"classes": ["ddp", "fsdp", "hsdp"], "packed": ["fsdp"], "tokenizer": ["hsdp"]},
}


def train(
    folder: Path, case: str, out: Path, processes: Processes = SINGLE_PROCESS, overrides: Sequence[str] = ()
) -> None:
    """Train what a case says on the data of ``folder``."""
    recipe, changes = CASES[case]
    options: dict[str, Any] = {"overrides": [*changes, *overrides], "device": "cpu", "processes": processes}
    if recipe == "tokenizer":
        grncli.train_tokenizer(folder / "tokenizer.yaml", folder / "media", out, **options)
        return
    options["tokenizer"] = folder / "tok"
    if case == "begun":  # from the run that one process has of the same recipe
        options |= {"start": folder / "one-classes", "ema": "keep"}
    if recipe == "text":
        options["text"] = folder / "features.zarr"
    store = folder / ("texts.zarr" if recipe == "text" else "classes.zarr")
    grncli.train_generator(folder / f"{recipe}.yaml", store, out, **options)


def run_program(program: str | Path, *arguments: object) -> None:
    """Run a Python program, which must end well."""
    command = [sys.executable, str(program), *map(str, arguments)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # of each process, of which there are more than cores
    done = subprocess.run(command, env=one_thread, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr


def fork_together(count: int, work: Callable[..., None], *arguments: object) -> None:
    """Let so many processes work that were started together; they are forked, as importing PyTorch takes seconds."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])

    def become(rank: int) -> None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
        os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        work(*arguments)

    gc.freeze()  # or each process would copy what it looks through
    fork = multiprocessing.get_context("fork")
    together = [fork.Process(target=become, args=(rank,)) for rank in range(count)]
    for process in together:
        process.start()
    for process in together:
        process.join()
    if any(process.exitcode for process in together):
        sys.exit(f"of {count} processes one failed")


@contextmanager
def meeting() -> Iterator[Processes]:
    """Join the processes that were started together, for the time of a block."""
    launch, stop = read_launch(os.environ), Stop()
    if launch.count == 1:
        yield SINGLE_PROCESS
        return
    with (
        watched(launch, stop, lambda error: Fault(str(error), 1), print, print) as watch,
        joined(launch, torch.device("cpu"), stop, watch) as processes,
    ):
        yield processes


def train_all(folder: Path, out: Path, plan: dict[str, list[str]]) -> None:
    """Train the cases of ``plan`` in all the ways that it names, into ``out/WAY-CASE``.

    How many numbers of the state this process has goes into a file beside each, what a training in two shards would
    take into ``out/costs-RANK``, and what threads of the connection are left at the end into ``out/threads-RANK``.
    """
    with meeting() as processes:
        sharding.machine_name = lambda: f"node{processes.rank // 2}"
        make_states, made = loop.make_states, []
        loop.make_states = lambda *arguments: made.append(make_states(*arguments)) or made[-1]
        for case, ways in plan.items():
            for way in ways:
                run = out / f"{way}-{case}"
                *before, last = way.split("-then-")
                for each in before:
                    train(folder, case, run, processes, [f"training.parallel={each}", "training.steps=2"])
                train(folder, case, run, processes, [f"training.parallel={last}"])
                tensors = [tensor for named in made[-1][0].tensors().values() for tensor in named.values()]
                kept = sum(sharding.local(tensor).numel() for tensor in tensors)
                run.with_name(f"{run.name}-{processes.rank}.json").write_text(json.dumps(kept))
                made.clear()
        loop.make_states = make_states
        if processes.count == 2:
            options = {"overrides": {"training.parallel": "fsdp"}, "device": "cpu", "processes": processes}
            data = folder / "classes.yaml", folder / "classes.zarr", out / "dry"
            costs = grncli.estimate_costs(grncli.train_generator, *data, **options)
            (out / f"costs-{processes.rank}").write_text(json.dumps(costs.to_json()))
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    (out / f"threads-{processes.rank}").write_text(" ".join(name for name in threads if "gloo" in name))


def main(folder: Path) -> None:
    """Train all plans, each into ``of-COUNT`` in the folder."""
    trials.TRIAL_SECONDS = 0.1
    for count, plan in PLANS.items():
        fork_together(count, train_all, folder, folder / f"of-{count}", plan)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
