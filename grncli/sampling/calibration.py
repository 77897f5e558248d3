"""Fitting k and b of the complexity-aware schedule to a generator, and keeping them with its run.

Usable values depend on the model's entropies at the step that decides: for the paper's they lie in a window of 0.05.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from grncli.runs.checkpoint import SCHEDULE, run_of
from grncli.runtime.checking import read_json_as
from grncli.runtime.errors import CheckpointError
from grncli.runtime.files import whole_file
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.stopping import Unfinished
from grncli.sampling.plan import SamplingPlan
from grncli.sampling.sampler import measure_entropies
from grncli.schedules import Complexity, fit

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]

SAMPLES = 128  # that are begun to measure entropies
APART = 1 << 32  # places from here on are for measuring only


@dataclass(frozen=True)
class _Fit:
    """What of a kept fit is used again."""

    target_steps: Annotated[Finite, Field(gt=0)]
    k: Finite
    b: Finite
    conditions: dict[str, Any]


def settle_schedule(plan: SamplingPlan, monitor: Monitor) -> Complexity:
    """The complexity-aware schedule of a plan: asked for, fitted now, fitted before, or the paper's.

    Raises
    ------
    Unfinished
        If ``monitor`` asked for it while entropies were measured.
    """
    options, start, say = plan.options, plan.settings.schedule, monitor.say
    assert isinstance(start, Complexity)
    conditions = _conditions(plan, start)
    stored = _stored(plan.run, say)
    fits = stored.get("conditions") == conditions and options.k in (None, stored.get("k"))
    if options.target_steps is not None:
        if fits and stored.get("target_steps") == options.target_steps:
            say(f"k={stored['k']:.6g} b={stored['b']:.6g}, as fitted before for {options.target_steps:g} steps")
            return replace(start, k=stored["k"], b=stored["b"])
        return _fit(plan, start, options.target_steps, conditions, monitor)
    if options.k is None and options.b is None and (fits or _differ_in_prompts(stored, conditions)):
        others = "" if fits else " of other prompts"
        say(f"k={stored['k']:.6g} b={stored['b']:.6g}, as fitted for {stored['target_steps']:g} steps{others}")
        return replace(start, k=stored["k"], b=stored["b"])
    if options.k is None or options.b is None:
        say("k and b that are not set are the paper's for GRN_bit-B; --target-steps fits them to this generator")
    k = Complexity.k if options.k is None else options.k
    return replace(start, k=k, b=Complexity.b if options.b is None else options.b)


def _fit(
    plan: SamplingPlan, start: Complexity, target: float, conditions: Mapping[str, Any], monitor: Monitor
) -> Complexity:
    requests = (plan.subjects.request(plan.number(APART + place)) for place in range(SAMPLES))
    entropies = measure_entropies(
        plan.generator.network,
        plan.grid,
        plan.settings,
        requests,
        lambda: monitor.stop_reason is not None,
        condition_tokens=plan.subjects.condition_tokens,
    )
    if len(entropies) < SAMPLES:
        raise Unfinished(f"{monitor.stop_reason}: stopped while entropies were measured to fit the schedule")
    fitted = fit(start, entropies, target, plan.options.k)
    steps = fitted.steps(entropies)
    low, high = float(entropies.min()), float(entropies.max())
    monitor.say(
        f"k={fitted.k:.6g} b={fitted.b:.6g}: {float(steps.mean()):.1f} steps on average, {int(steps.min())} to "
        f"{int(steps.max())}, for entropies of {low:.4f} to {high:.4f} in {SAMPLES} samples"
    )
    kept = {
        "target_steps": target,
        "k": fitted.k,
        "b": fitted.b,
        "entropies": [low, high],
        "samples": SAMPLES,
        "conditions": conditions,
    }
    file = _file(plan.run)
    try:
        with whole_file(file) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        monitor.say(f"{file}: k and b cannot be kept for next time ({error.strerror})")
    return fitted


def _conditions(plan: SamplingPlan, start: Complexity) -> dict[str, Any]:
    """What the entropies at the decision depend on, and the range that was fitted to."""
    schedule = {key: value for key, value in asdict(start).items() if key not in ("k", "b")}
    conditions = {**plan.fingerprint.preprocessing, "schedule": schedule}
    del conditions["seed"]  # other samples of the same distribution
    return dict(json.loads(json.dumps(conditions)))


def _differ_in_prompts(stored: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether a fit is to other prompts, and else to the same: nearer to the generator than the paper's is."""
    before = stored.get("conditions", {})
    return before | {"prompts": None} == {**conditions, "prompts": None}


def _stored(run: Path, say: Say) -> dict[str, Any]:
    """The last fit of a run; empty where there is none that can be read."""
    try:
        return vars(read_json_as(_file(run), _Fit, error=CheckpointError, remedy="--target-steps fits it again"))
    except FileNotFoundError:
        return {}
    except CheckpointError as error:
        say(f"{error}; it is left out of account")
        return {}


def _file(run: Path) -> Path:
    """Where a fit is kept, also where a checkpoint of the run is given."""
    return (run_of(run) if (run / "state.json").is_file() else run) / SCHEDULE
