"""Several processes of which one fails: all end within a while, with one sentence that names it."""

import os
import random
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch.distributed as dist
from groups import Group, Nursery, slow_steps, started, wait_until

from grncli.runs.checkpoint import list_checkpoints

LONG = ["training.steps=100000", "training.checkpoint_every=3", "data.batch=6", "training.validate_every=100000"]
HOST = os.uname().nodename if hasattr(os, "uname") else ""


@pytest.fixture
def training(recipe: Path, store: Path, tmp_path: Path) -> list[object]:
    """A training that does not end by itself."""
    return ["train-gen", recipe, store, "--out", tmp_path / "run", *LONG]


def said(group: Group, *codes: int) -> str:
    """The one line that all processes print, which end with these codes."""
    found, lines = group.ended()
    assert found == list(codes), lines
    (line,) = lines
    return line


def name(group: Group, rank: int) -> str:
    return f"process {rank} of {len(group.members)} (pid {group.members[rank].pid} on {HOST})"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_process_is_named_and_ends_all(nursery: Nursery, training: list, tmp_path: Path, rank: int) -> None:
    with started(nursery, 3, *training, folder=tmp_path, patch=slow_steps(0.02)) as group:
        group.wait_for_step(random.Random(rank).randrange(4, 12))
        group.members[rank].send(signal.SIGKILL)
        line = said(group, *(-9 if each == rank else 1 for each in range(3)))
    assert line.startswith(f"grn: {name(group, rank)} ended without a message after ")
    (step,) = re.findall(r"after (\d+) steps: ", line)
    assert abs(int(step) - group.steps(rank)[-1][0]) < 60
    assert list_checkpoints(tmp_path / "run")


STUCK = """
def stick(states, batch, step, steps, context):
    if step == 4:
        import threading
        threading.Event().wait()
    return run_step(states, batch, step, steps, context)
run_step, loop.optimize = loop.optimize, stick
"""
AWAY = "import time; time.sleep(1000)\n"
SOON = "group_faults.SILENT_LOOKS = group_faults.STUCK_LOOKS = group_faults.JOIN_LOOKS = 30\n"


@pytest.fixture(scope="module")
def waited_for(
    nursery: Nursery, recipe: Path, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Group, list[int], list[str]]]:
    """Groups in which one process is waited for in vain, all at a time: the group, its exit codes, and what it says."""
    place, patch, groups = tmp_path_factory.mktemp("waited-for"), slow_steps(0.02) + SOON, {}
    only: dict[str, dict[int, str]] = {"first stopped": {}, "last stopped": {}, "stuck": {1: STUCK}, "away": {1: AWAY}}
    only["launcher gone"] = {}
    launcher = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ExitStack() as stack:
        for name, more in only.items():
            training = ["train-gen", recipe, store, "--out", place / f"{name} run", *LONG]
            agent = launcher.port if name == "launcher gone" else None
            group = started(nursery, 2, *training, folder=place / name, patch=patch, only=more, agent=agent)
            groups[name] = stack.enter_context(group)
        groups["launcher gone"].wait_for_step(3)
        del launcher
        for rank, name in enumerate(["first stopped", "last stopped"]):
            groups[name].wait_for_step(3)
            groups[name].members[rank].send(signal.SIGSTOP)
            wait_until(lambda: any(member.poll() is not None for member in groups[name].members))  # noqa: B023
            groups[name].members[rank].send(signal.SIGKILL)
        wait_until(lambda: groups["away"].members[0].poll() is not None)
        groups["away"].members[1].send(signal.SIGKILL)
        return {name: (group, *group.ended()) for name, group in groups.items()}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_stopped_is_named(waited_for: dict, rank: int) -> None:
    group, codes, (line,) = waited_for[["first stopped", "last stopped"][rank]]
    assert codes == [-9 if each == rank else 1 for each in range(2)]
    assert line.startswith(f"grn: {name(group, rank)} told nothing for 4 s, after ")


def test_a_process_for_which_the_others_wait_too_long_is_named(waited_for: dict) -> None:
    group, codes, (line,) = waited_for["stuck"]
    assert codes == [1, 1]
    assert line.startswith(f"grn: {name(group, 1)} has been in grncli/training/loop.py:")
    assert "after 4 steps, and the others wait for it" in line


