"""Several processes that were killed: the same command resumes on any number, and no sample is repeated or lost."""

import os
import random
import signal
from pathlib import Path

import torch
from groups import Group, Nursery, slow_steps, started
from small_training import succeed

from grncli.runs.checkpoint import list_checkpoints
from grncli.runtime.tensor_files import read_tensors

SETTINGS = ["training.steps=24", "training.checkpoint_every=4", "data.batch=6", "training.validate_every=24"]


def keys_by_step(group: Group) -> dict[int, list[str]]:
    """The samples of each step that all processes have begun."""
    told = [dict(group.steps(rank)) for rank in range(len(group.members))]
    return {step: sorted(key for each in told for key in each[step]) for step in set.intersection(*map(set, told))}


def test_a_run_killed_at_random_steps_sees_each_sample_as_if_it_had_not_been(
    nursery: Nursery, recipe: Path, store: Path, tmp_path: Path
) -> None:
    command = ["train-gen", recipe, store, *SETTINGS, "--out"]
    with started(nursery, 1, *command, tmp_path / "whole", folder=tmp_path / "whole-log", patch=slow_steps(0)) as group:
        assert group.ended()[0] == [0]
    wanted = keys_by_step(group)
    assert sorted(wanted) == list(range(24))
    dice, run, saved = random.Random(18), tmp_path / "run", 0
    for part, count in enumerate([3, 2]):
        with started(nursery, count, *command, run, folder=tmp_path / f"log-{part}", patch=slow_steps(0.05)) as group:
            group.wait_for_step(saved + dice.randrange(5, 10))
            group.members[dice.randrange(count)].send(signal.SIGKILL)
            assert sorted(group.ended()[0])[0] == -signal.SIGKILL
        seen = keys_by_step(group)
        assert min(seen) == saved
        assert seen == {step: wanted[step] for step in range(saved, max(seen) + 1)}
        assert int(list_checkpoints(run)[-1].name.removeprefix("step-")) > saved
        saved = int(list_checkpoints(run)[-1].name.removeprefix("step-"))
    with started(nursery, 3, *command, run, folder=tmp_path / "log-2", patch=slow_steps(0)) as group:
        assert group.ended()[0] == [0, 0, 0]
    assert keys_by_step(group) == {step: wanted[step] for step in range(saved, 24)}
    whole, parts = (read_tensors(each / "checkpoints/latest/weights.safetensors") for each in (tmp_path / "whole", run))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=0, msg=name)


def test_what_does_not_divide_by_the_new_number_is_refused_once(
    nursery: Nursery, recipe: Path, store: Path, tmp_path: Path
) -> None:
    succeed(recipe, store, "--out", tmp_path / "run")
    command = ["train-gen", recipe, store, "training.steps=4", "--out", tmp_path / "run"]
    before = sorted((tmp_path / "run").rglob("*"))
    with started(nursery, 3, *command, folder=tmp_path / "three") as group:
        codes, (line,) = group.ended()
    assert codes == [2, 2, 2]
    assert line.startswith("grn: data.batch is 4, expected a multiple of 3: 3 processes times ")
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_second_job_on_a_run_is_refused_once(nursery: Nursery, recipe: Path, store: Path, tmp_path: Path) -> None:
    command = ["train-gen", recipe, store, "--out", tmp_path / "run", "training.steps=100000"]
    with started(nursery, 1, *command, folder=tmp_path / "first", patch=slow_steps(0.1)) as first:
        first.wait_for_step(1)
        with started(nursery, 2, *command, folder=tmp_path / "second") as second:
            codes, (line,) = second.ended()
        step = first.steps()[-1][0]
        first.wait_for_step(step + 2)
    assert codes == [1, 1]
    holder = f"process {first.members[0].pid} on {os.uname().nodename}"
    assert line == f"grn: {tmp_path}/run is being trained by {holder}; wait until it has ended, or stop it first"


LOCKLESS = """
import errno, fcntl
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = refuse
from grncli.runtime import lease
lease.RENEW_SECONDS, lease.STALE_SECONDS = 0.2, 2.0
"""


def test_on_a_file_system_without_locks_a_second_job_is_refused_and_a_killed_one_resumed(
    nursery: Nursery, recipe: Path, store: Path, tmp_path: Path
) -> None:
    command = ["train-gen", recipe, store, "--out", tmp_path / "run", "training.checkpoint_every=2"]
    endless = "training.steps=100000"
    with started(nursery, 1, *command, endless, folder=tmp_path / "first", patch=LOCKLESS + slow_steps(0.1)) as first:
        first.wait_for_step(3)
        with started(nursery, 1, *command, endless, folder=tmp_path / "second", patch=LOCKLESS) as second:
            codes, (line,) = second.ended()
        assert codes == [1]
        assert f"is being trained by process {first.members[0].pid} on " in line
        first.members[0].send(signal.SIGKILL)
    done = int(list_checkpoints(tmp_path / "run")[-1].name.removeprefix("step-"))
    again = [*command, f"training.steps={done + 2}"]
    with started(nursery, 1, *again, folder=tmp_path / "third", patch=LOCKLESS + slow_steps(0)) as third:
        assert third.ended()[0] == [0]
    assert [step for step, _ in third.steps()] == [done, done + 1]
