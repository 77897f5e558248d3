"""``grn eval search``: the decoding settings with the smallest Fréchet distance (paper sections 4.5.1, D and E.4).

Successive halving: every point of the grid gets a few samples, the better half gets as many again, and so on up to the
count asked for. Samples of a point stay when more are made, so what is pruned early costs little and nothing is made
twice. Distances are compared within a round only: the fewer samples, the larger they are.
"""

import itertools
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from grncli.errors import UsageError
from grncli.evaluation.costs import cost_of
from grncli.evaluation.frechet import few_samples, frechet_distance
from grncli.evaluation.generation import check_together, load_distribution, unsaid
from grncli.evaluation.grids import SEARCHED, Point, Value, name_of
from grncli.evaluation.pictures import Reading, Say
from grncli.evaluation.statistics import Distribution, Report
from grncli.feature_networks import FeatureNetwork, load_feature_network
from grncli.generators import read_generator
from grncli.models.transformer import Grid
from grncli.runtime.files import whole_file
from grncli.sampling.settings import SampleSettings, choose_grid, parse_classes
from grncli.sampling.stage import sample
from grncli.stopping import Stop, Stopped, Unfinished
from grncli.tokenizers import tokenizer_identity

MANIFEST, RESULTS, POINTS = "search.json", "results.jsonl", "points"
LEAST_PER_CLASS = 2


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The options of ``grn eval search``."""

    grid: Mapping[str, Sequence[Value]]
    sampling: SampleSettings  # what the grid does not vary; per_class of the last round
    features: str | None = None
    reading: Reading  # of the reference, and the tokenizer
    halvings: int = 2
    cache: Path
    download: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A point after one round."""

    point: dict[str, Value]
    per_class: int
    samples: int
    distance: float
    evaluations: float  # per sample


@dataclass(frozen=True, kw_only=True)
class Search:
    """What ``search`` found: the last trial of each point, best first."""

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
        return {"kind": "search", **vars(self), "trials": [asdict(trial) for trial in self.trials]}


def search(
    run: Path,
    reference: str,
    out: Path,
    settings: SearchSettings,
    *,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Say = lambda text: None,
) -> Search:
    """Find the best point of a grid of decoding settings; an interrupted search is gone on with.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        Before any sampling, where options, reference, tokenizer or ``out`` do not fit.
    Stopped
        If ``stop`` asked for it; samples and finished trials are kept.
    """
    stop = stop or Stop()
    points = [dict(zip(settings.grid, values, strict=True)) for values in itertools.product(*settings.grid.values())]
    for point in points:  # refuse what cannot be meant before the first sample
        at = _at(settings.sampling, point)
        at.rules(at.first_schedule(), relative=False)
    network = load_feature_network(
        settings.features or "inception",
        cache=settings.cache / "features",
        download=settings.download,
        device=settings.reading.device,
        say=say,
    )
    judge = Judge(run, reference, out, settings, network, stop, say)
    counts = rounds_of(settings.sampling.per_class, settings.halvings)
    total, done = trials_in(len(points), len(counts)), 0
    report(done, total, "")
    alive: Sequence[dict[str, Value]] = points
    ended: dict[str, Trial] = {}
    for per_class in counts:
        trials = []
        for point in alive:
            trial = judge.trial(point, per_class)
            trials.append(trial)
            done += 1
            report(done, total, f"{name_of(point)}: {trial.distance:.4g}")
        trials.sort(key=lambda trial: (trial.distance, name_of(trial.point)))
        ended |= {name_of(trial.point): trial for trial in trials}
        alive = [trial.point for trial in trials[: math.ceil(len(trials) / 2)]]
    ranked = sorted(ended.values(), key=lambda trial: (-trial.per_class, trial.distance, name_of(trial.point)))
    return Search(
        grid={name: list(values) for name, values in settings.grid.items()},
        trials=ranked,
        distance=judge.distance,
        about=judge.about,
        warnings=[*judge.doubts, *judge.few(ranked[0].samples)],
    )


