"""``grn eval search``: the decoding settings with the best samples (paper sections 4.5.1, D and E.4).

Best are those of the smallest Fréchet distance from a reference, or of the largest text-image score. Successive
halving: every point of the grid gets a few samples, the better half gets as many again, and so on up to the count asked
for. Samples of a point stay when more are made, so that a pruned point costs little and nothing is made twice.
Distances are compared within a round only: the fewer samples, the larger they are.
"""

import itertools
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from grncli.evaluation.grids import Value, name_of
from grncli.evaluation.sample_metrics import LABELS, TEXT_IMAGE
from grncli.evaluation.search_folder import Figure, Trial
from grncli.evaluation.trial_judge import Judge, SearchSettings, at_point
from grncli.runs.recipe_first import open_recipe
from grncli.runtime.devices import dtype_name, pick_dtype
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.writer_status import reporting
from grncli.sampling.option_checks import check_options
from grncli.sampling.plan import settled_options
from grncli.sampling.sample_grid import asked_grid

PER_CLASS, PER_PROMPT = 50, 4  # samples in the last round, where their number is not given
LEAST_PER_CLASS, LEAST_PER_PROMPT = 2, 1


@dataclass(frozen=True, kw_only=True)
class Search:
    """The result of `search`: the last trial of each point, best first."""

    grid: dict[str, list[Value]]
    trials: list[Trial]
    distance: str | None  # what it is called: fid, fvd or fd; None without a reference
    by: Figure = "distance"  # what the best has the smallest or largest of
    about: dict[str, Any]
    warnings: list[str]

    @property
    def label(self) -> str:
        """What decides, as tables and plots call it."""
        return LABELS[self.distance or "fd"] if self.by == "distance" else LABELS[TEXT_IMAGE]

    @property
    def best(self) -> Trial:
        """The best of those that have the most samples."""
        return self.trials[0]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": "search", **vars(self), "trials": [trial.to_json() for trial in self.trials]}


def search(
    run: Path, reference: str | None, out: Path, settings: SearchSettings, *, monitor: Monitor | None = None
) -> Search:
    """Find the best point of a grid of decoding settings; resumes an interrupted search.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        Before any sampling, where options, prompts, reference, networks or ``out`` do not fit.
    LockError
        If another process fills ``out``.
    Stopped
        If ``monitor`` asked for it; samples and finished trials are kept.
    """
    monitor = monitor or Monitor()
    points = [dict(zip(settings.grid, values, strict=True)) for values in itertools.product(*settings.grid.values())]
    opened, options = open_recipe(run), settings.sampling
    prompted = options.prompts is not None or options.prompt is not None
    by = _decided_by(reference, settings, prompted=prompted)
    dtype = dtype_name(pick_dtype(options.dtype, torch.device(options.device)))
    per_class = options.per_class or (PER_PROMPT if prompted else PER_CLASS)
    options = replace(options, dtype=dtype)
    check_options(options)
    grid = asked_grid(options, opened.recipe.bits)
    for point in points:  # refuse invalid ones before the first sample
        at = settled_options(at_point(options, point), opened.recipe, grid, run)
        at.sampling_settings(at.first_schedule(), relative=False)
    judge = Judge(opened, reference, out, replace(settings, sampling=options), grid, monitor)
    counts = rounds_of(per_class, settings.halvings, LEAST_PER_PROMPT if prompted else LEAST_PER_CLASS)
    total, done = trials_in(len(points), len(counts)), 0
    alive: Sequence[dict[str, Value]] = points
    last: dict[str, Trial] = {}
    with closing(judge), reporting(out, "eval search", "trials", monitor, at_once=True) as reported:
        reported.progress(done, total, "")
        for count in counts:
            trials = []
            for point in alive:
                trials.append(judge.trial(point, count))
                done += 1
                reported.progress(done, total, f"{name_of(point)}: {trials[-1].figure(by):.4g}")
            trials.sort(key=lambda trial: (trial.loss(by), name_of(trial.point)))
            last |= {name_of(trial.point): trial for trial in trials}
            alive = [trial.point for trial in trials[: math.ceil(len(trials) / 2)]]
    ranked = sorted(last.values(), key=lambda trial: (-trial.per_class, trial.loss(by), name_of(trial.point)))
    return Search(
        grid={name: list(values) for name, values in settings.grid.items()},
        trials=ranked,
        distance=judge.distance,
        by=by,
        about=judge.about,
        warnings=judge.warnings(ranked[0].samples),
    )


def _decided_by(reference: str | None, settings: SearchSettings, *, prompted: bool) -> Figure:
    """Which figure is compared; UsageError where it lacks what it needs."""
    text_image = settings.text_image is not None
    if reference is None and not text_image:
        raise UsageError("nothing to compare with, expected --reference REF or --text-image-network IMAGE TEXT")
    if text_image and not prompted:
        raise UsageError("--text-image-network compares samples with their prompts, expected --prompts FILE")
    by = settings.by or ("text-image" if reference is None else "distance")
    if by == "distance" and reference is None:
        raise UsageError("--by distance needs --reference REF, real pictures to compare with")
    if by == "text-image" and not text_image:
        raise UsageError("--by text-image needs --text-image-network IMAGE TEXT, the encoders of both")
    return by


def rounds_of(per_class: int, halvings: int, least: int = LEAST_PER_CLASS) -> list[int]:
    """Samples of each class in each round of a search: the last is ``per_class``, and each is half of the next."""
    counts = [per_class]
    while len(counts) <= halvings and counts[0] >= 2 * least:
        counts.insert(0, counts[0] // 2)
    return counts


def trials_in(points: int, rounds: int) -> int:
    """Number of trials of a search; half of the points leave after each round."""
    total = 0
    for _ in range(rounds):
        total += points
        points = math.ceil(points / 2)
    return total
