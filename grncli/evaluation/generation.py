"""``grn eval gen``: how samples compare with real pictures, and what they cost (paper section 4.2, Table 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grncli.evaluation.picture_sources import ArrayPictures, Reading, Say, is_store, open_once, open_pictures
from grncli.evaluation.sampling_costs import Cost, cost_of
from grncli.evaluation.statistics import (
    Distribution,
    Report,
    collect,
    holds_pictures,
    holds_statistics,
    read_statistics,
    same_network,
    show_size,
)
from grncli.metrics.distributions import NEIGHBOURS, kernel_distance, share_within
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.feature_networks import FRECHET, PUBLISHED, FeatureNetwork, load_feature_network
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.runs.weight_files import default_cache
from grncli.runtime.errors import UsageError
from grncli.runtime.processes import ALONE, Processes
from grncli.runtime.stopping import Stop

LABELS = {
    "fid": "FID",
    "fvd": "FVD",
    "fd": "Fréchet distance",
    "is": "Inception Score",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "agreement": "class agreement",
}
OTHERWISE = {"is": "class score", "kid": "kernel distance"}  # what these are called without Inception
DISTANCES = ("fid", "fvd", "fd")
FROM_FEATURES = frozenset({"kid", "precision", "recall"})
FROM_CLASSES = frozenset({"is", "agreement"})


@dataclass(frozen=True, kw_only=True)
class GenSettings:
    """The options of ``grn eval gen``."""

    reading: Reading
    metrics: tuple[str, ...] | None = None  # None takes what the inputs allow
    features: str | None = None
    cache: Path = field(default_factory=default_cache)
    download: bool = False
    seed: int = 0  # of KID's subsets


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, and how it was made."""

    metric: str
    label: str
    """The metric's name; those that are defined by Inception are called otherwise in the features of others."""
    value: float
    deviation: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What ``generation`` found."""

    samples: dict[str, Any]
    """Where they are from, how many, what network saw them how."""
    reference: dict[str, Any]
    figures: list[Figure]
    cost: Cost | None
    warnings: list[str]

    def value(self, metric: str) -> float:
        """A figure by the name of its metric; KeyError where it was not measured."""
        return {figure.metric: figure.value for figure in self.figures}[metric]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        figures = [
            {"metric": f.metric, "value": f.value if f.value == f.value else None, **_told(f)} for f in self.figures
        ]
        cost = (
            None if self.cost is None else vars(self.cost) | {"steps": {str(n): c for n, c in self.cost.steps.items()}}
        )
        return {
            "kind": "gen",
            "samples": self.samples,
            "reference": self.reference,
            "figures": figures,
            "cost": cost,
            "warnings": self.warnings,
        }


def _told(figure: Figure) -> dict[str, Any]:
    deviation = figure.deviation
    told: dict[str, Any] = {} if deviation is None else {"deviation": deviation if deviation == deviation else None}
    return told | ({"detail": figure.detail} if figure.detail else {})


def generation(
    samples: str,
    reference: str,
    settings: GenSettings,
    *,
    processes: Processes = ALONE,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Say = lambda text: None,
) -> Generation:
    """Compare samples with a reference: media, bit stores, arrays of pictures or statistics files, each of the two.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If inputs and options do not go together, nothing can be read, or weights are missing.
    Unfinished
        If ``stop`` asked for it.
    """
    given = [path for path in (samples, reference) if not holds_statistics(Path(path))]
    check_metrics(settings.metrics)
    check_options(samples, reference, given, settings)
    network = None
    if given:
        network = load_feature_network(
            settings.features or ("i3d" if "fvd" in (settings.metrics or ()) else "inception"),
            cache=settings.cache / "features",
            download=settings.download,
            device=settings.reading.device,
            say=say,
        )
    wanted = frozenset(settings.metrics or FROM_FEATURES | FROM_CLASSES)
    if network is not None and not network.classifies:
        if settings.metrics and wanted & FROM_CLASSES:
            name = min(wanted & FROM_CLASSES)
            raise UsageError(f"--metrics {name} needs class probabilities, and {network.name} gives none")
        wanted -= FROM_CLASSES
    for metric in settings.metrics or ():
        if network is not None and metric in DISTANCES:
            _check_distance(metric, network.frechet)
    reading = open_tokenizer_of(settings.reading, given, say)
    shared: dict[str, Any] = {"processes": processes, "stop": stop, "report": report, "say": say}
    # The reference first: it is what a mistake is most often in, and often a file that is read at once.
    theirs = load_distribution(reference, network, reading, wanted - FROM_CLASSES, **shared)
    if settings.metrics and wanted & FROM_FEATURES:
        _features(min(wanted & FROM_FEATURES), theirs)  # missed before a pass over the samples
    ours = load_distribution(samples, network, reading, wanted, **shared)
    doubts = check_together(ours, theirs, settings.reading.size)
    metrics = settings.metrics or _possible(ours, theirs, wanted)
    name = distance_name(ours, theirs)
    few = [text for found in (ours, theirs) for text in few_samples(found.name, found.count, len(found.mean), name)]
    device = settings.reading.device
    figures = [
        measure(metric, ours, theirs, distance=name, seed=settings.seed, device=device)
        for metric in dict.fromkeys(metrics)
    ]
    return Generation(
        samples=ours.about,
        reference=theirs.about,
        figures=figures,
        cost=cost_of(Path(samples), settings.reading.selection),
        warnings=list(dict.fromkeys([*doubts, *few])),
    )


def open_tokenizer_of(reading: Reading, given: Sequence[str], say: Say) -> Reading:
    """Open the tokenizer once, where both sides may be stores."""
    if reading.tokenizer is None or not any(map(is_store, given)):
        return reading
    return replace(reading, tokenizer=open_once(reading.tokenizer, reading.device, say))


def check_metrics(metrics: Sequence[str] | None) -> None:
    """Refuse names that are no metric."""
    for name in metrics or ():
        if name not in LABELS:
            raise UsageError(f"--metrics {name}: there is no such metric, expected some of {', '.join(LABELS)}")


def check_options(samples: str, reference: str, given: Sequence[str], settings: GenSettings) -> None:
    """Refuse options that have no part in a comparison."""
    if samples == reference == "-":
        raise UsageError("SAMPLES and --reference are both standard input; expected paths on it for one of them")
    reading = settings.reading
    told = {"--features": settings.features, "--size": reading.size, "--frames": reading.frames, "--fps": reading.fps}
    for name, value in {**told, "--limit": reading.limit, "--sample": reading.sample}.items():
        if value is not None and not given:
            raise UsageError(f"{name} {value}: is for pictures, and both sides are statistics; leave the option out")


def load_distribution(
    src: str,
    network: FeatureNetwork | None,
    reading: Reading,
    wanted: frozenset[str],
    *,
    processes: Processes = ALONE,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Say = lambda text: None,
) -> Distribution:
    """Statistics from a file, or of pictures as ``network`` sees them."""
    keep, path = bool(wanted & FROM_FEATURES), Path(src)
    if holds_statistics(path):
        found = read_statistics(path)
        if not (keep and found.features is None and network is not None and holds_pictures(path)):
            return found
        # A reference batch of guided-diffusion: moments of all pictures, and some of the pictures themselves.
        some = collect(
            ArrayPictures(path, Reading(batch=reading.batch)), network, keep=True, processes=processes, stop=stop
        )
        same_network(some, found)
        return Distribution(
            mean=found.mean,
            covariance=found.covariance,
            count=found.count,
            features=some.features,
            about={**found.about, "features_of": f"{some.count} pictures in the file"},
        )
    assert network is not None
    return collect(
        open_pictures(src, reading, say=say),
        network,
        keep=keep,
        probabilities=bool(wanted & FROM_CLASSES),
        one_size=reading.size is None,
        processes=processes,
        stop=stop,
        report=report,
        warn=say,
    )


def check_together(ours: Distribution, theirs: Distribution, size: str | None) -> list[str]:
    """Doubts about a comparison, in sentences; UsageError where it makes no sense."""
    same_network(ours, theirs)
    left, right = (found.about.get("picture") for found in (ours, theirs))
    if size != "native" and left and right and left != right:
        advice = f"give --size {show_size(right)} to bring them to it" if size is None else "make both with one --size"
        raise UsageError(
            f"{ours.name} has pictures of {show_size(left)} pixels and {theirs.name} of {show_size(right)}; expected "
            f"one size, {advice}, or give --size native to take them so"
        )
    differ = [
        f"{ours.name} was read with {name} {a} and {theirs.name} with {b}"
        for name in ("filter", "frames", "fps")
        if (a := ours.about.get(name)) and (b := theirs.about.get(name)) and a != b
    ]
    return [*unsaid(ours), *unsaid(theirs), *differ]


def unsaid(found: Distribution) -> list[str]:
    """Doubts about statistics that do not say how they were made, in sentences."""
    wanted = (("network", "which network made it"), ("picture", "the size of its pictures"))
    return [f"{found.name} does not say {what}" for name, what in wanted if name not in found.about]


def distance_name(ours: Distribution, theirs: Distribution) -> str:
    """What the Fréchet distance is called: ``fid`` and ``fvd`` only for the networks that define them, else ``fd``."""
    told = [found.about.get("network", {}).get("sha256") for found in (ours, theirs)]
    known = {file.sha256: FRECHET[name] for name, files in PUBLISHED.items() for file in files}
    return next((known[sha] for sha in told if sha in known), "fd")


def _possible(ours: Distribution, theirs: Distribution, wanted: frozenset[str]) -> list[str]:
    metrics = [distance_name(ours, theirs)]
    if ours.scores is not None and "is" in wanted:
        metrics.append("is")
    if ours.features is not None and theirs.features is not None:
        metrics += ["kid", "precision", "recall"]
    if ours.agreement is not None:
        metrics.append("agreement")
    return metrics


def measure(
    metric: str, ours: Distribution, theirs: Distribution, *, distance: str, seed: int = 0, device: str = "cpu"
) -> Figure:
    """One figure; UsageError where the inputs do not hold what it needs."""
    if metric in DISTANCES:
        return _distance(metric, ours, theirs, distance)
    label = OTHERWISE.get(metric, LABELS[metric]) if distance == "fd" else LABELS[metric]
    if metric == "is":
        if ours.scores is None:
            raise UsageError(f"--metrics is: {ours.name} holds no class probabilities, give the pictures themselves")
        mean, deviation, splits = ours.scores.score()
        return Figure(metric=metric, label=label, value=mean, deviation=deviation, detail=f"{splits} splits")
    if metric == "agreement":
        if ours.agreement is None:
            raise UsageError(
                f"--metrics agreement: {ours.name} and the network share no names of classes; expected folders named "
                "as the classes that the network's file lists"
            )
        return Figure(metric=metric, label=label, value=ours.agreement, detail="by the names in the network's file")
    points, manifold = (ours, theirs) if metric != "recall" else (theirs, ours)
    inner, outer = _features(metric, points), _features(metric, manifold)
    if metric == "kid":
        mean, deviation, size = kernel_distance(inner, outer, seed=seed)
        return Figure(metric=metric, label=label, value=mean, deviation=deviation, detail=f"100 subsets of {size}")
    told = f"{NEIGHBOURS} neighbours, {len(inner)} features within {len(outer)}"
    return Figure(metric=metric, label=label, value=share_within(inner, outer, device=device), detail=told)


def _distance(metric: str, ours: Distribution, theirs: Distribution, distance: str) -> Figure:
    _check_distance(metric, distance)
    value = frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
    return Figure(metric=metric, label=LABELS[metric], value=value)


def _check_distance(metric: str, distance: str) -> None:
    if metric not in ("fd", distance):
        raise UsageError(
            f"--metrics {metric}: the features are of another network than {metric} is defined by; "
            "expected fd, or --features with the right one"
        )


def _features(metric: str, found: Distribution) -> FeatureFile:
    if found.features is None:
        raise UsageError(
            f"--metrics {metric}: {found.name} holds no single features; make it with grn eval stats "
            "--keep-features, or give the pictures themselves"
        )
    return found.features