class Judge:
    """Samples at a point of the grid and measures them; remembers what it has measured in ``out``."""

    def __init__(
        self,
        run: Path,
        reference: str,
        out: Path,
        settings: SearchSettings,
        network: FeatureNetwork,
        stop: Stop,
        say: Say,
    ) -> None:
        self._run, self._out, self._settings, self._network, self._stop = run, out, settings, network, stop
        if settings.reading.tokenizer is None:
            raise UsageError("a search needs --tokenizer RUN, the tokenizer that the generator was trained for")
        self._reference = load_distribution(reference, network, settings.reading, frozenset(), stop=stop, say=say)
        _, recipe, identity = read_generator(run, settings.sampling.weights)
        assert recipe.bits is not None
        bits = recipe.bits
        self.about = {
            "generator": identity,
            "tokenizer": tokenizer_identity(settings.reading.tokenizer),
            "reference": self._reference.about,
            "network": {"name": network.name, "sha256": network.sha256, "input": network.size_note},
            "sampling": _fixed(settings.sampling, settings.grid),
        }
        self.distance = network.frechet
        self.doubts = unsaid(self._reference)
        self._classes = max(1, len(parse_classes(settings.sampling.classes, bits.labels)))
        self._check_reference(choose_grid(settings.sampling.grid, bits.grids), bits.stride)
        asked = {**self.about, "reference": _recognized(self._reference)}
        self._results = _claim(out, asked, overwrite=settings.overwrite)

    def _check_reference(self, grid: Grid, stride: Sequence[int]) -> None:
        """Refuse a reference of another network or size, before anything is sampled or written."""
        theirs, (_, h, w) = self._reference, grid
        told = {"src": "what is sampled", "picture": [h * stride[1], w * stride[2]], "network": self.about["network"]}
        ours = Distribution(mean=theirs.mean, covariance=theirs.covariance, count=None, about=told)
        check_together(ours, theirs, self._settings.reading.size)

    def few(self, samples: int) -> list[str]:
        """A sentence where so many samples are too few."""
        return few_samples("a point", samples, len(self._reference.mean), self.distance)

    def trial(self, point: Point, per_class: int) -> Trial:
        """The distance at a point with some samples of each class, from an earlier run where it has been measured."""
        key = (name_of(point), per_class)
        if key not in self._results:
            self._results[key] = self._measure(point, per_class)
            with (self._out / RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self._results[key])) + "\n")
        return self._results[key]

    def _measure(self, point: Point, per_class: int) -> Trial:
        store = self._out / POINTS / f"{name_of(point)}.zarr"
        store.parent.mkdir(exist_ok=True)
        sample(self._run, store, replace(_at(self._settings.sampling, point), per_class=per_class), stop=self._stop)
        # The store may hold more than these, of an earlier search for more.
        reading = replace(self._settings.reading, size=None, limit=per_class * self._classes)
        try:
            ours = load_distribution(str(store), self._network, reading, frozenset(), stop=self._stop)
        except Unfinished as stopped:
            raise Stopped(str(stopped)) from None
        theirs, cost = self._reference, cost_of(store, reading.limit)
        check_together(ours, theirs, self._settings.reading.size)
        return Trial(
            point=dict(point),
            per_class=per_class,
            samples=ours.count or 0,
            distance=frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance),
            evaluations=cost.evaluations if cost is not None else math.nan,
        )


def rounds_of(per_class: int, halvings: int) -> list[int]:
    """Samples of each class in each round of a search: the last is ``per_class``, and each is half of the next."""
    counts = [per_class]
    while len(counts) <= halvings and counts[0] >= 2 * LEAST_PER_CLASS:
        counts.insert(0, counts[0] // 2)
    return counts


def trials_in(points: int, rounds: int) -> int:
    """How many trials a search of so many points and rounds takes, half of the points leaving after each round."""
    total = 0
    for _ in range(rounds):
        total += points
        points = math.ceil(points / 2)
    return total


def _at(settings: SampleSettings, point: Point) -> SampleSettings:
    return replace(settings, **point)  # type: ignore[arg-type]  # parse_grid read each by its type


def _fixed(settings: SampleSettings, grid: Mapping[str, Sequence[Value]]) -> dict[str, Any]:
    """What all points share: a grid may grow, and what was measured of it stays."""
    told = ("classes", "grid", "weights", "seed", "dtype", *SEARCHED)
    return {"varied": sorted(grid)} | {name: getattr(settings, name) for name in told if name not in grid}


def _claim(out: Path, about: Mapping[str, Any], *, overwrite: bool) -> dict[tuple[str, int], Trial]:
    """Trials that ``out`` holds of the same search; UsageError where it holds something else."""
    manifest = out / MANIFEST
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder for the samples of the search")
    if out.is_dir() and any(out.iterdir()) and not manifest.is_file():
        raise UsageError(f"{out} holds files that grn eval search did not write; choose another --out")
    held = _read_manifest(manifest)
    asked = json.loads(json.dumps(about))
    if held is not None and np.allclose(held.get("reference", math.nan), asked["reference"], rtol=1e-5):
        held["reference"] = asked["reference"]
    if held is not None and held != asked:
        if not overwrite:
            raise UsageError(
                f"{out} holds another search ({_difference(held, asked)}); choose another --out, or --overwrite it"
            )
        (out / RESULTS).unlink(missing_ok=True)
        shutil.rmtree(out / POINTS, ignore_errors=True)
        held = None
    if held is None:
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(manifest) as temporary:
            temporary.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    return _read_results(out / RESULTS)


def _recognized(found: Distribution) -> list[float]:
    """Numbers that tell a reference from another, wherever it lies; equal up to rounding if it is read again."""
    return [float(np.square(found.mean).sum()), float(np.trace(found.covariance)), float(found.covariance.sum())]


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """What a folder says it holds; something that equals no search where that is damaged."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {MANIFEST: "damaged"}


def _difference(held: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str:
    """The first field that differs, with both values."""
    for name in dict.fromkeys([*asked, *held]):
        left, right = held.get(name), asked.get(name)
        if left != right and isinstance(left, Mapping) and isinstance(right, Mapping):
            return _difference(left, right, f"{prefix}{name}.")
        if left != right and name == "reference":
            return "reference: other statistics than now"
        if left != right:
            return f"{prefix}{name}: {left} there, {right} now"
    return "the same"


def _read_results(path: Path) -> dict[tuple[str, int], Trial]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):  # half a line, of a killed run
        with whole_file(path) as temporary:
            temporary.write_text("".join(whole), encoding="utf-8")
    try:
        trials = [Trial(**json.loads(line)) for line in whole]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); remove it, the samples of each point are kept") from None
    return {(name_of(trial.point), trial.per_class): trial for trial in trials}
