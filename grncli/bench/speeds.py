"""What a benchmark finds: limits of the machine, stages beside them, and the line that says it in short."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limit:
    """What the machine does at best.

    Attributes
    ----------
    rates : in every round of the benchmark, bytes or operations a second
    """

    name: str
    unit: str
    scale: float  # of the unit
    rates: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Median of all rounds, in the unit; NaN where it was never measured."""
        return statistics.median(self.rates) / self.scale if self.rates else float("nan")


@dataclass(frozen=True, kw_only=True)
class StageSpeed:
    """How fast a stage is.

    Attributes
    ----------
    subject : what is worked on, and how much at a time
    dtype : number format of the network, None where there is none
    value, unit : the rate
    share : of the limit ``of`` that it reaches, each round compared with the limit in the same round
    expected : the share that it reaches on the machine it was tuned on
    waiting : share of the time spent waiting for data, None where nothing is waited for
    spent : where the time goes: share of each kind of operation, the largest first; only below ``expected``
    """

    name: str
    subject: str
    dtype: str | None = None
    value: float
    unit: str
    share: float
    of: str
    expected: float
    waiting: float | None = None
    spent: Mapping[str, float] | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it reaches less than it should."""
        return self.share < self.expected


@dataclass(frozen=True)
class MachineSpeeds:
    """All that was measured.

    Attributes
    ----------
    machine : processor, system and versions
    gains : for each stage that runs in both number formats, its speed in bfloat16 in units of that in float32
    skipped : what was not measured, and why
    load : processes that wanted to run in the minute before, of other programs therefore; 0 where that is not known
    """

    machine: Mapping[str, Any]
    limits: Sequence[Limit]
    stages: Sequence[StageSpeed]
    gains: Mapping[str, float]
    skipped: Sequence[str]
    seconds: float
    load: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        limits = [{"name": each.name, "value": each.value, "unit": each.unit} for each in self.limits]
        return {
            "machine": dict(self.machine),
            "limits": limits,
            "stages": [asdict(stage) for stage in self.stages],
            "bfloat16_gains": dict(self.gains),
            "skipped": list(self.skipped),
            "seconds": self.seconds,
            "load": self.load,
            "line": self.line(),
        }

    def line(self) -> str:
        """The whole benchmark in one line, to paste into an issue."""
        limits = ", ".join(f"{each.name} {figure(each.value)} {each.unit}" for each in self.limits)
        parts = [", ".join(map(str, self.machine.values())), limits]
        for stage in self.stages:
            dtype = f" {stage.dtype}" if stage.dtype else ""
            parts.append(f"{stage.name}{dtype} {figure(stage.value)} {stage.unit} ({stage.share:.0%})")
        return " | ".join(parts)


def figure(value: float) -> str:
    """A rate with three digits, and no exponent from 1 to a billion."""
    return f"{value:.0f}" if 99.95 <= abs(value) < 1e9 else f"{value:.3g}"