def test_a_process_that_never_comes_is_named(waited_for: dict) -> None:
    _, codes, (line,) = waited_for["away"]
    assert codes == [1, -9]
    assert line.startswith("grn: process 1 of 2 did not join within ")


def test_a_launcher_that_is_gone_ends_all(waited_for: dict) -> None:
    _, codes, (line,) = waited_for["launcher gone"]
    assert codes == [1, 1]
    assert line.startswith("grn: nothing answers at tcp://127.0.0.1:")


# Errors of their own

FULL = """
import errno
def fill(states, batch, step, steps, context):
    if step == 5:
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/cache")
    return run_step(states, batch, step, steps, context)
run_step, loop.optimize = loop.optimize, fill
"""


def test_the_error_of_one_process_is_said_once(nursery: Nursery, training: list, tmp_path: Path) -> None:
    with started(nursery, 2, *training, folder=tmp_path, patch=slow_steps(0), only={1: FULL}) as group:
        line = said(group, 1, 1)
    assert line == f"grn: {name(group, 1)}: /scratch/cache: No space left on device"
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000003"


def test_data_that_one_process_does_not_see_is_its_error(
    nursery: Nursery, recipe: Path, store: Path, tmp_path: Path
) -> None:
    hide = "import os; os.chdir('/')\n"
    training = ["train-gen", recipe, os.path.relpath(store, tmp_path), "--out", "run"]
    patch = f"import os; os.chdir({str(tmp_path)!r})\n"
    with started(nursery, 2, *training, folder=tmp_path, patch=patch, only={1: hide}) as group:
        line = said(group, 1, 1)
    assert line.startswith(f"grn: {name(group, 1)}: ")
    assert "bits.zarr" in line


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["data.batch=7"], 2, "data.batch is 7, expected a multiple of 2"),
        (["--max-time", "soon"], 2, "'soon' is no duration"),
        (["--out", "s3://bucket/run"], 2, "s3://bucket/run: is a URL, expected a path"),
        (["--log-file", "/nowhere/log"], 2, "--log-file /nowhere/log: No such file or directory"),
    ],
    ids=["joined", "before they join", "a URL to write to", "no log"],
)
def test_what_all_processes_refuse_the_first_says(
    nursery: Nursery, training: list, tmp_path: Path, more: list[str], code: int, words: str
) -> None:
    with started(nursery, 2, *training, *more, folder=tmp_path) as group:
        line = said(group, code, code)
    assert line.startswith(f"grn: {words}") or words in line
    assert "process" not in line.split("expected")[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["train-gen", "--bogus"], "No such option: --bogus"), (["train-gem"], "No such command 'train-gem'")],
)
def test_arguments_that_cannot_be_parsed_are_shown_by_the_first(
    nursery: Nursery, tmp_path: Path, arguments: list[str], words: str
) -> None:
    with started(nursery, 2, *arguments, folder=tmp_path) as group:
        assert group.ended()[0] == [2, 2]
    first, second = (member.output.read_text() for member in group.members)
    assert words in first
    assert second == ""


# Signals to one of them

SAVING = """
import os, time
from grncli.training import checkpointer
write = checkpointer.write_checkpoint
def slow_write(run, *rest):
    open(os.environ["GROUP_KEYS"] + "-saving", "w").close()
    time.sleep(1)
    return write(run, *rest)
checkpointer.write_checkpoint = slow_write
"""


def test_a_signal_to_one_process_while_another_saves_stops_all(
    nursery: Nursery, training: list, tmp_path: Path
) -> None:
    with started(nursery, 2, *training, folder=tmp_path, patch=slow_steps(0) + SAVING) as group:
        wait_until((tmp_path / "keys-0-saving").exists)
        group.members[1].send(signal.SIGTERM)
        line = said(group, 75, 75)
    assert "stopped after step 4 of " in line
    assert list_checkpoints(tmp_path / "run")[-1].name == "step-00000004"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_that_joins_stops_all(
    nursery: Nursery, training: list, tmp_path: Path, rank: int
) -> None:
    told = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
    late = "import time; time.sleep(0.5)\n"
    with started(nursery, 2, *training, folder=tmp_path, only={rank: told, 1 - rank: late}) as group:
        line = said(group, 75, 75)
    assert re.search("stopped (before all 2 processes had joined|after step 1 of )", line), line
