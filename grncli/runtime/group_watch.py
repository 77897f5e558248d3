"""Watching processes that run one command together: when one fails, all end, with one sentence.

A thread of each tells a store, which the first process or torchrun holds, that it lives and how far it is. The first
process judges all and the others judge the first. Whoever finds that one has ended, hangs or failed leaves the verdict
in the store and prints it; the rest ends with its exit code, wherever their main threads are.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import torch.distributed as dist

from grncli.runtime import group_faults
from grncli.runtime.errors import GrnError
from grncli.runtime.group_faults import Fault, FaultJudge, ProcessState, Verdict, parse_state, parse_verdict
from grncli.runtime.launch import Launch
from grncli.runtime.stopping import Stop, Stopped

T = TypeVar("T")

JOIN_POLL_SECONDS = 0.1  # between two looks at whether to stop waiting for the others
_PACKAGE = Path(__file__).parents[1]
# Files in whose lines a thread waits for other processes.
_EXCHANGES = ("/torch/distributed/", "/runtime/processes.py", "/training/gradient_averaging.py")
_VERDICT = "verdict"


class GroupWatch:
    """Tells the others of this process, and ends it when one of them has failed.

    Parameters
    ----------
    store : of the group; the watch has a connection of its own
    main : the thread that works
    describe : the sentence and the exit code of an exception
    tell : prints why all end
    end : called with the exit code before the process ends from the watch's thread
    """

    def __init__(
        self,
        launch: Launch,
        store: "dist.Store",  # type: ignore[name-defined]
        main: int,
        describe: Callable[[BaseException], Fault],
        tell: Callable[[Verdict], object],
        end: Callable[[int], object],
    ) -> None:
        self.launch, self.store = launch, store
        self._connection = store.clone()
        self._describe, self._tell, self._end = describe, tell, end
        self._judge = FaultJudge(launch.rank, launch.count)
        self._host, self._pid, self._main = socket.gethostname(), os.getpid(), main
        self._thread = threading.Thread(target=self._watch, name="grn-watch", daemon=True)
        self._guard = threading.Thread(target=self._guard_store, name="grn-guard", daemon=True)
        self._wake, self._settled, self._over = threading.Event(), threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._verdict: Verdict | None = None
        self._fault: Fault | None = None
        self._progress = ""
        self._moves, self._stack = 0, 0
        self._joined: list[int] = []  # ranks of the processes that this one judges, as far as they are there
        self._beat = 0
        self._lost = self._left = self._leaving = self._says = False

    def start(self) -> None:
        """Tell the others that this process is there, and begin to watch; GrnError where another has its number."""
        own = _key(self.launch.rank)
        taken = parse_state(self._connection.compare_set(own, "", self._state().to_json()).decode())
        if (taken.host, taken.pid) != (self._host, self._pid):
            raise GrnError(
                f"{self.launch.address}: process {taken.rank} of another command (pid {taken.pid} on {taken.host}) "
                "has joined there; set MASTER_PORT to another free port for this command"
            )
        self._connection.compare_set(_VERDICT, "", "")
        self._thread.start()
        self._guard.start()

    def note_progress(self, done: int, unit: str) -> None:
        """How far this process is, for a sentence."""
        self._progress = f"{done} {unit}"

    def connection_broke(self) -> None:
        """Tell the others, and wait for the verdict, with which this process ends; returns where there is none."""
        self._lost = True
        self._wake.set()
        self._settled.wait((group_faults.SILENT_LOOKS + group_faults.LOST_LOOKS) * group_faults.LOOK_SECONDS)

    def hand_over(self, error: BaseException) -> int | None:
        """Tell the others how this process fails, and wait until they know.

        Returns
        -------
        The exit code where another process prints why all end; None where this one is to explain the error.
        """
        with self._lock:
            if self._fault is None:
                self._fault = self._describe(error)
        self._wake.set()
        self._settled.wait((group_faults.SILENT_LOOKS + group_faults.STOP_LOOKS) * group_faults.LOOK_SECONDS)
        if self._verdict is None:
            # All stop together, and the first process says so.
            return self._fault.code if self._fault.stopped and self.launch.rank else None
        return None if self._is_own(self._verdict) else self._verdict.code

    def leave(self) -> None:
        """Work ended well: return once the others no longer need this process."""
        self._leaving = True
        self._wake.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            self._look_until_over()
        except RuntimeError:  # of which those of torch.distributed are some
            self._store_is_gone(self._judge.end_of(0))
        finally:
            self._over.set()

    def _look_until_over(self) -> None:
        while True:
            verdict, states = self._exchange()
            found = self._judge.look(states)
            says = False
            if verdict is None and found is not None:
                found = replace(found, by=self.launch.rank)
                verdict = parse_verdict(self._connection.compare_set(_VERDICT, "", found.to_json()).decode())
                says = verdict == found
            if verdict is not None:
                self._conclude(verdict, says=says)
                return
            if self._left and (self.launch.rank or self._judge.all_left(group_faults.SILENT_LOOKS)):
                return
            self._wake.wait(group_faults.LOOK_SECONDS / (4 if self._leaving else 1))
            self._wake.clear()

    def _exchange(self) -> tuple[Verdict | None, dict[int, ProcessState]]:
        """Tell how this process is, and hear the verdict, if there is one, and how those are that it judges."""
        self._left = self._left or self._leaving
        own, connection = self._state(), self._connection
        connection.set(_key(own.rank), own.to_json())
        judged = [0] if own.rank else range(1, self.launch.count)
        if len(self._joined) < len(judged):
            self._joined += [r for r in judged if r not in self._joined and connection.check([_key(r)])]
        verdict, *texts = connection.multi_get([_VERDICT, *map(_key, self._joined)])
        states = {rank: parse_state(text.decode()) for rank, text in zip(self._joined, texts, strict=True)}
        return parse_verdict(verdict.decode()) if verdict else None, {**states, own.rank: own}

    def _state(self) -> ProcessState:
        self._beat += 1
        stack, place, waits = _where(self._main)
        self._moves += stack != self._stack
        self._stack = stack
        return ProcessState(
            rank=self.launch.rank,
            host=self._host,
            pid=self._pid,
            beat=self._beat,
            progress=self._progress,
            place=place,
            moves=self._moves,
            cpu=time.process_time(),
            waits=waits,
            lost=self._lost,
            left=self._left,
            deputy=self._judge.deputy(),
            fault=self._fault,
        )

    def _guard_store(self) -> None:
        """A store whose process is stopped does not answer, and what asks it waits without end."""
        beat, looks = 0, 0
        while not self._over.wait(group_faults.LOOK_SECONDS):
            looks = looks + 1 if self._beat == beat else 0
            beat = self._beat
            if looks >= group_faults.SILENT_LOOKS:
                self._store_is_gone(self._judge.silence_of([0], looks))
                return

    def _store_is_gone(self, verdict: Verdict) -> None:
        if self._left:
            return
        if self.launch.hosted:
            # The processes may stop by themselves, as they notice that torchrun has ended.
            for _ in range(4 * group_faults.SILENT_LOOKS):
                if self._leaving or self._fault is not None:
                    self._settled.set()
                    return
                self._over.wait(group_faults.LOOK_SECONDS / 4)
            verdict = Verdict(
                f"nothing answers at {self.launch.address}, where torchrun tells the {self.launch.count} processes of "
                f"each other: it was killed, or its machine is gone; {group_faults.AGAIN}"
            )
        says = self.launch.rank == self._judge.deputy_of_first()
        self._conclude(verdict, says=says, store_is_there=False)

    def _conclude(self, verdict: Verdict, *, says: bool, store_is_there: bool = True) -> None:
        """End the process, unless its main thread waits in `hand_over` to do that."""
        with self._lock:
            if self._verdict is not None:
                return
            self._verdict = verdict
            fails = self._fault is not None
        self._says = says
        if says and not self._is_own(verdict):
            self._tell(verdict)
        self._left = True
        if store_is_there:
            with suppress(RuntimeError):
                self._wait_until_known()
        self._settled.set()
        if not fails:
            self._end(verdict.code)
            os._exit(verdict.code)

    def _wait_until_known(self) -> None:
        """The store of the first process is there until the others have seen the verdict."""
        for _ in range(1 if self.launch.rank else 4 * group_faults.LOST_LOOKS):
            self._judge.look(self._exchange()[1])
            if self._judge.all_left(group_faults.LOST_LOOKS):
                return
            self._over.wait(group_faults.LOOK_SECONDS / 4)

    def _is_own(self, verdict: Verdict) -> bool:
        """Whether the verdict is how this process fails, which its main thread explains."""
        return self._says and self._fault is not None and verdict.text == self._fault.text


@contextmanager
def watched(
    launch: Launch,
    stop: Stop,
    describe: Callable[[BaseException], Fault],
    tell: Callable[[Verdict], object],
    end: Callable[[int], object],
) -> Iterator[GroupWatch]:
    """Connect to the processes that were started together, and watch each other for the time of a block.

    Parameters
    ----------
    describe, tell, end : as for `GroupWatch`

    Raises
    ------
    Stopped
        If ``stop`` asked for it before this process was connected.
    GrnError
        If it cannot connect.
    """

    main = threading.get_ident()

    def connect() -> GroupWatch:
        assert launch.address is not None
        place = urlsplit(launch.address)
        assert place.hostname is not None
        assert place.port is not None
        wait = timedelta(seconds=group_faults.JOIN_LOOKS * group_faults.LOOK_SECONDS)
        holds = launch.rank == 0 and not launch.hosted
        server = dist.TCPStore(  # type: ignore[attr-defined]
            place.hostname, place.port, launch.count, holds, wait, wait_for_workers=False, multi_tenant=True
        )
        # The store that torchrun holds outlives the processes that it starts anew.
        store = dist.PrefixStore(f"grn-{launch.attempt}", server)  # type: ignore[attr-defined]
        watch = GroupWatch(launch, store, main, describe, tell, end)
        watch.start()
        return watch

    try:
        watch = wait_for(connect, launch, stop, more=group_faults.STOP_LOOKS)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise GrnError(
            f"the {launch.count} processes could not connect at {launch.address} ({text[:160]}); start all of them, "
            "and set MASTER_ADDR and MASTER_PORT to a free port of the first one's machine where this is another"
        ) from error
    try:
        yield watch
    except BaseException as error:
        watch.hand_over(error)
        raise
    watch.leave()


def wait_for(call: Callable[[], T], launch: Launch, stop: Stop, *, more: float = 0.0) -> T:
    """The result of a call in a thread: PyTorch waits for the others for long and handles no signal meanwhile.

    Parameters
    ----------
    more : looks to wait still once ``stop`` says so

    Raises
    ------
    Stopped
        If the call did not return in time.
    """
    results: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failed.append(error)

    joining = threading.Thread(target=run, name="grn-join", daemon=True)
    joining.start()
    while joining.is_alive():
        joining.join(JOIN_POLL_SECONDS)
        if joining.is_alive() and stop.reason:
            joining.join(more * group_faults.LOOK_SECONDS)
            if joining.is_alive():
                raise Stopped(f"{stop.reason}: stopped before all {launch.count} processes had joined")
    if failed:
        raise failed[0]
    return results[0]


def _key(rank: int) -> str:
    return f"process-{rank}"


def _where(thread: int) -> tuple[int, str, bool]:
    """Of a thread: a number that changes as it moves, its file and line in this package, and whether it waits."""
    frame = sys._current_frames().get(thread)
    waits = frame is not None and any(part in Path(frame.f_code.co_filename).as_posix() for part in _EXCHANGES)
    steps, place = [], ""
    while frame is not None:
        steps.append((id(frame.f_code), frame.f_lasti))
        file = Path(frame.f_code.co_filename)
        if not place and file.is_relative_to(_PACKAGE):
            place = f"{file.relative_to(_PACKAGE.parent).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back
    return hash(tuple(steps)), place or "a library", waits
