"""Watches of several processes: who prints the verdict. Each is a thread here, with a stand-in for its process."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

from grncli.runtime import group_faults, group_watch
from grncli.runtime.errors import GrnError
from grncli.runtime.group_faults import Fault, Verdict
from grncli.runtime.group_watch import GroupWatch
from grncli.runtime.launch import Launch


class Member:
    """What stands for a process: it ends when its watch calls ``os._exit``, and says what it is told to print."""

    def __init__(self, server: dist.TCPStore, rank: int, count: int) -> None:
        self.said: list[Verdict] = []
        self.code: int | None = None
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
        launch = Launch(rank, count, address="tcp://127.0.0.1", by="torchrun", hosted=True)
        self.watch = GroupWatch(launch, store, threading.get_ident(), describe, self.said.append, self.end)

    def end(self, code: int) -> None:
        self.code = code


def describe(error: BaseException) -> Fault:
    return Fault(str(error), 1)


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Member]]:
    monkeypatch.setattr(group_faults, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(group_faults, "SILENT_LOOKS", 20)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    there = [Member(server, rank, 3) for rank in range(3)]
    yield there
    for member in reversed(there):  # or they would miss the server, and end this process
        if member.watch._thread.is_alive():
            member.watch.leave()
    del server


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_of_those_who_find_the_first_process_silent_says_so(members: list[Member]) -> None:
    """The first told of itself once, and looks no more; torchrun holds the store."""
    first, *others = members
    state = first.watch._state()
    first.watch._connection.set(group_watch._key(0), state.to_json())
    for member in others:
        member.watch.start()
    wait_until(lambda: all(member.code == 1 for member in others))
    (verdict,) = [verdict for member in others for verdict in member.said]
    assert verdict.text.startswith(f"process 0 of 3 (pid {os.getpid()} on ")


def test_processes_that_end_well_wait_for_each_other_and_say_nothing(members: list[Member]) -> None:
    for member in members:
        member.watch.start()
    leaving = threading.Thread(target=members[0].watch.leave)
    leaving.start()
    leaving.join(0.3)
    assert leaving.is_alive(), "the others may need it"
    for member in members[1:]:
        member.watch.leave()
    leaving.join(60)
    assert not leaving.is_alive()
    assert [(member.code, member.said) for member in members] == [(None, [])] * 3


def test_an_error_is_explained_by_one_process(members: list[Member]) -> None:
    for member in members:
        member.watch.start()
    assert members[2].watch.hand_over(ValueError("x is y")) == 1
    wait_until(lambda: members[0].code == members[1].code == 1)
    assert [len(member.said) for member in members] == [1, 0, 0]
    assert members[0].said[0].text.endswith(": x is y")
    assert members[2].code is None, "its main thread ends it"


def test_a_process_whose_number_is_taken_is_refused(members: list[Member]) -> None:
    members[1].watch.start()
    stranger = members[2].watch
    stranger.launch, stranger._pid = members[1].watch.launch, os.getpid() + 1
    with pytest.raises(GrnError, match=r"process 1 of another command .* has joined there; set MASTER_PORT"):
        stranger.start()
