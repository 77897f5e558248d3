"""``grn eval search``: the decoding settings with the smallest Fréchet distance (paper sections 4.5.1, D and E.4).

Successive halving: every point of the grid gets a few samples, the better half gets as many again, and so on up to the
count asked for. Samples of a point stay when more are made, so that a pruned point costs little and nothing is made
twice. Distances are compared within a round only: the fewer samples, the larger they are.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from grncli.evaluation.feature_collection import NetworkOptions, collect
from grncli.evaluation.generation import check_together, load_distribution, unsaid
from grncli.evaluation.grids import SEARCHED, Point, Value, name_of
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_sources import StorePictures, open_once
from grncli.evaluation.sampling_costs import mean_nfe
from grncli.evaluation.search_folder import SearchFolder, Trial
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.metrics.statistics_files import Distribution
from grncli.runs.generators import open_generator
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped, Unfinished
from grncli.sampling.settings import SampleOptions, choose_grid, parse_classes
from grncli.sampling.stage import sample

LEAST_PER_CLASS = 2


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The options of ``grn eval search``."""

    grid: Mapping[str, Sequence[Value]]
    sampling: SampleOptions  # what the grid does not vary; per_class of the last round
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    reading: PictureReading  # of the reference, and the tokenizer
    halvings: int = 2
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Search:
    """The result of `search`: the last trial of each point, best first."""

    grid: dict[str, list[Value]]
    trials: list[Trial]
    distance: str  # what it is called: fid, fvd or fd
    about: dict[str, Any]
    warnings: list[str]

    @property
    def best(self) -> Trial:
        """The best of those that have the most samples."""
        return self.trials[0]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": "search", **vars(self), "trials": [trial.to_json() for trial in self.trials]}


def search(run: Path, reference: str, out: Path, settings: SearchSettings, *, monitor: Monitor | None = None) -> Search:
    """Find the best point of a grid of decoding settings; resumes an interrupted search.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        Before any sampling, where options, reference, tokenizer or ``out`` do not fit.
    Stopped
        If ``monitor`` asked for it; samples and finished trials are kept.
    """
    monitor = monitor or Monitor()
    points = [dict(zip(settings.grid, values, strict=True)) for values in itertools.product(*settings.grid.values())]
    for point in points:  # refuse invalid ones before the first sample
        at = _at(settings.sampling, point)
        at.sampling_settings(at.first_schedule(), relative=False)
    judge = Judge(run, reference, out, settings, monitor)
    counts = rounds_of(settings.sampling.per_class, settings.halvings)
    total, done = trials_in(len(points), len(counts)), 0
    monitor.progress(done, total, "")
    alive: Sequence[dict[str, Value]] = points
    last: dict[str, Trial] = {}
    for per_class in counts:
        trials = []
        for point in alive:
            trials.append(judge.trial(point, per_class))
            done += 1
            monitor.progress(done, total, f"{name_of(point)}: {trials[-1].distance:.4g}")
        trials.sort(key=lambda trial: (trial.distance, name_of(trial.point)))
        last |= {name_of(trial.point): trial for trial in trials}
        alive = [trial.point for trial in trials[: math.ceil(len(trials) / 2)]]
    ranked = sorted(last.values(), key=lambda trial: (-trial.per_class, trial.distance, name_of(trial.point)))
    return Search(
        grid={name: list(values) for name, values in settings.grid.items()},
        trials=ranked,
        distance=judge.distance,
        about=judge.about,
        warnings=[*judge.doubts, *judge.few(ranked[0].samples)],
    )


