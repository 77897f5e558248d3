"""The jobs of ``recipes/slurm`` under Slurm itself: two nodes on this machine, whose daemons the test starts and ends.

Debian's packages slurmctld, slurmd, slurm-client and munge are enough.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import grncli
from grncli.media.writing import write_png
from grncli.runs.checkpoint import list_checkpoints
from grncli.status.piece_status import PieceStatus

JOBS = Path(__file__).parents[2] / "recipes/slurm"
DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
RECIPE = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4}
training: {steps: 1500, log_every: 50, checkpoint_every: 100000, dtype: float32}
"""
SOURCES, PARTS = 6000, 3
PATIENCE = 600.0  # seconds

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not all(map(shutil.which, (*DAEMONS, "sbatch", "make"))), reason="Slurm is not installed"),
    pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root starts jobs of any user"),
]


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of Slurm's commands, and of the processes they start."""
    host = socket.gethostname()
    folder = Path(tempfile.mkdtemp(prefix="grn-slurm-"))  # a socket's path may not be long
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(3)))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool-n1", "spool-n2", "bin"):
        (folder / name).mkdir()
    (folder / "bin/grn").write_text(f'#!/bin/sh\nexec {sys.executable} -m grncli "$@"\n')
    (folder / "bin/grn").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "MAKE"))}
    environment = kept | {
        "SLURM_CONF": str(configuration),
        "PATH": f"{folder / 'bin'}:{kept['PATH']}",
        "PYTHONPATH": str(JOBS.parents[1]),
        "MASTER_ADDR": "127.0.0.1",  # the names of the nodes are no hosts
    }
    munge = ["munged", "--foreground", "--force", f"--socket={folder / 'munge.sock'}"]
    munge += [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
    commands = [munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    with (folder / "daemons.log").open("wb") as log, ExitStack() as running:
        for command in commands:
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            running.callback(daemon.wait, 60)
            running.callback(daemon.terminate)
            time.sleep(1)
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        time.sleep(2)
    shutil.rmtree(folder)


def call(cluster: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=cluster, cwd=JOBS, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def piece_of(path: Path, part: int = 0) -> PieceStatus | None:
    """What ``grn status`` says of a part or a run; None before there is any."""
    if not any((path / name).exists() for name in ("zarr.json", "recipe.yaml")):
        return None
    return grncli.work_status(path)[0].pieces[part]


@pytest.fixture
def place(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with pictures, a tokenizer of them and a recipe."""
    make_run(tmp_path / "tok", rounds=2)
    noise = np.random.default_rng(0)
    for row in range(SOURCES):
        folder = tmp_path / ("media" if row % 100 else "reference") / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / f"{row:04d}.png", noise.integers(0, 256, (32, 32, 3), np.uint8))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


def test_jobs_that_are_warned_are_queued_again_and_the_last_one_has_its_figures(
    cluster: dict[str, str], place: Path
) -> None:
    out, tokenizing = place / "out", "--labels dirs --batch 1 --workers 1 --device cpu"
    settings = {
        "OUT": out,
        "MEDIA": place / "media",
        "TOKENIZER": place / "tok",
        "REFERENCE": place / "reference",
        "RECIPE": place / "tiny.yaml",
        "PROCESS": "--cpus-per-task=1",
        "MACHINES": "--nodes=2 --ntasks-per-node=1",
        "PARTS": PARTS,
        "SAMPLING_PARTS": 2,
        "PER_CLASS": 3,
        "TOKENIZING": tokenizing,
        "TRAINING": "--device cpu",
        "SAMPLING": "--steps 2 --device cpu",
        "EVALUATION": f"--features {place / 'tok'} --metrics fd --workers 1 --device cpu",
    }
    call(cluster, "make", "-s", *[f"{name}={value}" for name, value in settings.items()])
    jobs = {name: (out / "jobs" / name).read_text().strip() for name in ("tokenize", "train", "sample", "evaluate")}

    # The last task of an array has the array's own number.
    warned = PARTS - 1
    wait_until(lambda: (seen := piece_of(out / "bits.zarr", warned)) and seen.pid and seen.done)
    call(cluster, "scancel", "--signal=USR1", f"{jobs['tokenize']}_{warned}")
    wait_until(lambda: (seen := piece_of(out / "generator")) and seen.pid and seen.state == "running")
    call(cluster, "scancel", "--signal=USR1", jobs["train"])
    wait_until((out / "evaluation.json").exists)

    logs = {path.name: path.read_text() for path in (out / "jobs").glob("*.log")}
    stopped = [name for name, text in logs.items() if "SIGUSR1: stopped after" in text]
    assert sorted(stopped) == [f"tokenize-{jobs['tokenize']}_{warned}.log", f"train-{jobs['train']}.log"]
    restarts = {name: call(cluster, "scontrol", "show", "job", number) for name, number in jobs.items()}
    assert restarts["tokenize"].count("Restarts=1") == 1
    assert restarts["train"].count("Restarts=1") == 1
    assert "2 processes" in logs[f"train-{jobs['train']}.log"]
    assert [int(path.name[-8:]) for path in list_checkpoints(out / "generator")][-1] == 1500
    assert json.loads((out / "evaluation.json").read_text())["samples"]["count"] == 6

    whole = place / "whole.zarr"
    for part in range(PARTS):
        words = ["tokenize", str(place / "media"), str(whole), "--tokenizer", str(place / "tok"), *tokenizing.split()]
        call(cluster, "grn", *words, "--part", f"{part}/{PARTS}")
    assert call(cluster, "diff", "-rq", str(whole), str(out / "bits.zarr")) == ""
