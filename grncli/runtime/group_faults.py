"""What several processes tell each other of themselves, and the rules by which one of them has failed.

Time is counted in looks of the process that judges, one a second (``LOOK_SECONDS``), and life by counters: clocks of
machines may differ, and a job that is suspended as a whole and resumed has not failed.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

LOOK_SECONDS = 1.0
SILENT_LOOKS = 40  # after which a process that tells nothing has ended, or is stopped
LOST_LOOKS = 8  # the same once a connection has broken, which is evidence that one has ended
STUCK_LOOKS = 1800  # in which no process gets further, and the one that the others wait for computes little
JOIN_LOOKS = 600  # for all to be there
GATHER_LOOKS = 2  # in which others may fail alike, so that one speaks for all
STOP_LOOKS = 10  # the same for a stop, at which all may be about to end by themselves
NAMED = 3  # processes that a sentence names

AGAIN = "run the same command again"

# What gloo says when a connection ends.
_LOST = re.compile(r"closed by peer|reset by peer|gloo/transport|Broken pipe|remote process exited", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """How a process ended by itself: its sentence, its exit code, and whether it was asked to."""

    text: str
    code: int
    stopped: bool = False


@dataclass(frozen=True)
class Verdict:
    """Why all end, in a sentence that one of them prints, and their exit code; ``by`` is the rank that found it."""

    text: str
    code: int = 1
    by: int = 0

    def to_json(self) -> str:
        """The text that `parse_verdict` reads."""
        return json.dumps(asdict(self))


def parse_verdict(text: str) -> Verdict:
    """What `Verdict.to_json` wrote."""
    return Verdict(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What a process tells of itself at each look.

    Parameters
    ----------
    beat : counts its looks; it lives while this moves
    progress : how far it is, such as "12 steps"; "" before its work begins
    place : file and line of the package in which its main thread is
    moves : looks at which its main thread was elsewhere than at the look before
    cpu : seconds that it has computed
    waits : whether its main thread waits for other processes, as far as can be seen
    lost : whether a connection to another process broke
    left : whether it tells nothing more, as it has ended well or knows why all end
    deputy : the process that speaks when this one is gone
    """

    rank: int
    host: str
    pid: int
    beat: int = 0
    progress: str = ""
    place: str = ""
    moves: int = 0
    cpu: float = 0.0
    waits: bool = False
    lost: bool = False
    left: bool = False
    deputy: int = 1
    fault: Fault | None = None

    def to_json(self) -> str:
        """The text that `parse_state` reads."""
        return json.dumps(asdict(self))

    @property
    def moment(self) -> str:
        """How far it was, for a sentence."""
        return f"after {self.progress}" if self.progress else "at its beginning"


def parse_state(text: str) -> ProcessState:
    """What `ProcessState.to_json` wrote."""
    state = ProcessState(**json.loads(text))
    fault = state.fault
    return replace(state, fault=Fault(**fault) if isinstance(fault, dict) else None)