class Judge:
    """Samples at a point of the grid and measures the distance of the samples.

    Generator, tokenizer, feature network and the statistics of the reference are opened once: that is quick, and a
    training that is under way cannot change what is searched from point to point.
    """

    def __init__(self, run: Path, reference: str, out: Path, settings: SearchSettings, monitor: Monitor) -> None:
        if settings.reading.tokenizer is None:
            raise UsageError("a search needs --tokenizer RUN, the tokenizer that the generator was trained for")
        self._run, self._settings = run, settings
        # Without progress: a search counts trials.
        self._monitor = Monitor(stop=monitor.stop)
        self._tokenizer = open_once(settings.reading.tokenizer, settings.reading.device, monitor.say)
        self._reading = replace(settings.reading, tokenizer=self._tokenizer)
        self._network = settings.networks.open("inception", self._reading, monitor.say)
        self._reference = load_distribution(
            reference, self._network, self._reading, frozenset(), monitor=replace(self._monitor, say=monitor.say)
        )
        self._generator = open_generator(run, settings.sampling.weights, say=monitor.say)
        self._classes = self._check_fit()
        self.about = {
            "generator": self._generator.identity,
            "tokenizer": self._tokenizer.identity,
            "reference": self._reference.about,
            "network": self._network.about(),
            "sampling": _fixed(settings.sampling, settings.grid),
        }
        self.distance = self._network.frechet
        self.doubts = unsaid(self._reference)
        self._folder = SearchFolder(
            out, {**self.about, "reference": _recognized(self._reference)}, overwrite=settings.overwrite
        )

    def _check_fit(self) -> int:
        """Refuse a reference of another network or size than the samples will be of; returns the number of classes."""
        bits, settings = self._generator.recipe.bits, self._settings.sampling
        _, h, w = choose_grid(settings.grid, bits.grids)
        about = {
            "src": "what is sampled",
            "picture": [h * bits.stride[1], w * bits.stride[2]],
            "network": self._network.about(),
        }
        check_together(replace(self._reference, count=None, about=about), self._reference, self._settings.reading.size)
        return max(1, len(parse_classes(settings.classes, bits.labels)))

    def few(self, samples: int) -> list[str]:
        """A warning where there are too few samples for a covariance."""
        return few_samples("a point", samples, len(self._reference.mean), self.distance)

    def trial(self, point: Point, per_class: int) -> Trial:
        """The distance at a point with some samples of each class, from an earlier run where it has been measured."""
        finished = self._folder.trials.get((name_of(point), per_class))
        if finished is None:
            finished = self._measure(point, per_class)
            self._folder.add(finished)
        return finished

    def _measure(self, point: Point, per_class: int) -> Trial:
        store = self._folder.store_of(point)
        options = replace(_at(self._settings.sampling, point), per_class=per_class)
        sample(self._run, store, options, self._monitor, generator=self._generator, tokenizer=self._tokenizer)
        # The store may hold more than these, of an earlier search for more.
        reading = replace(self._reading, size=None, limit=per_class * self._classes)
        pictures = StorePictures(store, reading)
        try:
            ours = collect(pictures, self._network, monitor=self._monitor)
        except Unfinished as unfinished:
            raise Stopped(str(unfinished)) from None
        theirs = self._reference
        check_together(ours, theirs, self._settings.reading.size)
        return Trial(
            point=dict(point),
            per_class=per_class,
            samples=ours.count or 0,
            distance=frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance),
            nfe=mean_nfe(pictures.store, pictures.places),
        )


def rounds_of(per_class: int, halvings: int) -> list[int]:
    """Samples of each class in each round of a search: the last is ``per_class``, and each is half of the next."""
    counts = [per_class]
    while len(counts) <= halvings and counts[0] >= 2 * LEAST_PER_CLASS:
        counts.insert(0, counts[0] // 2)
    return counts


def trials_in(points: int, rounds: int) -> int:
    """Number of trials of a search; half of the points leave after each round."""
    total = 0
    for _ in range(rounds):
        total += points
        points = math.ceil(points / 2)
    return total


def _at(settings: SampleOptions, point: Point) -> SampleOptions:
    return replace(settings, **point)  # type: ignore[arg-type]  # parse_grid read each by its type


def _fixed(settings: SampleOptions, grid: Mapping[str, Sequence[Value]]) -> dict[str, Any]:
    """The settings that all points share: trials stay valid when a grid grows."""
    names = ("classes", "grid", "weights", "seed", "dtype", *SEARCHED)
    return {"varied": sorted(grid)} | {name: getattr(settings, name) for name in names if name not in grid}


def _recognized(statistics: Distribution) -> list[float]:
    """Numbers that identify a reference, wherever it is stored; equal up to rounding when it is read again."""
    return [
        float(np.square(statistics.mean).sum()),
        float(np.trace(statistics.covariance)),
        float(statistics.covariance.sum()),
    ]
