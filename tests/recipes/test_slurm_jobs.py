"""The scripts of ``recipes/slurm``: what they ask of Slurm, by stand-ins of its programs, and what they do without."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from grncli.media.writing import write_png
from grncli.store import open_store

JOBS = Path(__file__).parents[2] / "recipes/slurm"
BODIES = ["tokenize.sh", "train.sh", "sample.sh", "evaluate.sh"]
# Each stand-in notes its name and arguments, and the task that it was called for.
NOTE = 'echo "$(basename "$0") $*" >>"$CALLS"\n'
STAND_INS = {
    "sbatch": NOTE + 'expr 100 + "$(grep -c ^sbatch "$CALLS")"',
    "squeue": NOTE + 'cat "$QUEUE" 2>/dev/null',
    "scontrol": NOTE,
    "srun": NOTE + 'exec "$@"',
}
RECIPE = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4}
training: {steps: 2, dtype: float32}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def write_programs(folder: Path, programs: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, body in programs.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program in the folder of the jobs, where ``grn`` and no Slurm is there."""
    write_programs(tmp_path / "bin", {"grn": f'exec {sys.executable} -m grncli "$@"'})
    for name in ("bash", "env", "make", "seq", "cat", "mkdir", "mv", "rm", "basename", "expr", "grep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RANK", "MAKE"))}
    fixed = {"CALLS": str(tmp_path / "calls"), "QUEUE": str(tmp_path / "queue"), "PATH": str(tmp_path / "bin")}

    def call(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
        settings = {name: str(value) for name, value in environment.items()}
        words = list(map(str, arguments))
        return subprocess.run(
            words, cwd=JOBS, env=kept | fixed | settings, capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture
def slurm(tmp_path: Path, run: Run) -> Run:
    """As ``run``, with stand-ins of Slurm's programs."""
    write_programs(tmp_path / "bin", STAND_INS)
    return run


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize("script", sorted(path.name for path in JOBS.glob("*.sh")))
def test_a_script_is_sound(script: str) -> None:
    checked = subprocess.run(["bash", "-n", JOBS / script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", JOBS / script], capture_output=True, text=True, check=False)
        assert found.stdout == ""
    assert os.access(JOBS / script, os.X_OK)


@pytest.mark.parametrize("body", BODIES)
def test_a_job_is_warned_kept_and_queued_again_by_its_own_lines(body: str) -> None:
    options = " ".join(line for line in (JOBS / body).read_text().splitlines() if line.startswith("#SBATCH"))
    for option in ("--time=", "--signal=USR1@", "--requeue", "--open-mode=append"):
        assert option in options
    assert "--signal=USR1@B" not in options  # which would tell the shell, and not grn


# Submitting


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, Path]:
    places = {"OUT": "out", "MEDIA": "media", "TOKENIZER": "tok", "REFERENCE": "reference"}
    return {name: tmp_path / folder for name, folder in places.items()}


def make(run: Run, shared: Mapping[str, Path], *more: str) -> subprocess.CompletedProcess[str]:
    return run("make", "-s", *[f"{name}={path}" for name, path in shared.items()], *more)


def test_jobs_wait_for_one_another_and_are_submitted_once(
    slurm: Run, shared: dict[str, Path], calls: Callable[[], list[str]], tmp_path: Path
) -> None:
    done = make(slurm, shared, "PARTS=3", "PROCESS=--cpus-per-task=2", "MACHINES=--nodes=2")
    assert done.returncode == 0, done.stderr
    submitted = [line.split() for line in calls() if line.startswith("sbatch")]
    assert [words[-1] for words in submitted] == BODIES
    waits = [next((w for w in words if w.startswith("--dependency")), None) for words in submitted]
    assert waits == [None, *(f"--dependency=afterok:{number}" for number in (101, 102, 103))]
    assert "--array=0-2" in submitted[0]
    assert "--array=0-15" in submitted[2]
    assert "--nodes=2" in submitted[1]
    assert not any(word.startswith("--array") for word in submitted[1])
    assert all("--cpus-per-task=2" in words for words in submitted)

    (tmp_path / "queue").write_text("a job\n")
    again = make(slurm, shared)
    assert "train: job 102 is queued or runs" in again.stdout
    assert len([line for line in calls() if line.startswith("sbatch")]) == 4


def test_after_a_failure_only_what_is_not_complete_is_submitted(
    slurm: Run, shared: dict[str, Path], calls: Callable[[], list[str]]
) -> None:
    make(slurm, shared)
    (shared["OUT"] / "bits.zarr").mkdir()
    (shared["OUT"] / "bits.zarr/COMPLETE").touch()
    before = len(calls())
    done = make(slurm, shared)
    submitted = [line.split() for line in calls()[before:] if line.startswith("sbatch")]
    assert [words[-1] for words in submitted] == BODIES[1:]
    assert not any(word.startswith("--dependency") for word in submitted[0])
    assert "tokenize: " in done.stdout
    assert "is there" in done.stdout


@pytest.mark.parametrize("value", ["", "relative/media"])
def test_a_path_that_jobs_could_not_find_is_refused_before_anything_is_submitted(
    slurm: Run, shared: dict[str, Path], value: str, tmp_path: Path
) -> None:
    done = make(slurm, shared, f"MEDIA={value}")
    assert done.returncode != 0
    assert f"MEDIA is '{value}', expected an absolute path" in done.stderr
    assert not (tmp_path / "calls").exists()


# Stopped early

STEP = {"SLURM_JOB_ID": 4711, "SLURM_CPUS_PER_TASK": 3}
ARRAY = {"SLURM_ARRAY_JOB_ID": 4711, "SLURM_ARRAY_TASK_ID": 5}


def exiting(code: int) -> list[str]:
    return ["./requeue.sh", "bash", "-c", f"exit {code}"]


@pytest.mark.parametrize(
    ("environment", "job"),
    [(STEP, "4711"), ({**STEP, **ARRAY}, "4711_5"), ({**STEP, "SLURM_RESTART_COUNT": 6}, "4711")],
)
def test_a_job_that_stopped_early_is_queued_again(
    slurm: Run, calls: Callable[[], list[str]], environment: dict[str, int], job: str
) -> None:
    done = slurm(*exiting(75), **environment, ATTEMPTS=7)
    assert done.returncode == 75
    assert calls() == ["srun bash -c exit 75", f"scontrol requeue {job}"]


def test_a_job_is_queued_again_so_often_only(slurm: Run, calls: Callable[[], list[str]]) -> None:
    done = slurm(*exiting(75), **STEP, SLURM_RESTART_COUNT=7, ATTEMPTS=7)
    assert (done.returncode, len(calls())) == (75, 1)
    assert "after 7 attempts; raise ATTEMPTS" in done.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_a_job_that_ended_is_not_queued_again(slurm: Run, calls: Callable[[], list[str]], code: int) -> None:
    assert slurm(*exiting(code), **STEP).returncode == code
    assert len(calls()) == 1


def test_processes_get_the_cores_that_the_job_asked_for(slurm: Run) -> None:
    cores = slurm("./requeue.sh", "bash", "-c", "echo $SRUN_CPUS_PER_TASK $OMP_NUM_THREADS", **STEP, OMP_NUM_THREADS="")
    assert cores.stdout == "3 3\n"


# The bodies


@pytest.fixture
def prepared(shared: dict[str, Path], make_run: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Pictures, a tokenizer and options by which the four jobs take seconds."""
    make_run(shared["TOKENIZER"], rounds=2)
    for folder in ("MEDIA", "REFERENCE"):
        for row in range(9):
            place = shared[folder] / "abc"[row % 3]
            place.mkdir(parents=True, exist_ok=True)
            write_png(place / f"{row}.png", np.random.default_rng(row).integers(0, 256, (16, 16, 3), np.uint8))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    quick = {"RECIPE": tmp_path / "tiny.yaml", "PER_CLASS": 2, "PARTS": 2, "SAMPLING_PARTS": 1}
    quick |= {"TOKENIZING": "--labels dirs --workers 1", "SAMPLING": "--steps 2"}
    quick |= {"EVALUATION": f"--features {shared['TOKENIZER']} --metrics fd --workers 1"}
    return [f"{name}={value}" for name, value in quick.items()]


def test_without_slurm_the_jobs_run_one_after_the_other(run: Run, shared: dict[str, Path], prepared: list[str]) -> None:
    done = make(run, shared, *prepared)
    assert done.returncode == 0, done.stderr
    out = shared["OUT"]
    store = open_store(out / "bits.zarr")
    assert (store.complete, [part.samples for part in store.parts]) == (True, [5, 4])
    assert len(open_store(out / "samples.zarr")) == 6
    assert json.loads((out / "evaluation.json").read_text())["samples"]["count"] == 6
    again = make(run, shared, *prepared)
    assert again.stdout.count("is there") == 4
