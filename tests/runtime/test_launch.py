"""How a process was started: alone, by torchrun or by srun; what the environment says is checked."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.runtime.errors import UsageError
from grncli.runtime.launch import Launch, first_host, read_launch, read_part, require_one_process

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[01-03,07],gpu4",
    "SLURM_JOB_NODELIST": "other[1-9]",
}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def without(*names, **changes):
    return {name: value for name, value in {**STEP, **changes}.items() if name not in names}


def test_a_plain_process_is_alone():
    assert read_launch({}) == Launch()


def test_torchrun_names_its_processes():
    found = read_launch({**TORCHRUN, "TORCHELASTIC_RUN_ID": "x"})
    assert (found.rank, found.count, found.local_rank, found.by) == (2, 4, 0, "torchrun")
    assert (found.address, found.hosted) == ("tcp://node1:29500", False)
    again = read_launch({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "3"})
    assert (again.hosted, again.attempt) == (True, 3)


def test_a_step_of_srun_names_its_tasks_and_where_they_meet():
    found = read_launch(STEP)
    assert (found.rank, found.count, found.local_rank, found.by) == (5, 8, 1, "srun")
    assert found.address == f"tcp://node01:{12_000 + 4711}"


def test_the_tasks_of_one_machine_need_no_name_service():
    assert read_launch({**STEP, "SLURM_STEP_NODELIST": "node07"}).address.startswith("tcp://127.0.0.1:")


def test_steps_side_by_side_meet_at_other_ports():
    assert read_launch(STEP).address != read_launch({**STEP, "SLURM_STEP_ID": "1"}).address


def test_the_meeting_place_can_be_said():
    assert read_launch({**STEP, "MASTER_ADDR": "head", "MASTER_PORT": "1234"}).address == "tcp://head:1234"
    assert read_launch({**STEP, "MASTER_ADDR": "fe80::1", "MASTER_PORT": "1234"}).address == "tcp://[fe80::1]:1234"


@pytest.mark.parametrize(
    "environment",
    [
        without("SLURM_STEP_ID", SLURM_PROCID="0"),  # the script of sbatch, the shell of salloc
        {**STEP, "SLURM_STEP_ID": str(0xFFFFFFFA)},  # an interactive step
        {**STEP, "SLURM_STEP_ID": "batch"},
        {**STEP, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # a task of an array, alone
        {**STEP, "SLURM_STEP_NUM_TASKS": "1"},  # one task in an allocation of eight
        {**STEP, "RANK": "0", "WORLD_SIZE": "1"},  # told to be alone
    ],
)
def test_what_is_no_step_of_several_tasks_is_alone(environment):
    assert read_launch(environment) == Launch()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({**STEP, "SLURM_PROCID": "8"}, "SLURM_PROCID is '8', expected a whole number from 0 to 7"),
        ({**STEP, "SLURM_PROCID": "-1"}, "SLURM_PROCID is '-1'"),
        (without("SLURM_PROCID"), "SLURM_PROCID is missing"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS is 'many'"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "٣"}, "expected a whole number"),
        ({**STEP, "SLURM_STEP_NODELIST": "node["}, r"SLURM_STEP_NODELIST: 'node\[' is no list of hosts"),
        (without("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"), "set MASTER_ADDR"),
        ({**STEP, "MASTER_PORT": "0"}, "MASTER_PORT is '0'"),
        ({**STEP, "MASTER_PORT": "99999"}, "MASTER_PORT is '99999'"),
        ({**STEP, "MASTER_ADDR": "a b/c"}, "MASTER_ADDR is 'a b/c'"),
        ({**TORCHRUN, "RANK": "4"}, "RANK is '4', expected a whole number from 0 to 3"),
        ({"RANK": "0"}, "WORLD_SIZE is missing"),
        ({"WORLD_SIZE": "4"}, "RANK is missing"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "MASTER_ADDR is missing"),
        ({**TORCHRUN, "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(environment, words):
    with pytest.raises(UsageError, match=words):
        read_launch(environment)


@given(st.dictionaries(st.sampled_from([*STEP, *TORCHRUN]), st.text("0123456789node[]-,.:٣ \n", max_size=12)))
def test_any_environment_is_understood_or_refused(environment):
    with contextlib.suppress(UsageError):
        found = read_launch(environment)
        assert 0 <= found.rank < found.count


# Node lists


@pytest.mark.parametrize(
    ("nodes", "host", "alone"),
    [
        ("gpu4", "gpu4", True),
        ("node[01-03,07],gpu4", "node01", False),
        ("node[7]", "node7", True),
        ("node1,node2", "node1", False),
        ("rack[2-3]n[04-09]", "rack2n04", False),
        ("n[1,3]-ib.cluster", "n1-ib.cluster", False),
    ],
)
def test_the_first_host_of_a_node_list(nodes, host, alone):
    assert first_host(nodes) == (host, alone)


@pytest.mark.parametrize("nodes", ["", ",", "node[", "node[]", "node[a-b]", "node[1-]", "[[1]]", "../x", "a b"])
def test_what_is_no_node_list_is_refused(nodes):
    with pytest.raises(ValueError, match="is no list of hosts"):
        first_host(nodes)


# Work that is not shared


def test_tasks_that_would_all_do_the_whole_work_are_refused():
    with pytest.raises(UsageError, match=r"srun started 8 processes.* --part auto"):
        require_one_process(read_launch(STEP), part_of="0/1")
    with pytest.raises(UsageError, match="start one process"):
        require_one_process(read_launch(STEP))


def test_tasks_with_a_part_each_are_welcome():
    require_one_process(read_launch(STEP), part_of="5/8")
    require_one_process(Launch(), part_of="0/1")


# --part auto

ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "10"}
ARRAY |= {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_STEP": "3", "SLURM_JOB_ID": "4712"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (ARRAY, (2, 4)),
        ({**ARRAY, **without("SLURM_STEP_ID")}, (2, 4)),  # the batch script itself
        ({**ARRAY, **STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (2, 4)),
        ({**ARRAY, **STEP}, (2 * 8 + 5, 4 * 8)),
        ({**ARRAY, **TORCHRUN}, (2 * 4 + 2, 4 * 4)),
        (
            {name: value for name, value in ARRAY.items() if "STEP" not in name} | {"SLURM_ARRAY_TASK_COUNT": "10"},
            (6, 10),
        ),
        (STEP, (5, 8)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (0, 1)),
        (TORCHRUN, (2, 4)),
        ({**TORCHRUN, "GROUP_WORLD_SIZE": "1"}, (2, 4)),
        ({**TORCHRUN, **STEP, "RANK": "9", "WORLD_SIZE": "16", "GROUP_WORLD_SIZE": "8"}, (9, 16)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
    ],
)
def test_a_process_knows_its_part(environment, part):
    assert read_part(environment) == part


def test_the_processes_of_all_tasks_of_an_array_share_the_work_without_gaps():
    array = {**ARRAY, "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "6"}
    every = [
        read_part({**array, **STEP, "SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_PROCID": rank})
        for task in "036"
        for rank in "01234567"
    ]
    assert every == [(part, 24) for part in range(24)]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "neither SLURM_ARRAY_TASK_ID nor variables of srun or torchrun are set"),
        (without("SLURM_STEP_ID"), "neither SLURM_ARRAY_TASK_ID"),  # the script of a batch job that is no array
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "8"}, "this one is 8, and 1 to 10 in steps of 3 are 4; .*--array=0-3"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "13"}, "this one is 13"),
        # Only some parts, once more
        ({**ARRAY, "SLURM_ARRAY_TASK_COUNT": "2"}, "the array has 2 tasks.*or some of n as --part"),
        ({**ARRAY, "SLURM_ARRAY_TASK_MAX": "x"}, "SLURM_ARRAY_TASK_MAX is 'x'"),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "SLURM_ARRAY_TASK_MIN is missing"),
        ({**STEP, **TORCHRUN, "GROUP_WORLD_SIZE": "1"}, "srun started 8 tasks, each with a torchrun"),
        ({**STEP, "SLURM_PROCID": "8"}, "SLURM_PROCID is '8'"),
    ],
)
def test_a_part_that_cannot_be_told_is_refused(environment, words):
    with pytest.raises(UsageError, match=words):
        read_part(environment)


@given(st.dictionaries(st.sampled_from([*STEP, *TORCHRUN, *ARRAY]), st.text("0123456789x", max_size=3)))
def test_any_environment_gives_a_part_or_is_refused(environment):
    with contextlib.suppress(UsageError):
        part, parts = read_part(environment)
        assert 0 <= part < parts
