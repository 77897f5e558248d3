"""What runs logged while they trained, as curves: one panel for each quantity, one line for each run."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from grncli.media.selection import evenly_spread
from grncli.runs.metrics_log import METRICS, read_metrics
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.text import printable

Over = Literal["step", "time"]
Numbers = NDArray[np.float64]

RATIOS = 4  # moments of a single run whose accuracy by ratio is drawn
LARGEST = 1e100  # beyond, a logged number is none that was measured
LOGARITHMIC = 10.0  # from this ratio of largest to smallest on, a loss has a logarithmic axis
_TENTH = re.compile(r"accuracy_0\.\d")
_TIMES = ((3 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


@dataclass(frozen=True)
class Quantity:
    """What a panel shows.

    Attributes
    ----------
    training, validation : names of the numbers in the log, on what is trained on and on what is held out
    factor : from the logged number to the unit
    """

    title: str
    unit: str
    training: str | None
    validation: str | None = None
    factor: float = 1.0


QUANTITIES: Mapping[str, tuple[Quantity, ...]] = {
    "loss": (Quantity("Loss", "", "loss", "validation_loss"),),
    "accuracy": (Quantity("Accuracy", "%", "accuracy", "validation_accuracy", 100),),
    "ratio": (),  # see `_ratio_panel`
    "psnr": (
        Quantity("PSNR of pictures", "dB", "image_psnr", "validation_image_psnr"),
        Quantity("PSNR of clips", "dB", "clip_psnr", "validation_clip_psnr"),
    ),
    "ssim": (
        Quantity("SSIM of pictures", "1 is identical", None, "validation_image_ssim"),
        Quantity("SSIM of clips", "1 is identical", None, "validation_clip_ssim"),
    ),
    "rate": (Quantity("Learning rate", "per step", "learning_rate"),),
    "speed": (Quantity("Speed", "steps/s", "speed"),),
    "waiting": (Quantity("Waiting", "% of time", "waiting_share", None, 100),),
    "gradient": (Quantity("Gradient norm", "L2, before clipping", "gradient_norm"),),
}
DEFAULT = tuple(name for name in QUANTITIES if name != "gradient")


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes
    ----------
    run : which of the runs, from 0
    held_out : whether it was measured on what is held out
    age : 0 for what is newest, up to 1 for the oldest of several moments of one run
    label : what tells it apart from the other lines of its run, "" where nothing has to
    """

    run: int
    x: Numbers
    y: Numbers
    held_out: bool = False
    age: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of axes; ``logarithmic`` is meant of the vertical one."""

    name: str
    title: str
    unit: str
    x_label: str
    lines: list[Line]
    logarithmic: bool = False

    @property
    def heading(self) -> str:
        """Title and unit."""
        notes = [*filter(None, [self.unit]), *(["log"] if self.logarithmic else [])]
        return f"{self.title} ({', '.join(notes)})" if notes else self.title

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """Smallest and largest x, then y, of what is finite."""
        x, y = (np.concatenate([getattr(line, axis) for line in self.lines]) for axis in "xy")
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())


@dataclass(frozen=True)
class Curves:
    """The result of `read_curves`: names of the runs, as short as they differ, and the panels."""

    names: list[str]
    panels: list[Panel]

    @property
    def held_out(self) -> bool:
        """Whether any line was measured on what is held out."""
        return any(line.held_out for panel in self.panels for line in panel.lines)

    @property
    def description(self) -> str:
        """One sentence for readers who cannot see a drawing: what is in it, and where each line ends."""
        parts = []
        for panel in self.panels:
            ends = [f"{self.names[line.run]} ends at {line.y[-1]:.4g}" for line in panel.lines if not line.age]
            parts.append(f"{panel.heading}: {', '.join(ends)}")
        return f"Training curves of {', '.join(self.names)}. {'; '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": "curves",
            "runs": self.names,
            "panels": [
                {
                    "name": panel.name,
                    "title": panel.title,
                    "unit": panel.unit,
                    "x": panel.x_label,
                    "lines": [
                        {
                            "run": self.names[line.run],
                            "held_out": line.held_out,
                            **({"label": line.label} if line.label else {}),
                            "x": line.x.tolist(),
                            "y": line.y.tolist(),
                        }
                        for line in panel.lines
                    ],
                }
                for panel in self.panels
            ],
        }


def read_curves(runs: Sequence[Path], *, metrics: Sequence[str] | None = None, over: Over = "step") -> Curves:
    """The curves of one run or several, from their logs; runs that are still being trained too.

    Parameters
    ----------
    runs : run directories
    metrics : names of `QUANTITIES`, or of any number that a log holds; None takes what people look at first
    over : what is across: the step, or the time spent training

    Raises
    ------
    CheckpointError
        If a run has no log, or a damaged one; if no log holds anything to draw.
    UsageError
        If no log holds a metric that was named.
    """
    logs = [_read(run) for run in runs]
    generators = ["accuracy" in log for log in logs]
    x_label, scale = "step", 1.0
    if over == "time":
        longest = max(float(log["time"][0].max(initial=0)) for log in logs)
        scale, unit = next((scale, unit) for least, scale, unit in _TIMES if longest >= least)
        x_label = f"{unit} of training"
    panels = []
    for name in dict.fromkeys(metrics or DEFAULT):
        found = []
        if name == "ratio":
            found = _ratio_panel(logs)
        else:
            for quantity in QUANTITIES.get(name, (Quantity(name.replace("_", " "), "as logged", name),)):
                lines = _lines(logs, quantity, scale if over == "time" else None)
                for each, drawn in _by_meaning(name, quantity, lines, generators):
                    found.append(_panel(name, each, x_label, drawn))
        if metrics is not None and not found:
            raise UsageError(f"--metrics {name}: {_has_none(runs)}; expected some of {', '.join(_known(logs))}")
        panels += found
    if not panels:
        raise CheckpointError(
            f"{runs[0] / METRICS}: holds none of the numbers that panels show; choose other runs, or --metrics"
        )
    return Curves(_short_names(runs), panels)


def _has_none(runs: Sequence[Path]) -> str:
    return f"{runs[0]} logged no such number" if len(runs) == 1 else "none of the runs logged such a number"


def _known(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that ``metrics`` may have for these logs."""
    logged = sorted({number for log in logs for number in log if number not in ("time", "speed")})
    groups = [
        name
        for name, quantities in QUANTITIES.items()
        if any({quantity.training, quantity.validation} & {*logged, "speed"} for quantity in quantities)
    ]
    ratio = ["ratio"] if "accuracy_0.0" in logged else []
    return list(dict.fromkeys([*groups, *ratio, *logged]))


