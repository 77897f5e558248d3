"""Toy trainings of several processes: a program that forks them, so that PyTorch is imported once for all of them.

python toy_processes.py FOLDER '[[COUNT, ["NAME", ...]], ...]': so many processes train what is named, in turn.
"""

import contextlib
import itertools
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
import torch._dynamo  # imported late otherwise, by each process
import torch.distributed as dist
from toy_training import StopAfter, Toy, launch, network

from grncli.runtime.errors import GrnError
from grncli.runtime.processes import Processes
from grncli.runtime.stopping import Stopped
from grncli.training import sharded_checkpointer
from grncli.training.objective import Batch
from grncli.training.sharding import Sharding

TIMEOUT = 300  # seconds, on a machine with ten times the work


def run_together(folder, *groups):
    """Let groups (COUNT, NAME, ...) of processes train in ``folder``; by name, what each process of a group told."""
    job = [(count, names) for count, *names in groups]
    command = [sys.executable, __file__, str(folder), json.dumps(job)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # of each process, of which there are more than cores
    done = subprocess.run(command, env=one_thread, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    told = {}
    for name in (name for _, names in job for name in names):
        told[name] = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}.*.json"))]
    return told


def network_with_empty(seed=0):
    module = network(seed)
    module.register_parameter("empty", torch.nn.Parameter(torch.empty(0, 4)))
    return module


class Measured(Toy):
    """Tells when each step began."""

    def __init__(self):
        super().__init__()
        self.times = []

    def batches(self, first_step):
        for step in range(first_step, 10**6):
            self.times.append(time.perf_counter())
            yield Batch(torch.randn(128, 2048), (f"{step}.png",))


def sharding_of(processes, *, machines=1):
    ranks = torch.arange(processes.count).reshape(machines, -1)
    return Sharding(kind="hsdp" if machines > 1 else "fsdp", machines=tuple(map(tuple, ranks.tolist())))


class Trainings:
    """Each method trains into a run below ``folder`` and tells what came of it."""

    def __init__(self, folder, processes):
        self.folder, self.processes = folder, processes

    def train(self, run, *, machines=1, seed=0, module=None, **options):
        launch(
            self.folder / run,
            module=module or network(seed),
            processes=self.processes,
            sharding=sharding_of(self.processes, machines=machines),
            **options,
        )

    def four(self):
        self.train("four", steps=4)

    def copies(self):
        self.train("copies", machines=2, steps=4)
        self.train("copies", machines=2, seed=99)

    def four_resumed(self):
        self.train("four", seed=99)

    def mixed(self):
        self.train("mixed", seed=99)

    def chain_begun(self):
        self.train_three("chain")

    def chain_resumed(self):
        self.train_three("chain", seed=99)

    def train_three(self, run, **options):
        objective = Toy()
        with contextlib.suppress(Stopped):
            self.train(run, objective=objective, stop=StopAfter(objective, 3), **options)

    def empty(self):
        """Of a network that has parameters without elements."""
        self.train("empty", module=network_with_empty(), steps=4)
        self.train("empty", module=network_with_empty(seed=99), steps=5)

    def stopped(self):
        """One process is asked to stop; the error that a training ends with is told."""
        objective = Toy()
        stop = StopAfter(objective, 3) if self.processes.rank == 1 else None
        try:
            self.train("stopped", objective=objective, stop=stop)
        except Stopped as error:
            return str(error)

    def full(self):
        """The disk of one process is full from the second checkpoint on."""
        objective = Toy()

        def spoil(step, loss):
            if step == 3 and self.processes.rank == 1:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
            return loss

        objective.spoil = spoil
        try:
            self.train("full", objective=objective, steps=100, checkpoint_every=2, log_every=1000)
        except GrnError as error:
            return {"error": str(error), "begun": len(objective.steps)}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def apart(self):
        """Each process has a run directory of its own under the name that all were given."""
        folder = self.folder / f"machine-{self.processes.rank}"
        folder.mkdir()
        before, patience = os.getcwd(), sharded_checkpointer.SHARED_SECONDS
        sharded_checkpointer.SHARED_SECONDS = 0.1
        os.chdir(folder)
        try:
            self.folder = Path()
            self.train("run")
        except GrnError as error:
            return str(error)
        finally:
            self.folder, sharded_checkpointer.SHARED_SECONDS = folder.parent, patience
            os.chdir(before)

    def slow(self):
        """Writing ends only after the training has gone on for two steps; never do two saves write at once."""
        objective, write, at_once = Toy(), sharded_checkpointer.write_shard, []

        def write_slowly(folder, *arguments):
            at_once.append(sum(thread.name == "grn-save" for thread in threading.enumerate()))
            saved = int(folder.parent.name.split("-")[1].removesuffix(".partial"))
            end = time.monotonic() + TIMEOUT / 2
            while len(objective.steps) < min(saved + 2, 8):
                assert time.monotonic() < end, "the training did not go on"
                time.sleep(0.001)
            return write(folder, *arguments)

        sharded_checkpointer.write_shard = write_slowly
        try:
            self.train("slow", objective=objective, checkpoint_every=3, keep=9)
        finally:
            sharded_checkpointer.write_shard = write
        return max(at_once)

    def measured(self):
        """Seconds of each step of a network of 34 M weights, which is saved after every eighth step but the first."""
        torch.manual_seed(0)
        layers = torch.nn.Linear(2048, 8192), torch.nn.Tanh(), torch.nn.Linear(8192, 2048)
        objective = Measured()
        launch(
            self.folder / "measured",
            objective,
            module=torch.nn.Sequential(*layers),
            processes=self.processes,
            sharding=sharding_of(self.processes),
            steps=25,
            checkpoint_every=8,
            log_every=100,
            preview_every=100,
        )
        return [after - before for before, after in itertools.pairwise(objective.times)]

    def killed(self):
        """All processes are killed while one has not written its shards of the second checkpoint."""
        write = sharded_checkpointer.write_shard

        def write_once(folder, rank, *arguments):
            if rank == 1 and folder.parent.name != ".step-00000002.partial":
                (self.folder / "writing").touch()
                time.sleep(TIMEOUT)
            return write(folder, rank, *arguments)

        sharded_checkpointer.write_shard = write_once
        self.train("killed", steps=8, checkpoint_every=2)


def train_all(folder, names, meeting, rank, count):
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    trainings = Trainings(folder, Processes(rank, count))
    for name in names:
        told = getattr(trainings, name)()
        (folder / f"{name}.{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def train_group(folder, count, names):
    """Whether so many processes end well; those of ``killed`` are killed once they write."""
    meeting = f"file://{folder}/meeting-{time.monotonic_ns()}"
    fork = multiprocessing.get_context("fork")
    group = [fork.Process(target=train_all, args=(folder, names, meeting, rank, count)) for rank in range(count)]
    for process in group:
        process.start()
    if names == ["killed"]:
        while all(process.is_alive() for process in group) and not (folder / "writing").exists():
            time.sleep(0.01)
        for process in group:
            process.kill()
    for process in group:
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
    codes = [process.exitcode for process in group]
    return codes == [-signal.SIGKILL if names == ["killed"] else 0] * count


if __name__ == "__main__":
    sys.exit(not all(train_group(Path(sys.argv[1]), count, names) for count, names in json.loads(sys.argv[2])))
