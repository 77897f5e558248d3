"""Which of several processes has failed, as the first one judges from what they tell."""

from dataclasses import replace

import pytest

from grncli.runtime.group_faults import (
    JOIN_LOOKS,
    LOST_LOOKS,
    SILENT_LOOKS,
    STOP_LOOKS,
    STUCK_LOOKS,
    Fault,
    FaultJudge,
    ProcessState,
    Verdict,
    parse_state,
    parse_verdict,
)

COUNT = 3


def look(judge, states, times=1, **changes):
    """So many looks at processes that live; ``changes`` of one, such as ``_2={"lost": True}``; the last verdict."""
    for _ in range(times):
        for rank, state in states.items():
            states[rank] = replace(state, **{"beat": state.beat + 1, **changes.get(f"_{rank}", {})})
        verdict = judge.look(states)
        if verdict is not None:
            return verdict
    return None


@pytest.fixture
def states():
    return {
        rank: ProcessState(rank=rank, host=f"node{rank // 2}", pid=100 + rank, progress="7 steps", place="a.py:1")
        for rank in range(COUNT)
    }


@pytest.fixture
def judge():
    return FaultJudge(0, COUNT)


def silence(states, rank):
    return {f"_{rank}": {"beat": states[rank].beat}}


def test_what_is_told_comes_through(states):
    state = replace(states[1], fault=Fault("ümläut", 1, True))
    assert parse_state(state.to_json()) == state
    assert parse_verdict(Verdict("x\n", 75).to_json()) == Verdict("x\n", 75)


def test_processes_that_live_are_left_alone(judge, states):
    for step in range(100):
        assert look(judge, states, 50, _1={"progress": f"{step} steps"}) is None


def test_a_silent_process_is_named(judge, states):
    look(judge, states)
    quiet = silence(states, 1)
    assert look(judge, states, SILENT_LOOKS - 1, **quiet) is None
    verdict = look(judge, states, 1, **quiet)
    assert verdict.code == 1
    assert verdict.text.startswith("process 1 of 3 (pid 101 on node0) told nothing for 40 s, after 7 steps: ")


def test_a_broken_connection_is_evidence_of_an_end(judge, states):
    look(judge, states)
    verdict = look(judge, states, LOST_LOOKS, _0={"lost": True}, **silence(states, 2))
    assert verdict.text.startswith("process 2 of 3 (pid 102 on node1) ended without a message after 7 steps: ")


def test_a_machine_that_is_gone_takes_several_processes(judge, states):
    look(judge, states)
    verdict = look(judge, states, SILENT_LOOKS, **silence(states, 1), **silence(states, 2))
    assert verdict.text.startswith("process 1 of 3 (pid 101 on node0) and process 2 of 3 (pid 102 on node1) told")


def test_a_process_that_has_left_may_be_silent(judge, states):
    look(judge, states)
    assert look(judge, states, SILENT_LOOKS * 2, _2={"left": True, "beat": 5}) is None
    assert not judge.all_left(SILENT_LOOKS)
    assert look(judge, states, 1, _1={"left": True}) is None
    assert judge.all_left(SILENT_LOOKS)


def test_a_fault_of_one_process_ends_all_with_its_code(judge, states):
    states[2] = replace(states[2], fault=Fault("x is y", 2))
    assert look(judge, states, 10) == Verdict("process 2 of 3 (pid 102 on node1): x is y", 2)


def test_the_first_process_speaks_for_those_that_fail_alike(judge, states):
    states[2] = replace(states[2], fault=Fault("x is y", 2))
    assert look(judge, states) is None
    states[0] = replace(states[0], fault=Fault("x is y", 2))
    assert look(judge, states) == Verdict("x is y", 2)


def test_a_fault_counts_more_than_a_stop_which_may_be_about_to_come_to_all(judge, states):
    states[1] = replace(states[1], fault=Fault("SIGTERM", 75, stopped=True))
    assert look(judge, states, STOP_LOOKS) is None
    assert look(judge, states).code == 75
    other = FaultJudge(0, COUNT)
    states[2] = replace(states[2], fault=Fault("x is y", 1))
    assert look(other, states, 10).code == 1


def test_who_has_not_joined_is_named(judge, states):
    present = {rank: states[rank] for rank in (0, 2)}
    assert look(judge, present, JOIN_LOOKS - 1) is None
    assert look(judge, present).text.startswith("process 1 of 3 did not join within 10 minutes; ")


def test_a_process_for_which_the_others_wait_is_named_after_half_an_hour(judge, states):
    waiting = {f"_{rank}": {"place": "b.py:7", "waits": True, "cpu": 1e9} for rank in (0, 2)}
    assert look(judge, states, STUCK_LOOKS, **waiting) is None
    verdict = look(judge, states, 1, **waiting)
    assert verdict.text.startswith("process 1 of 3 (pid 101 on node0) has been in a.py:1 for 30 minutes, after 7 steps")


def test_where_none_is_known_to_wait_the_one_elsewhere_is_named(judge, states):
    assert look(judge, states, 2 * STUCK_LOOKS, _2={"place": "b.py:7"}).text.startswith("process 2 of 3 ")


@pytest.mark.parametrize("sign", ["moves", "cpu", "progress"])
def test_a_long_phase_of_one_process_is_no_hang(judge, states, sign):
    """In two minutes it is seen elsewhere 40 times, or computes 12 seconds; or it gets further every 16 minutes."""
    for part in range(120):
        told = {"moves": part * 40, "cpu": part * 12.0, "progress": f"{part // 8} steps"}[sign]
        assert look(judge, states, 120, _0={"waits": True}, _2={"waits": True}, _1={sign: told}) is None


def test_a_thread_that_polls_is_no_further(judge, states):
    changes = {"_1": {"moves": 0}}
    for minute in range(40):
        changes["_1"]["moves"] += minute % 4 == 0
        verdict = look(judge, states, 60, _0={"waits": True}, _2={"waits": True}, **changes)
    assert verdict.text.startswith("process 1 of 3 ")


def test_a_process_of_another_machine_speaks_when_the_first_is_gone(judge, states):
    look(judge, states)
    assert judge.deputy() == 2
    heir = FaultJudge(2, COUNT)
    look(heir, {0: replace(states[0], deputy=2), 2: states[2]})
    assert heir.deputy_of_first() == 2
    assert heir.end_of(0).text.startswith("process 0 of 3 (pid 100 on node0) ended without a message after 7 steps")


def test_the_others_judge_the_first_process_only(states):
    other = FaultJudge(1, COUNT)
    mine = {0: states[0], 1: replace(states[1], fault=Fault("x", 1))}
    assert look(other, mine, 10) is None
    assert look(other, mine, SILENT_LOOKS + 1, _0={"beat": 0}).text.startswith("process 0 of 3 ")
