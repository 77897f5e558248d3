"""``grn eval gen``: how samples compare with real pictures and with their prompts, and what they cost (paper section
4.2, Table 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.evaluation.exhibits import Exhibit
from grncli.evaluation.feature_collection import Collector, NetworkOptions
from grncli.evaluation.measuring import PictureReading, Pictures
from grncli.evaluation.observing import Observer, observe
from grncli.evaluation.picture_sources import open_pictures, open_tokenizer_of
from grncli.evaluation.reference_statistics import check_together, load_distribution
from grncli.evaluation.sample_exhibits import (
    Ranking,
    by_steps,
    furthest_from_real,
    least_like_prompts,
    show_samples,
    taken_for_others,
)
from grncli.evaluation.sample_metrics import (
    DISTANCES,
    FROM_CLASSES,
    FROM_FEATURES,
    LABELS,
    RENAMED,
    TEXT_IMAGE,
    WITHOUT_REFERENCE,
    MetricValue,
    check_distance,
    class_figure,
    comparing_figure,
    distance_name,
    single_features,
    text_image_figure,
)
from grncli.evaluation.sampling_costs import Cost, cost_of, steps_by_place
from grncli.evaluation.text_image_scores import TextImageOptions, TextImageScore, TextImageScorer
from grncli.metrics.feature_networks import FeatureNetwork
from grncli.metrics.frechet import few_samples
from grncli.metrics.statistics_files import Distribution, holds_statistics
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes


@dataclass(frozen=True, kw_only=True)
class GenSettings:
    """The options of ``grn eval gen``."""

    reading: PictureReading
    metrics: tuple[str, ...] | None = None  # None takes what the inputs allow
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    text_image: TextImageOptions | None = None
    seed: int = 0  # of KID's subsets
    shows_pictures: bool = False  # reads some of the samples and the worst ones once more, for a page

    def sees_features(self, reference: str | None) -> bool:
        """Whether any metric is of the features of pictures."""
        return reference is not None if self.metrics is None else set(self.metrics) != {TEXT_IMAGE}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The result of `generation`."""

    samples: dict[str, Any]
    """Where they are from, how many, and the network and size they were seen with."""
    reference: dict[str, Any] | None
    text_image: dict[str, Any] | None
    """The network that compared samples and prompts, and how."""
    figures: list[MetricValue]
    cost: Cost | None
    warnings: list[str]
    exhibits: list[Exhibit] = field(default_factory=list, repr=False)
    """The worst samples by each measurement and some of all, where they were asked for."""

    def value(self, metric: str) -> float:
        """A figure by the name of its metric; KeyError where it was not measured."""
        return {figure.metric: figure.value for figure in self.figures}[metric]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        return {
            "kind": "gen",
            "samples": self.samples,
            "reference": self.reference,
            "text_image": self.text_image,
            "figures": [figure.to_json() for figure in self.figures],
            "cost": None if self.cost is None else self.cost.to_json(),
            "warnings": self.warnings,
        }


