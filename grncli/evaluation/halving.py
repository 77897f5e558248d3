"""``grn eval search``: the decoding settings with the smallest Fréchet distance (paper sections 4.5.1, D and E.4).

Successive halving: every point of the grid gets a few samples, the better half gets as many again, and so on up to the
count asked for. Samples of a point stay when more are made, so what is pruned early costs little and nothing is made
twice. Distances are compared within a round only: the fewer samples, the larger they are.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, Strict

from grncli.evaluation.generation import check_together, load_distribution, unsaid
from grncli.evaluation.grids import SEARCHED, Point, Value, name_of
from grncli.evaluation.picture_sources import Reading, Say, open_once
from grncli.evaluation.sampling_costs import cost_of
from grncli.evaluation.statistics import Distribution, Report
from grncli.metrics.feature_networks import FeatureNetwork, load_feature_network
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.models.transformer import Grid
from grncli.runs.generators import open_generator
from grncli.runtime.checking import Count, Text, check
from grncli.runtime.errors import UsageError
from grncli.runtime.files import naming, whole_file
from grncli.runtime.folders import make_folder, refuse_link, remove, remove_now
from grncli.runtime.jsonfiles import brief, cut_torn_line, json_lines, read_json, to_json
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped, Unfinished
from grncli.sampling.settings import SampleOptions, choose_grid, parse_classes
from grncli.sampling.stage import sample

MANIFEST, RESULTS, POINTS = "search.json", "results.jsonl", "points"
LEAST_PER_CLASS = 2
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The options of ``grn eval search``."""

    grid: Mapping[str, Sequence[Value]]
    sampling: SampleOptions  # what the grid does not vary; per_class of the last round
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
        at.sampling_settings(at.first_schedule(), relative=False)
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
        tokenizer = open_once(settings.reading.tokenizer, settings.reading.device, say)
        # Opened once: a training that is under way must not change what is searched from point to point.
        self._reading = replace(settings.reading, tokenizer=tokenizer)
        self._reference = load_distribution(reference, network, self._reading, frozenset(), stop=stop, say=say)
        self._generator = open_generator(run, settings.sampling.weights, say=say)
        bits = self._generator.recipe.bits
        assert bits is not None
        self.about = {
            "generator": self._generator.identity,
            "tokenizer": tokenizer.identity,
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
            _append(self._out / RESULTS, self._results[key])
        return self._results[key]

    def _measure(self, point: Point, per_class: int) -> Trial:
        make_folder(self._out / POINTS)
        store = self._out / POINTS / f"{name_of(point)}.zarr"
        asked = replace(_at(self._settings.sampling, point), per_class=per_class)
        sample(self._run, store, asked, Monitor(self._stop), generator=self._generator)
        # The store may hold more than these, of an earlier search for more.
        reading = replace(self._reading, size=None, limit=per_class * self._classes)
        try:
            ours = load_distribution(str(store), self._network, reading, frozenset(), stop=self._stop)
        except Unfinished as stopped:
            raise Stopped(str(stopped)) from None
        theirs, cost = self._reference, cost_of(store, reading.selection)
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


def _at(settings: SampleOptions, point: Point) -> SampleOptions:
    return replace(settings, **point)  # type: ignore[arg-type]  # parse_grid read each by its type


def _fixed(settings: SampleOptions, grid: Mapping[str, Sequence[Value]]) -> dict[str, Any]:
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
    if held is not None and _same_reference(held.get("reference"), asked["reference"]):
        held["reference"] = asked["reference"]
    if held is not None and held != asked:
        if not overwrite:
            raise UsageError(
                f"{out} holds another search ({_difference(held, asked)}); choose another --out, or --overwrite it"
            )
        remove(out / RESULTS)
        remove(out / POINTS)
        held = None
    remove_now(out / f".{POINTS}.old")  # what an interrupted overwrite left
    if held is None:
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(manifest) as temporary:
            temporary.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
    return _read_results(out / RESULTS)


def _same_reference(held: Any, asked: list[float]) -> bool:
    plain = isinstance(held, list) and len(held) == len(asked) and all(type(n) in (int, float) for n in held)
    return plain and np.allclose(held, asked, rtol=1e-5)


def _recognized(found: Distribution) -> list[float]:
    """Numbers that tell a reference from another, wherever it lies; equal up to rounding if it is read again."""
    return [float(np.square(found.mean).sum()), float(np.trace(found.covariance)), float(found.covariance.sum())]


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """What a folder says it holds; something that equals no search where that is damaged."""
    try:
        found = read_json(path, error=UsageError, remedy="it is damaged")
    except FileNotFoundError:
        return None
    except UsageError:
        return {MANIFEST: "damaged"}
    return found if isinstance(found, dict) else {MANIFEST: "damaged"}


def _difference(held: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str:
    """The first field that differs, with both values."""
    for name in dict.fromkeys([*asked, *held]):
        left, right = held.get(name), asked.get(name)
        if left != right and isinstance(left, Mapping) and isinstance(right, Mapping):
            return _difference(left, right, f"{prefix}{name}.")
        if left != right and name == "reference":
            return "reference: other statistics than now"
        if left != right:
            return f"{prefix}{name}: {brief(left)} there, {brief(right)} now"
    return "the same"


def _append(path: Path, trial: Trial) -> None:
    """Add the line of a trial; after a full disk half of it is cut away by the next search."""
    refuse_link(path)
    told = asdict(trial) | ({} if math.isfinite(trial.evaluations) else {"evaluations": None})
    with naming(path), path.open("ab", buffering=0) as file:
        file.write(to_json(told).encode() + b"\n")


@dataclass(frozen=True)
class _StoredTrial:
    point: dict[str, Annotated[bool, Strict()] | Annotated[int, Strict()] | Finite | Text]
    per_class: Count
    samples: Count
    distance: Finite
    evaluations: Finite | None


def _read_results(path: Path) -> dict[tuple[str, int], Trial]:
    if not path.exists():
        return {}
    remedy = "remove it, the samples of each point are kept"
    refuse_link(path)
    cut_torn_line(path)
    trials = []
    for number, line in enumerate(json_lines(path, error=UsageError, remedy=remedy), start=1):
        if isinstance(line.get("evaluations"), float) and math.isnan(line["evaluations"]):
            line["evaluations"] = None  # as earlier versions have it
        told = vars(check(line, _StoredTrial, f"{path}:{number}", error=UsageError, remedy=remedy))
        told["evaluations"] = math.nan if told["evaluations"] is None else told["evaluations"]
        trials.append(Trial(**told))
    return {(name_of(trial.point), trial.per_class): trial for trial in trials}
