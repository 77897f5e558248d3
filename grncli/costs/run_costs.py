"""What a run of a command would take, as ``--dry-run`` tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Units of work that were done on trial, and the seconds they took; more than 0 of both.

    Attributes
    ----------
    first, start : units that were done before these, and the seconds until then: starting and warming up
    """

    unit: str
    done: float
    seconds: float
    first: float = 0.0
    start: float = 0.0

    def seconds_for(self, units: float) -> float:
        """How long so many units take from the start on."""
        return self.start + max(0.0, units - self.first) * self.seconds / self.done


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """The most bytes of memory in use at a time, by what was tried; None where the system does not say.

    Attributes
    ----------
    process : main memory of one process of the command
    device : memory of its GPU, None where it computes elsewhere
    decoders, decoder : decoding processes beside each, and the main memory of the largest of them
    processes : that run the command together, each with its own memory
    """

    process: int | None
    device: int | None = None
    decoders: int = 0
    decoder: int | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Bytes that are written, those that are free where they go, and that place; None for what is not known."""

    written: int | None
    free: int
    place: str


@dataclass(frozen=True, kw_only=True)
class RunCosts:
    """What a run would take; nothing of it was kept.

    Attributes
    ----------
    counts : what there is to do by its name: sources, samples, windows, tokens, ...
    seconds : of all that is left to do, by the rate measured; None where nothing could be measured
    rates : what was measured, one for each kind of work
    details : what only some commands have, JSON-ready
    notes : in sentences, what the figures leave out or what is doubtful
    """

    command: str
    counts: Mapping[str, int]
    seconds: float | None
    rates: Sequence[Rate]
    memory: MemoryUse
    disk: DiskNeed | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not known."""
        return {
            "command": self.command,
            "counts": dict(self.counts),
            "seconds": self.seconds,
            "rates": [asdict(rate) for rate in self.rates],
            "memory": asdict(self.memory),
            "disk": None if self.disk is None else asdict(self.disk),
            **self.details,
            "notes": list(self.notes),
        }