def generation(
    samples: str,
    reference: str | None,
    settings: GenSettings,
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> Generation:
    """Compare samples with a reference, with their prompts, or with both, in one pass over them.

    Samples and reference are media, bit stores, arrays of pictures or statistics files; only pictures compare with
    prompts.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If inputs and options do not go together, nothing can be read, or weights are missing.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor = monitor or Monitor()
    sides = [samples] if reference is None else [samples, reference]
    paths = [side for side in sides if not holds_statistics(Path(side))]
    check_metrics(settings, reference)
    check_options(samples, reference, paths, settings)
    reading = open_tokenizer_of(settings.reading, paths, monitor.say)
    network = _open_network(settings, reading, monitor.say) if paths and settings.sees_features(reference) else None
    wanted = _possible_with(network, settings.metrics)
    pictures = open_pictures(samples, reading, say=monitor.say) if samples in paths else None
    scorer = None
    if pictures is not None and settings.text_image is not None:
        scorer = TextImageScorer.open(pictures, settings.text_image, reading.device)
    theirs = None
    # Before the samples: most mistakes are in the reference, and it is often a file that is read quickly.
    if reference is not None:
        needed = wanted - FROM_CLASSES
        theirs = load_distribution(reference, network, reading, needed, processes=processes, monitor=monitor)
        if settings.metrics and wanted & FROM_FEATURES:
            single_features(min(wanted & FROM_FEATURES), theirs)  # refused before a pass over the samples
    ours: Distribution | None
    collector = None if network is None else _collector(network, wanted)
    if pictures is None:
        ours = load_distribution(samples, network, reading, wanted, processes=processes, monitor=monitor)
        about = ours.about
    else:
        about, ours = observe_samples(pictures, collector, scorer, reading, processes=processes, monitor=monitor)
    warnings = _warnings_of(ours, theirs, settings.reading.size)
    exhibits: list[Exhibit] = []
    if settings.shows_pictures and pictures is not None:
        rankings = _rankings(collector, scorer, ours, theirs, reading.device, processes)
        exhibits = _exhibits(pictures, rankings, processes, monitor)
    return Generation(
        samples=about,
        reference=None if theirs is None else theirs.about,
        text_image=None if scorer is None else scorer.about(),
        figures=_figures(ours, theirs, None if scorer is None else scorer.score(processes), wanted, settings),
        cost=None if pictures is None else cost_of(pictures),
        warnings=warnings,
        exhibits=exhibits,
    )


def _rankings(
    collector: Collector | None,
    scorer: TextImageScorer | None,
    ours: Distribution | None,
    theirs: Distribution | None,
    device: str,
    processes: Processes,
) -> list[Ranking]:
    """The worst samples by each measurement there is."""
    rankings = []
    if scorer is not None:
        rankings.append(least_like_prompts(scorer.scored(processes), scorer.prompt))
    if collector is not None:
        rankings.append(taken_for_others(collector.mistakes(processes)))
    if ours is not None and theirs is not None:
        rankings += furthest_from_real(ours, theirs, device=device)
    return rankings


def _exhibits(pictures: Pictures, rankings: list[Ranking], processes: Processes, monitor: Monitor) -> list[Exhibit]:
    """For the page that the first process writes."""
    if not processes.is_main:
        return []
    return show_samples(pictures, [*rankings, *by_steps(steps_by_place(pictures))], monitor)


def check_metrics(settings: GenSettings, reference: str | None) -> None:
    """Refuse names that are no metric, and metrics that lack what they compare with."""
    metrics, text_image = settings.metrics, settings.text_image
    for name in metrics or ():
        if name in RENAMED:
            raise UsageError(f"--metrics {name}: is called {RENAMED[name]} now")
        if name not in LABELS:
            raise UsageError(f"--metrics {name}: there is no such metric, expected some of {', '.join(LABELS)}")
        if reference is None and name not in WITHOUT_REFERENCE:
            raise UsageError(f"--metrics {name} compares with real pictures, expected --reference REF")
    if metrics is None and reference is None and text_image is None:
        raise UsageError("nothing to compare with, expected --reference REF or --text-image-network IMAGE TEXT")
    if metrics and TEXT_IMAGE in metrics and text_image is None:
        raise UsageError(f"--metrics {TEXT_IMAGE} needs --text-image-network IMAGE TEXT, the encoders of both")
    if metrics and TEXT_IMAGE not in metrics and text_image is not None:
        raise UsageError(f"--text-image-network is for the metric {TEXT_IMAGE}, which --metrics leaves out; add it")
    if reference is not None and metrics and set(metrics) <= {TEXT_IMAGE}:
        raise UsageError(f"--reference {reference}: {TEXT_IMAGE} compares with prompts alone; leave the option out")


def check_options(samples: str, reference: str | None, pictures: Sequence[str], settings: GenSettings) -> None:
    """Refuse options that have no effect on a comparison."""
    if samples == reference == "-":
        raise UsageError("SAMPLES and --reference are both standard input; expected paths on it for one of them")
    if settings.text_image is not None and samples not in pictures:
        raise UsageError(f"--text-image-network: {samples} holds statistics, give the pictures themselves")
    reading, features = settings.reading, settings.networks.features
    if features is not None and not settings.sees_features(reference):
        raise UsageError(f"--features {features}: {TEXT_IMAGE} is by --text-image-network alone; leave the option out")
    statistics = f"{samples} holds" if reference is None else "both sides are"
    for name, value in {
        "--features": features,
        "--size": reading.size,
        "--frames": reading.frames,
        "--fps": reading.fps,
        "--limit": reading.limit,
        "--sample": reading.sample,
    }.items():
        if value is not None and not pictures:
            raise UsageError(f"{name} {value}: is for pictures, and {statistics} statistics; leave the option out")


def _open_network(settings: GenSettings, reading: PictureReading, say: Say) -> FeatureNetwork:
    defining = "i3d" if "fvd" in (settings.metrics or ()) else "inception"
    return settings.networks.open(defining, reading, say)


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
            check_distance(metric, network.frechet)
    return wanted


def _collector(network: FeatureNetwork, wanted: frozenset[str]) -> Collector:
    return Collector(network, keep=bool(wanted & FROM_FEATURES), probabilities=bool(wanted & FROM_CLASSES))


def observe_samples(
    pictures: Pictures,
    collector: Collector | None,
    scorer: TextImageScorer | None,
    reading: PictureReading,
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> tuple[dict[str, Any], Distribution | None]:
    """Where samples are from, and their features; a ``scorer`` scores them in the same pass.

    Raises
    ------
    UsageError
        If their sizes differ and features are compared, or a network cannot take them.
    MediaError
        If none can be read.
    Unfinished
        If ``monitor`` asked for it.
    """
    observers: list[Observer[Any]] = [each for each in (collector, scorer) if each is not None]
    one_size = collector is not None and reading.size is None
    about = observe(pictures, observers, one_size=one_size, processes=processes, monitor=monitor)
    if collector is None:
        return about, None
    distribution = collector.distribution(about, processes)
    return distribution.about, distribution


def _figures(
    ours: Distribution | None,
    theirs: Distribution | None,
    text_image: TextImageScore | None,
    wanted: frozenset[str],
    settings: GenSettings,
) -> list[MetricValue]:
    possible = [] if ours is None else _possible_of(ours, theirs, wanted)
    possible += [] if text_image is None else [TEXT_IMAGE]
    figures = []
    for metric in dict.fromkeys(settings.metrics or possible):
        if metric == TEXT_IMAGE:
            assert text_image is not None
            figures.append(text_image_figure(text_image))
        elif metric in FROM_CLASSES:
            assert ours is not None
            figures.append(class_figure(metric, ours))
        else:
            assert ours is not None
            assert theirs is not None
            figures.append(comparing_figure(metric, ours, theirs, seed=settings.seed, device=settings.reading.device))
    return figures


def _possible_of(ours: Distribution, theirs: Distribution | None, wanted: frozenset[str]) -> list[str]:
    metrics = [] if theirs is None else [distance_name(ours, theirs)]
    if ours.scores is not None and "is" in wanted:
        metrics.append("is")
    if theirs is not None and ours.features is not None and theirs.features is not None:
        metrics += ["kid", "precision", "recall"]
    if ours.class_accuracy is not None:
        metrics.append("class-accuracy")
    return metrics


def _warnings_of(ours: Distribution | None, theirs: Distribution | None, size: str | None) -> list[str]:
    """About a comparison; UsageError where the two sides do not compare."""
    if ours is None or theirs is None:
        return []
    doubts, distance = check_together(ours, theirs, size), distance_name(ours, theirs)
    few = [text for side in (ours, theirs) for text in few_samples(side.name, side.count, len(side.mean), distance)]
    return list(dict.fromkeys([*doubts, *few]))