Log = dict[str, tuple[Numbers, Numbers]]
"""Steps and values of each number; ``time`` has the seconds of training at each step, ``speed`` steps a second."""


def _read(run: Path) -> Log:
    if not (run / METRICS).is_file():
        found = f"{run}: holds no {METRICS}" if run.exists() else f"{run} does not exist"
        raise CheckpointError(f"{found}, expected the directory of a run of grn train-tokenizer or grn train-gen")
    columns: dict[str, list[tuple[float, float]]] = {}
    seconds, before = 0.0, 0
    for line in read_metrics(run / METRICS):
        step, spent = line["step"], line.get("seconds")
        numbers = {name: value for name, value in line.items() if name not in ("step", "seconds")}
        if isinstance(spent, int | float) and 0 < spent < LARGEST:
            seconds += spent
            numbers |= {"speed": (step - before) / spent}
            before = step
        numbers |= {"time": seconds}
        for name, value in numbers.items():
            if isinstance(value, int | float) and abs(value) < LARGEST:
                columns.setdefault(name, []).append((step, value))
    if not columns:
        raise CheckpointError(f"{run / METRICS}: holds no line yet, expected one after training.log_every steps; wait")
    return {
        name: (np.array([s for s, _ in rows], float), np.array([v for _, v in rows], float))
        for name, rows in columns.items()
    }


def _lines(logs: Sequence[Log], quantity: Quantity, seconds: float | None) -> list[Line]:
    """A line for each run that logged the quantity; ``seconds`` is how many a unit of time has, None for steps."""
    lines = []
    for place, log in enumerate(logs):
        for number in (quantity.training, quantity.validation):
            if number is None or number not in log:
                continue
            steps, values = log[number]
            x = steps if seconds is None else np.interp(steps, *log["time"]) / seconds
            lines.append(Line(place, x, values * quantity.factor, held_out=number == quantity.validation))
    return lines


def _by_meaning(
    name: str, quantity: Quantity, lines: list[Line], generators: Sequence[bool]
) -> list[tuple[Quantity, list[Line]]]:
    """The lines of each panel: losses of generators and of tokenizers do not compare."""
    if name != "loss":
        return [(quantity, lines)] if lines else []
    by_kind = [[line for line in lines if generators[line.run] == kind] for kind in (False, True)]
    # Eq. 7 is a natural logarithm; a tokenizer's loss adds terms of different kinds by their weights.
    meanings = [replace(quantity, unit="weighted sum"), replace(quantity, title="Cross entropy", unit="nats")]
    return [(meaning, drawn) for meaning, drawn in zip(meanings, by_kind, strict=True) if drawn]


def _panel(name: str, quantity: Quantity, x_label: str, lines: list[Line]) -> Panel:
    values = np.concatenate([line.y for line in lines])
    logarithmic = name == "loss" and values.min() > 0 and values.max() > LOGARITHMIC * values.min()
    return Panel(name, quantity.title, quantity.unit, x_label, lines, logarithmic)


def _ratio_panel(logs: Sequence[Log]) -> list[Panel]:
    """Right predictions by the share of true tokens that they saw: a few moments of one run, the last of several."""
    lines = []
    for place, log in enumerate(logs):
        tenths = {float(name.removeprefix("accuracy_")): log[name] for name in log if _TENTH.fullmatch(name)}
        if not tenths:
            continue
        steps = np.unique(np.concatenate([steps for steps, _ in tenths.values()]))
        chosen = [steps[i] for i in evenly_spread(RATIOS, len(steps))] if len(logs) == 1 else [steps[-1]]
        for rank, step in enumerate(chosen):
            at = [
                (tenth, float(values[steps == step][0]))
                for tenth, (steps, values) in sorted(tenths.items())
                if step in steps
            ]
            # A tenth is drawn at its middle.
            x, y = np.array([100 * tenth + 5 for tenth, _ in at]), np.array([100 * share for _, share in at])
            age = (len(chosen) - 1 - rank) / max(1, len(chosen) - 1)
            lines.append(Line(place, x, y, age=age, label=f"step {step:.0f}" if len(logs) == 1 else ""))
    title = "Accuracy by known tokens"
    return [Panel("ratio", title, "%", "% of the tokens known", lines)] if lines else []


def _short_names(runs: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as tell the runs apart."""
    paths = [Path(os.path.abspath(run)).parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        names = [printable("/".join(parts[-depth:])) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]
