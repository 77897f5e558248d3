"""Several processes that train together as Slurm's srun starts them: one result, one stop, and no orphans."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from grncli.runs.checkpoint import list_checkpoints
from grncli.runtime.tensor_files import read_tensors
from grncli.store import Fingerprint, open_part

RECIPE = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4}
optimization: {learning_rate: 1e-3}
training: {log_every: 1, checkpoint_every: 100000, dtype: float32}
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``train-gen`` with a small recipe and the store of eight samples of random bits."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "tiny.yaml").write_text(RECIPE)
    bits = Fingerprint(
        rounds=2, channels=4, stride=(1, 4, 4), tokenizer={"name": "toy", "sha256": "3f9c" * 16}, preprocessing={}
    )
    with open_part(folder / "bits.zarr", bits) as writer:
        planes = np.random.default_rng(0).integers(0, 2, (8, 1, 2, 2, 2, 4), np.uint8)
        records = [{"key": str(row), "source": f"{row}.png"} for row in range(8)]
        writer.append((1, 2, 2), np.packbits(planes, axis=-1), np.full(8, -1), records)
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    return ["train-gen", str(folder / "tiny.yaml"), str(folder / "bits.zarr")]


@pytest.fixture
def job(free_port: int) -> dict[str, str]:
    """The environment of a Slurm step of two tasks on one machine, without the number of the task."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_", "RANK"))}
    slurm = {"JOB_ID": "4711", "STEP_ID": "0", "NTASKS": "2", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "node[07]"}
    named = {f"SLURM_{name}": value for name, value in slurm.items()}
    return {**kept, **named, "MASTER_PORT": str(free_port), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def free_port() -> int:
    """Tests run side by side, and cannot all use the port of one job."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    first: list[str], environment: dict[str, str], second: list[str] | None = None
) -> list["subprocess.Popen[str]"]:
    """Both tasks of a step, with the same arguments where no others are given."""
    return [
        subprocess.Popen(
            [sys.executable, "-m", "grncli", *arguments],
            env=environment | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate([first, second or first])
    ]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def wait_for_port(port: int) -> None:
    """Return once the first task expects the others there."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < end, f"nobody listens at port {port}"
        time.sleep(0.05)


def test_two_tasks_of_srun_do_what_one_process_does(
    arguments: list[str], job: dict[str, str], grn_inside: Callable, tmp_path: Path
) -> None:
    one = grn_inside(*arguments, "training.steps=6", "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    tasks = start([*arguments, "training.steps=6", "--out", str(tmp_path / "two")], job)
    said = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert said[0].startswith("train-gen: ")
    assert "in float32 on cpu, 2 processes" in said[0]
    assert said[1] == ""
    alone, together = (
        read_tensors(list_checkpoints(tmp_path / run)[-1] / "weights.safetensors") for run in ("one", "two")
    )
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-4, rtol=0, msg=name)


def test_a_signal_to_one_task_stops_both_with_everything_saved(
    arguments: list[str], job: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    tasks = start([*arguments, "training.steps=1000000", "--out", str(run)], job)
    wait_for(run / "metrics.jsonl")
    tasks[1].send_signal(signal.SIGUSR1)
    said = [task.communicate(timeout=60)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [75, 75], said
    assert "with everything saved. Run the same command again to resume." in said[0].splitlines()[-1]
    assert said[1] == ""
    (checkpoint,) = list_checkpoints(run)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert checkpoint.name == f"step-{last['step']:08d}"


def test_tasks_whose_launcher_is_killed_save_and_end(arguments: list[str], job: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = (
        "import os, subprocess, sys\n"
        "tasks = [subprocess.Popen([sys.executable, '-m', 'grncli', *sys.argv[1:]],"
        " env=os.environ | {'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank)}) for rank in range(2)]\n"
        "tasks[0].wait()\n"
    )
    command = [sys.executable, "-c", program, *arguments, "training.steps=1000000", "--out", str(run)]
    launcher = subprocess.Popen(command, env=job, stderr=subprocess.PIPE, text=True)
    wait_for(run / "metrics.jsonl")
    launcher.kill()
    said = launcher.communicate(timeout=60)[1]  # which ends with the last of the tasks
    assert "the process that started this one is gone: stopped after step" in said
    assert len(list_checkpoints(run)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130)])
def test_a_signal_ends_a_task_that_waits_for_the_others(
    arguments: list[str], job: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "grncli", *arguments, "--out", str(tmp_path / "run")]
    first = job | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    task = subprocess.Popen(command, env=first, stderr=subprocess.PIPE, text=True)
    wait_for_port(int(job["MASTER_PORT"]))
    task.send_signal(number)
    said = task.communicate(timeout=30)[1]
    assert task.returncode == code
    assert "stopped before all 2 processes had joined. Run the same command again" in said
    assert not (tmp_path / "run").exists()


def test_tasks_with_different_runs_are_refused(arguments: list[str], job: dict[str, str], tmp_path: Path) -> None:
    """A sweep under one srun would train one network from two recipes."""
    tasks = start([*arguments, "--out", str(tmp_path / "a")], job, [*arguments, "--out", str(tmp_path / "b")])
    said = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [2, 2], said
    assert "were started with different recipes, data or --out" in said[0]
    assert not list(tmp_path.iterdir())
