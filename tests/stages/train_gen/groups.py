"""Several processes of ``grn train-gen`` as a launcher starts them, whose watches look more often than a second."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Imports what a training needs once, and forks a process of grn for each line of standard input. Its watch looks every
# LOOK_SECONDS. The Python code in "patch" runs before the command, with ``rank``, ``loop`` and ``group_faults``.
NURSERY = """
import gc, json, os, sys
import grncli.calls.training_calls, torch._dynamo
from grncli.cli import main
from grncli.runtime import group_faults
from grncli.runtime.stopping import watch_signals
from grncli.training import loop

def become(order):
    os.environ.update(order["environment"])
    for number in (1, 2):
        os.dup2(os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    watch_signals()
    group_faults.LOOK_SECONDS = 0.15
    exec(order["patch"], {"rank": int(os.environ.get("RANK", "0")), "loop": loop, "group_faults": group_faults})
    sys.argv = ["grn", *order["arguments"]]
    main()

gc.freeze()  # or each process would copy what it looks through
for line in sys.stdin:
    order = json.loads(line)
    if "poll" in order:
        pid, status = os.waitpid(order["poll"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    elif not (answer := os.fork()):
        become(order)
    print(json.dumps(answer), flush=True)
"""

# Each step takes a while, and the keys of a batch are logged.
SLOW = """
import json, os, time
optimize = loop.optimize
def slow(states, batch, step, steps, context):
    with open(os.environ["GROUP_KEYS"], "a") as file:
        print(json.dumps([step, list(batch.keys)]), file=file, flush=True)
    time.sleep(PAUSE)
    return optimize(states, batch, step, steps, context)
loop.optimize = slow
"""


def slow_steps(pause: float) -> str:
    """A patch: steps of at least so many seconds, whose samples are written to ``keys-RANK``."""
    return SLOW.replace("PAUSE", str(pause))


class Member:
    """One of several processes."""

    def __init__(self, nursery: "Nursery", pid: int, output: Path) -> None:
        self.pid, self.output = pid, output
        self._nursery, self._code = nursery, None

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._code is None:
            self._code = self._nursery.order(poll=self.pid)
        return self._code

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """Starts processes of grn that need not import PyTorch, which takes seconds."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", NURSERY]
        quiet = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}  # as grn sets it for several
        self._process = subprocess.Popen(command, env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, **order: object) -> Any:
        """What it answers."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, arguments: Iterable[object], output: Path, environment: dict[str, str], patch: str = "") -> Member:
        """A process of grn, whose output goes to a file."""
        texts = list(map(str, arguments))
        pid = self.order(arguments=texts, output=str(output), environment=environment, patch=patch)
        return Member(self, pid, output)

    def close(self) -> None:
        """End it; the processes that it started have ended."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


class Group:
    """Processes that a launcher started together.

    Attributes
    ----------
    members : by rank
    folder : where their ``keys-RANK`` and ``output-RANK`` are
    """

    def __init__(self, members: list[Member], folder: Path) -> None:
        self.members, self.folder = members, folder

    def ended(self) -> tuple[list[int], list[str]]:
        """Wait for all; their exit codes, and the lines of all on standard error but those of progress."""
        wait_until(lambda: all(member.poll() is not None for member in self.members))
        lines = [line for member in self.members for line in member.output.read_text().splitlines()]
        return [member.poll() for member in self.members], [x for x in lines if not x.startswith("train-gen: ")]

    def steps(self, rank: int = 0) -> list[tuple[int, list[str]]]:
        """Steps that a process has begun, with the keys of its samples."""
        file = self.folder / f"keys-{rank}"
        text = file.read_text() if file.exists() else ""
        return [tuple(json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for_step(self, step: int, rank: int = 0) -> None:
        """Until a process has begun a step, counted from 0."""
        wait_until(lambda: any(begun >= step for begun, _ in self.steps(rank)) or self.members[rank].poll() is not None)


def wait_until(holds: Callable[[], bool]) -> None:
    """Until something holds."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def started(
    nursery: Nursery,
    count: int,
    *arguments: object,
    folder: Path,
    patch: str = "",
    only: dict[int, str] | None = None,
    agent: int | None = None,
) -> Iterator[Group]:
    """Start processes; what is still there after the block is killed.

    Parameters
    ----------
    patch, only : Python that each process runs first, and more for some ranks
    agent : port of a store that the launcher holds, as torchrun does; None where the first process is to hold it
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = agent or free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    place["TORCHELASTIC_USE_AGENT_STORE"] = str(agent is not None)
    members = []
    for rank in range(count):
        environment = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_KEYS": str(folder / f"keys-{rank}")}
        code = f"{patch}\n{(only or {}).get(rank, '')}"
        members.append(nursery.start(arguments, folder / f"output-{rank}", environment, code))
    try:
        yield Group(members, folder)
    finally:
        for member in members:
            member.send(signal.SIGKILL)
        wait_until(lambda: all(member.poll() is not None for member in members))