class FaultJudge:
    """Decides from what the processes tell whether one has failed; asked once a look.

    Parameters
    ----------
    own : rank of the process that judges
    count : number of processes
    """

    def __init__(self, own: int, count: int) -> None:
        self.own, self.count = own, count
        self._looks = 0
        self._states: dict[int, ProcessState] = {}
        self._silent: dict[int, int] = {}  # looks since a process told something
        self._faulty = 0  # looks since a process ended by itself
        self._mark: dict[int, ProcessState] = {}  # when some process last got further
        self._marked = 0  # the look of that

    def look(self, states: Mapping[int, ProcessState]) -> Verdict | None:
        """Why all are to end, or None.

        Parameters
        ----------
        states : by rank, of those that have joined and are judged, and its own
        """
        self._looks += 1
        for rank, state in states.items():
            before = self._states.get(rank)
            moved = before is None or before.beat != state.beat or state.left
            self._silent[rank] = 0 if moved else self._silent[rank] + 1
            self._states[rank] = state
        return self._fault() or self._silence() or self._absence() or self._standstill()

    def all_left(self, patience: int) -> bool:
        """Whether each of the others has left, or has told nothing for so many looks."""
        return all(
            rank in self._states and (self._states[rank].left or self._silent[rank] >= patience)
            for rank in range(self.count)
            if rank != self.own
        )

    def deputy(self) -> int:
        """Who speaks when this process is gone: one on another machine, as this one's may be gone with it."""
        others = [state for rank, state in sorted(self._states.items()) if rank != self.own and not state.left]
        elsewhere = [state for state in others if state.host != self._states[self.own].host]
        return (elsewhere or others)[0].rank if others else 1

    def deputy_of_first(self) -> int:
        """Who speaks when the first process is gone."""
        return self._states[0].deputy if 0 in self._states else 1

    def named(self, rank: int) -> str:
        """A process in a sentence."""
        state = self._states.get(rank)
        return f"process {rank} of {self.count}" + (f" (pid {state.pid} on {state.host})" if state else "")

    def end_of(self, rank: int) -> Verdict:
        """For a process that is known to have ended."""
        state = self._states.get(rank)
        moment = f" {state.moment}" if state else ""
        return Verdict(
            f"{self.named(rank)} ended without a message{moment}: it was killed, its memory ran out, or its machine "
            f"is gone; {AGAIN}"
        )

    def silence_of(self, ranks: Sequence[int], looks: int) -> Verdict:
        """For processes that have told nothing for so long."""
        moment = f", {self._states[ranks[0]].moment}" if ranks[0] in self._states else ""
        return Verdict(
            f"{self._listed(ranks)} told nothing for {_duration(looks)}{moment}: stopped, killed, or on a machine that "
            f"is gone; {AGAIN}"
        )

    def _fault(self) -> Verdict | None:
        faulty = [state for state in self._states.values() if state.fault is not None]
        if self.own != 0 or not faulty:  # the first process decides, which all have
            return None
        first = min(faulty, key=lambda state: (state.fault.stopped, state.rank))  # type: ignore[union-attr]
        fault = first.fault
        assert fault is not None
        if first.rank == self.own:
            return Verdict(fault.text, fault.code)
        self._faulty += 1
        if self._faulty <= (STOP_LOOKS if fault.stopped else GATHER_LOOKS):
            return None
        return Verdict(f"{self.named(first.rank)}: {fault.text}", fault.code)

    def _silence(self) -> Verdict | None:
        lost = any(state.lost for state in self._states.values())
        patience = LOST_LOOKS if lost else SILENT_LOOKS
        silent = sorted(rank for rank, looks in self._silent.items() if looks >= patience)
        if not silent:
            return None
        if lost and len(silent) == 1:
            return self.end_of(silent[0])
        return self.silence_of(silent, patience)

    def _absence(self) -> Verdict | None:
        missing = [rank for rank in range(self.count) if rank not in self._states]
        if self.own != 0 or not missing or self._looks < JOIN_LOOKS:
            return None
        return Verdict(
            f"{self._listed(missing)} did not join within {_duration(JOIN_LOOKS)}; start all of them, and set "
            "MASTER_ADDR and MASTER_PORT to a free port of the first one's machine where this is another"
        )

    def _standstill(self) -> Verdict | None:
        if len(self._states) < self.count or any(state.left for state in self._states.values()):
            return None
        # A thread that polls what never comes is seen elsewhere now and then.
        few = STUCK_LOOKS / 100
        if not self._mark or any(
            state.moves - self._mark[rank].moves > few or state.progress != self._mark[rank].progress
            for rank, state in self._states.items()
        ):
            self._mark, self._marked = dict(self._states), self._looks
        state = self._states[self._stuck()]
        # Who waits for a GPU may compute all the time, and a tight loop may be seen in one place: the others do not
        # count, and this one must rest.
        rests = state.cpu - self._mark[state.rank].cpu < STUCK_LOOKS * LOOK_SECONDS / 20
        if self._looks - self._marked < STUCK_LOOKS or not rests:
            return None
        return Verdict(
            f"{self.named(state.rank)} has been in {state.place} for {_duration(STUCK_LOOKS)}, {state.moment}, and "
            f"the others wait for it; look at what it reads or writes there, and {AGAIN}"
        )

    def _stuck(self) -> int:
        """The process for which the others wait: it does not wait, or is elsewhere than most."""
        places = [state.place for state in self._states.values()]
        return min(self._states.values(), key=lambda state: (state.waits, places.count(state.place), state.rank)).rank

    def _listed(self, ranks: Iterable[int]) -> str:
        names = [self.named(rank) for rank in ranks]
        more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
        *first, last = [*names[:NAMED], *more]
        return f"{', '.join(first)} and {last}" if first else last


def _duration(looks: int) -> str:
    seconds = round(looks * LOOK_SECONDS)
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} minutes"


def is_lost(text: str) -> bool:
    """Whether an error of PyTorch says that the connection to another process ended."""
    return _LOST.search(text) is not None
