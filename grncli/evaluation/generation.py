"""``grn eval gen``: how samples compare with real pictures, and what they cost (paper section 4.2, Table 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from grncli.evaluation.feature_collection import NetworkOptions, collect
from grncli.evaluation.measuring import PictureReading, show_size
from grncli.evaluation.picture_arrays import ArrayPictures, holds_pictures
from grncli.evaluation.picture_sources import open_pictures, open_tokenizer_of
from grncli.evaluation.sampling_costs import Cost, cost_of
from grncli.metrics.distributions import NEIGHBOURS, kid, precision, recall
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.feature_networks import FRECHET, PUBLISHED, FeatureNetwork
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.metrics.statistics_files import Distribution, holds_statistics, read_statistics, same_network
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import or_null
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes

LABELS = {
    "fid": "FID",
    "fvd": "FVD",
    "fd": "Fréchet distance",
    "is": "Inception Score",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "class-accuracy": "class accuracy",
}
OTHERWISE = {"is": "class score", "kid": "kernel distance"}  # what these are called without Inception
RENAMED = {"agreement": "class-accuracy"}
DISTANCES = ("fid", "fvd", "fd")
FROM_FEATURES = frozenset({"kid", "precision", "recall"})
FROM_CLASSES = frozenset({"is", "class-accuracy"})


@dataclass(frozen=True, kw_only=True)
class GenSettings:
    """The options of ``grn eval gen``."""

    reading: PictureReading
    metrics: tuple[str, ...] | None = None  # None takes what the inputs allow
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    seed: int = 0  # of KID's subsets


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One number, and how it was computed."""

    metric: str
    label: str
    """The metric's name; those that are defined by Inception are called otherwise in the features of others."""
    value: float
    deviation: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        return {
            "metric": self.metric,
            "value": or_null(self.value),
            **({} if self.deviation is None else {"deviation": or_null(self.deviation)}),
            **({"detail": self.detail} if self.detail else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The result of `generation`."""

    samples: dict[str, Any]
    """Where they are from, how many, and the network and size they were seen with."""
    reference: dict[str, Any]
    figures: list[MetricValue]
    cost: Cost | None
    warnings: list[str]

    def value(self, metric: str) -> float:
        """A figure by the name of its metric; KeyError where it was not measured."""
        return {figure.metric: figure.value for figure in self.figures}[metric]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        return {
            "kind": "gen",
            "samples": self.samples,
            "reference": self.reference,
            "figures": [figure.to_json() for figure in self.figures],
            "cost": None if self.cost is None else self.cost.to_json(),
            "warnings": self.warnings,
        }


def generation(
    samples: str,
    reference: str,
    settings: GenSettings,
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> Generation:
    """Compare samples with a reference: media, bit stores, arrays of pictures or statistics files, each of the two.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If inputs and options do not go together, nothing can be read, or weights are missing.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor = monitor or Monitor()
    pictures = [path for path in (samples, reference) if not holds_statistics(Path(path))]
    check_metrics(settings.metrics)
    check_options(samples, reference, pictures, settings)
    reading = open_tokenizer_of(settings.reading, pictures, monitor.say)
    defining = "i3d" if "fvd" in (settings.metrics or ()) else "inception"
    network = settings.networks.open(defining, reading, monitor.say) if pictures else None
    wanted = _possible_with(network, settings.metrics)
    # The reference first: most mistakes are in it, and it is often a file that is read quickly.
    theirs = load_distribution(reference, network, reading, wanted - FROM_CLASSES, processes=processes, monitor=monitor)
    if settings.metrics and wanted & FROM_FEATURES:
        _features(min(wanted & FROM_FEATURES), theirs)  # refused before a pass over the samples
    ours = load_distribution(samples, network, reading, wanted, processes=processes, monitor=monitor)
    doubts = check_together(ours, theirs, settings.reading.size)
    distance, device = distance_name(ours, theirs), settings.reading.device
    few = [text for side in (ours, theirs) for text in few_samples(side.name, side.count, len(side.mean), distance)]
    return Generation(
        samples=ours.about,
        reference=theirs.about,
        figures=[
            measure(metric, ours, theirs, distance=distance, seed=settings.seed, device=device)
            for metric in dict.fromkeys(settings.metrics or _possible_of(ours, theirs, wanted))
        ],
        cost=cost_of(Path(samples), settings.reading.selection),
        warnings=list(dict.fromkeys([*doubts, *few])),
    )


def check_metrics(metrics: Sequence[str] | None) -> None:
    """Refuse names that are no metric."""
    for name in metrics or ():
        if name in RENAMED:
            raise UsageError(f"--metrics {name}: is called {RENAMED[name]} now")
        if name not in LABELS:
            raise UsageError(f"--metrics {name}: there is no such metric, expected some of {', '.join(LABELS)}")


def check_options(samples: str, reference: str, pictures: Sequence[str], settings: GenSettings) -> None:
    """Refuse options that have no effect on a comparison."""
    if samples == reference == "-":
        raise UsageError("SAMPLES and --reference are both standard input; expected paths on it for one of them")
    reading = settings.reading
    for name, value in {
        "--features": settings.networks.features,
        "--size": reading.size,
        "--frames": reading.frames,
        "--fps": reading.fps,
        "--limit": reading.limit,
        "--sample": reading.sample,
    }.items():
        if value is not None and not pictures:
            raise UsageError(f"{name} {value}: is for pictures, and both sides are statistics; leave the option out")


def _possible_with(network: FeatureNetwork | None, metrics: tuple[str, ...] | None) -> frozenset[str]:
    """The metrics to collect features for; UsageError where a named one does not fit the network."""
    wanted = frozenset(metrics or FROM_FEATURES | FROM_CLASSES)
    if network is None:
        return wanted
    if not network.classifies:
        if metrics and wanted & FROM_CLASSES:
            name = min(wanted & FROM_CLASSES)
            raise UsageError(f"--metrics {name} needs class probabilities, and {network.name} gives none")
        wanted -= FROM_CLASSES
    for metric in metrics or ():
        if metric in DISTANCES:
            _check_distance(metric, network.frechet)
    return wanted


def load_distribution(
    src: str,
    network: FeatureNetwork | None,
    reading: PictureReading,
    wanted: frozenset[str],
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> Distribution:
    """Statistics from a file, or of pictures in the features of ``network``, with what the ``wanted`` metrics need."""
    keep, path = bool(wanted & FROM_FEATURES), Path(src)
    if not holds_statistics(path):
        assert network is not None
        return collect(
            open_pictures(src, reading, say=(monitor or Monitor()).say),
            network,
            keep=keep,
            probabilities=bool(wanted & FROM_CLASSES),
            one_size=reading.size is None,
            processes=processes,
            monitor=monitor,
        )
    statistics = read_statistics(path)
    if not keep or statistics.features is not None or network is None or not holds_pictures(path):
        return statistics
    # A reference batch of guided-diffusion: moments of all pictures, and some of the pictures themselves.
    array = ArrayPictures(path, PictureReading(batch=reading.batch))
    quiet = None if monitor is None else Monitor(stop=monitor.stop)
    some = collect(array, network, keep=True, processes=processes, monitor=quiet)
    same_network(some, statistics)
    about = {**statistics.about, "features_of": f"{some.count} pictures in the file"}
    return replace(statistics, features=some.features, about=about)


def check_together(ours: Distribution, theirs: Distribution, size: str | None) -> list[str]:
    """Warnings about a comparison; UsageError where the two sides do not compare."""
    same_network(ours, theirs)
    left, right = (side.about.get("picture") for side in (ours, theirs))
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


def unsaid(statistics: Distribution) -> list[str]:
    """Warnings about statistics that do not say how they were made."""
    wanted = (("network", "which network made it"), ("picture", "the size of its pictures"))
    return [f"{statistics.name} does not say {what}" for name, what in wanted if name not in statistics.about]


def distance_name(ours: Distribution, theirs: Distribution) -> str:
    """What the Fréchet distance is called: ``fid`` and ``fvd`` only for the networks that define them, else ``fd``."""
    seen_by = [side.about.get("network", {}).get("sha256") for side in (ours, theirs)]
    known = {file.sha256: FRECHET[name] for name, files in PUBLISHED.items() for file in files}
    return next((known[sha256] for sha256 in seen_by if sha256 in known), "fd")


def _possible_of(ours: Distribution, theirs: Distribution, wanted: frozenset[str]) -> list[str]:
    metrics = [distance_name(ours, theirs)]
    if ours.scores is not None and "is" in wanted:
        metrics.append("is")
    if ours.features is not None and theirs.features is not None:
        metrics += ["kid", "precision", "recall"]
    if ours.class_accuracy is not None:
        metrics.append("class-accuracy")
    return metrics


def measure(
    metric: str, ours: Distribution, theirs: Distribution, *, distance: str, seed: int = 0, device: str = "cpu"
) -> MetricValue:
    """One figure; UsageError where the inputs do not hold what it needs."""
    label = OTHERWISE.get(metric, LABELS[metric]) if distance == "fd" else LABELS[metric]
    figure = partial(MetricValue, metric=metric, label=label)
    if metric in DISTANCES:
        _check_distance(metric, distance)
        return figure(value=frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance))
    if metric == "is":
        if ours.scores is None:
            raise UsageError(f"--metrics is: {ours.name} holds no class probabilities, give the pictures themselves")
        mean, deviation, splits = ours.scores.score()
        return figure(value=mean, deviation=deviation, detail=f"{splits} splits")
    if metric == "class-accuracy":
        if ours.class_accuracy is None:
            raise UsageError(
                f"--metrics class-accuracy: {ours.name} and the network share no names of classes; expected folders "
                "named as the classes that the network's file lists"
            )
        return figure(value=ours.class_accuracy, detail="by the names in the network's file")
    samples, real = _features(metric, ours), _features(metric, theirs)
    if metric == "kid":
        mean, deviation, size = kid(samples, real, seed=seed)
        return figure(value=mean, deviation=deviation, detail=f"100 subsets of {size}")
    sizes = f"{NEIGHBOURS} neighbours, {{}} features within {{}}"
    if metric == "precision":
        return figure(value=precision(samples, real, device=device), detail=sizes.format(len(samples), len(real)))
    return figure(value=recall(samples, real, device=device), detail=sizes.format(len(real), len(samples)))


def _check_distance(metric: str, distance: str) -> None:
    if metric not in ("fd", distance):
        raise UsageError(
            f"--metrics {metric}: the features are of another network than {metric} is defined by; "
            "expected fd, or --features with the right one"
        )


def _features(metric: str, side: Distribution) -> FeatureFile:
    if side.features is None:
        raise UsageError(
            f"--metrics {metric}: {side.name} holds no single features; make it with grn eval stats "
            "--keep-features, or give the pictures themselves"
        )
    return side.features
