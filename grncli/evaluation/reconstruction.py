"""``grn eval recon``: how well pictures are reconstructed from their bits (paper section 4.1, Tables 1, 2 and 9).

A picture is encoded once and decoded from each number of rounds asked for; or the decoded pictures are there already,
in a bit store or in a folder of another tokenizer's reconstructions.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.pair_comparison import PairComparison, compare
from grncli.evaluation.pairs import Rounds, open_pairs
from grncli.evaluation.picture_sources import open_once
from grncli.metrics.feature_networks import FeatureNetwork
from grncli.metrics.quality import LPIPS_NETWORKS, METRICS, Metric, open_metrics
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes

FRECHET_NETWORKS = {"rfid": "inception", "rfvd": "i3d", "rfd": None}  # the last by any other network
SHEET_SPREAD, SHEET_WORST = 6, 4


@dataclass(frozen=True, kw_only=True)
class ReconSettings:
    """The options of ``grn eval recon``."""

    reading: PictureReading
    rounds: tuple[Rounds, ...] | None = None  # None takes those the tokenizer was trained for
    metrics: tuple[str, ...] | None = None  # None takes what there are weights for
    # The features are those of rfd; the LPIPS weights are in the same cache.
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    compare: str | None = None  # SRC of a store
    reconstructions: str | None = None  # decoded by others
    lpips: Path | None = None


def reconstruction(
    src: str, settings: ReconSettings, *, processes: Processes = SINGLE_PROCESS, monitor: Monitor | None = None
) -> PairComparison:
    """Measure reconstructions of the pictures of ``src``.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If options contradict each other, nothing can be read, pairs do not fit, or weights are missing.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor = monitor or Monitor()
    if settings.reading.tokenizer is not None and settings.reconstructions is None:
        loaded = open_once(settings.reading.tokenizer, settings.reading.device, monitor.say)
        settings = replace(settings, reading=replace(settings.reading, tokenizer=loaded))
    pairs = open_pairs(
        src, settings.reading, settings.rounds, settings.compare, settings.reconstructions, say=monitor.say
    )
    metrics, networks = choose_metrics(settings, monitor.say)
    return compare(
        pairs,
        metrics,
        networks,
        one_size=settings.reading.size is None and settings.reading.budget is None and bool(networks),
        spread=SHEET_SPREAD,
        worst=SHEET_WORST,
        processes=processes,
        monitor=monitor,
    )


def choose_metrics(settings: ReconSettings, say: Say) -> tuple[dict[str, Metric], dict[str, FeatureNetwork]]:
    """Metrics of pairs and networks of Fréchet distances; by default those whose weights are present."""
    names, networks = settings.metrics, settings.networks
    known = (*METRICS, *LPIPS_NETWORKS, *FRECHET_NETWORKS)
    for name in names or ():
        if name not in known:
            raise UsageError(f"--metrics {name}: there is no such metric, expected some of {', '.join(known)}")
    if names and networks.features is not None and not set(names) & set(FRECHET_NETWORKS):
        raise UsageError(f"--features {networks.features}: --metrics has no Fréchet distance, expected rfd among them")
    if names and settings.lpips is not None and not set(names) & LPIPS_NETWORKS.keys():
        raise UsageError(f"--lpips {settings.lpips}: --metrics has no LPIPS, expected lpips or lpips-vgg among them")
    metrics = open_metrics(
        names or tuple(METRICS),
        optional=() if names else ("lpips",),
        lpips=settings.lpips,
        cache=networks.cache / "lpips",
        device=settings.reading.device,
        download=networks.download,
        say=say,
    )
    return metrics, _choose_networks(settings, say)


def _choose_networks(settings: ReconSettings, say: Say) -> dict[str, FeatureNetwork]:
    options = settings.networks
    if settings.metrics is None:
        names = [] if options.features is None else ["rfd"]
    else:
        names = [name for name in settings.metrics if name in FRECHET_NETWORKS]
    networks: dict[str, FeatureNetwork] = {}
    for name in names:
        origin = options.features or FRECHET_NETWORKS[name]
        if origin is None:
            raise UsageError("--metrics rfd needs --features FILE|RUN, the network whose features are compared")
        network = options.open(origin, settings.reading, say)
        label = f"r{network.frechet}"
        if name not in (label, "rfd"):
            raise UsageError(
                f"--metrics {name}: {origin} is not the network that {name} is defined by; expected rfd with it"
            )
        networks[label] = network
    return networks
