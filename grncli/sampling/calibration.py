"""Fitting k and b of the complexity-aware schedule to a generator, and keeping them with its run.

Usable values depend on the model's entropies at the step that decides: for the paper's they lie in a window of 0.05.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from grncli.checkpoint import run_of
from grncli.errors import UsageError
from grncli.media.writing import whole_file
from grncli.models.generator import Generator
from grncli.models.transformer import Grid
from grncli.refinement import Complexity, fit
from grncli.sampling.refiner import Job, Rules, measure_entropies
from grncli.sampling.settings import SampleSettings, describe_rules

FILE = "schedule.json"
SAMPLES = 128  # that are begun to measure entropies
APART = 1 << 40  # numbers from here on are for calibration only

PAPER = Complexity()


def settle_schedule(
    settings: SampleSettings,
    run: Path,
    identity: Mapping[str, str],
    network: Generator,
    grid: Grid,
    labels: list[int],
    *,
    relative: bool,
    say: Callable[[str], None],
) -> Complexity:
    """The complexity-aware schedule of the settings: given, fitted now, fitted before, or the paper's.

    Parameters
    ----------
    run : where a fit is kept for next time
    labels : classes to sample, in turns, for a fit
    """
    start = settings.complexity(settings.k or 0.0, settings.b or 0.0)
    conditions = _conditions(settings, start, identity, relative=relative)
    stored = _stored(run)
    fits = stored.get("conditions") == conditions and settings.k in (None, stored.get("k"))
    if settings.target_steps is not None:
        if settings.b is not None:
            raise UsageError("--target-steps chooses b, expected it without --b")
        if fits and stored.get("target_steps") == settings.target_steps and stored.get("grid") == list(grid):
            say(f"k={stored['k']:.6g} b={stored['b']:.6g}, as fitted before for {settings.target_steps:g} steps")
            return replace(start, k=stored["k"], b=stored["b"])
        return _fit(settings, run, conditions, start, network, grid, labels, relative=relative, say=say)
    if settings.k is None and settings.b is None and fits:
        say(f"k={stored['k']:.6g} b={stored['b']:.6g}, as fitted for {stored['target_steps']:g} steps")
        return replace(start, k=stored["k"], b=stored["b"])
    if settings.k is None or settings.b is None:
        say("k and b of the paper's GRN_bit-B fill what is not given; --target-steps fits them to this generator")
    k = PAPER.k if settings.k is None else settings.k
    return replace(start, k=k, b=PAPER.b if settings.b is None else settings.b)


def _fit(
    settings: SampleSettings,
    run: Path,
    conditions: Mapping[str, Any],
    start: Complexity,
    network: Generator,
    grid: Grid,
    labels: list[int],
    *,
    relative: bool,
    say: Callable[[str], None],
) -> Complexity:
    assert settings.target_steps is not None
    jobs = [Job(APART + i, labels[i % len(labels)]) for i in range(SAMPLES)]
    entropies = measure_entropies(network, grid, settings.rules(start, relative=relative), jobs)
    try:
        fitted = fit(start, entropies, settings.target_steps, settings.k)
    except ValueError as error:
        raise UsageError(f"--target-steps: {error}") from None
    steps = fitted.steps(entropies)
    low, high = float(entropies.min()), float(entropies.max())
    say(
        f"k={fitted.k:.6g} b={fitted.b:.6g}: {float(steps.mean()):.1f} steps on average, {int(steps.min())} to "
        f"{int(steps.max())}, for entropies of {low:.4f} to {high:.4f} in {SAMPLES} samples"
    )
    kept = {
        "conditions": conditions,
        "grid": list(grid),
        "target_steps": settings.target_steps,
        "k": fitted.k,
        "b": fitted.b,
        "entropies": [low, high],
        "samples": SAMPLES,
    }
    file = run_of_run(run) / FILE
    try:
        with whole_file(file) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"{file}: k and b cannot be kept for next time ({error.strerror})")
    return fitted


def _conditions(
    settings: SampleSettings, start: Complexity, identity: Mapping[str, str], *, relative: bool
) -> dict[str, Any]:
    """What the entropies at the decision depend on, and the range that was fitted to."""
    rules: Rules = settings.rules(start, relative=relative)
    described = describe_rules(rules)
    schedule = {key: value for key, value in asdict(start).items() if key not in ("k", "b")}
    return {**described, "schedule": schedule, "seed": None, "weights": identity["sha256"]}


def _stored(run: Path) -> dict[str, Any]:
    """The last fit of a run; empty where there is none that can be read."""
    try:
        stored = json.loads((run_of_run(run) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def run_of_run(run: Path) -> Path:
    """The run directory, also where one of its checkpoints is given."""
    return run_of(run) if (run / "state.json").is_file() else run
