"""``grn eval recon``: how well pictures come back from their bits (paper section 4.1, Tables 1, 2 and 9).

A picture is encoded once and decoded from each number of rounds asked for; or the decoded pictures are there already,
in a bit store or in a folder of another tokenizer's reconstructions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grncli.evaluation.pairs import Rounds, open_pairs
from grncli.evaluation.picture_sources import Measured, Reading, Say
from grncli.evaluation.statistics import Collector, OneSize, Report, counted
from grncli.media.writing import contact_sheet
from grncli.metrics.feature_networks import FeatureNetwork, Features, load_feature_network
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.metrics.pairwise import Spread, Tally
from grncli.metrics.quality import LARGER_IS_BETTER, LPIPS_NETWORKS, METRICS, Metric, lpips_metric, measure_frames
from grncli.runs.weight_files import default_cache
from grncli.runtime.errors import CheckpointError, MediaError, UsageError
from grncli.runtime.processes import ALONE, Processes
from grncli.runtime.stopping import Stop

FRECHET = ("rfid", "rfvd", "rfd")  # by Inception, by I3D, by any other network
SHEET_SPREAD, SHEET_WORST = 6, 4

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ReconSettings:
    """The options of ``grn eval recon``."""

    reading: Reading
    rounds: tuple[Rounds, ...] | None = None  # None takes those the tokenizer was trained for
    metrics: tuple[str, ...] | None = None  # None takes what there are weights for
    features: str | None = None  # network of rfd
    compare: str | None = None  # SRC of a store
    reconstructions: str | None = None  # decoded by others
    lpips: Path | None = None
    cache: Path = field(default_factory=default_cache)
    download: bool = False


@dataclass(frozen=True, kw_only=True)
class ReconRow:
    """What one number of rounds is worth."""

    rounds: Rounds
    label: str
    spreads: dict[str, Spread]
    distances: dict[str, float]
    """Fréchet distances between originals and reconstructions, by their names."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What ``reconstruction`` found."""

    src: str
    about: dict[str, Any]
    tokenizer: dict[str, str] | None
    samples: int
    failed: int
    rows: list[ReconRow]
    networks: dict[str, dict[str, Any]]
    """Name, file and input of the feature network behind each Fréchet distance, and how many vectors it gave."""
    warnings: list[str]
    sheet: Frames = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the picture; null for what is not defined."""
        rows = [
            {
                "rounds": row.rounds,
                "label": row.label,
                "metrics": {name: _spread_json(spread) for name, spread in row.spreads.items()},
                "distances": row.distances,
            }
            for row in self.rows
        ]
        plain = {name: value for name, value in vars(self).items() if name not in ("rows", "sheet")}
        return {"kind": "recon", **plain, "rows": rows}


def _spread_json(spread: Spread) -> dict[str, Any]:
    told = vars(spread) | {"worst": [{"name": n, "frame": f, "value": v} for n, f, v in spread.worst]}
    return {name: None if value != value else value for name, value in told.items()}


@dataclass
class Compared:
    """One sample: metrics of its frames and features, for each row, and its middle frames."""

    metrics: list[dict[str, list[float]]]
    features: dict[str, tuple[Features, list[Features]]]  # of the original, and of each row
    pictures: list[Frames]


class Meter:
    """Measures batches of reconstructions against their originals, and sums up."""

    def __init__(self, rows: int, metrics: Mapping[str, Metric], networks: Mapping[str, FeatureNetwork]) -> None:
        self.metrics = metrics
        self.tallies = [
            {name: Tally(larger_is_better=name in LARGER_IS_BETTER) for name in metrics} for _ in range(rows)
        ]
        self.collectors = {name: [Collector(network) for _ in range(rows + 1)] for name, network in networks.items()}
        self.samples = 0

    def measure(self, originals: Tensor, versions: Sequence[Tensor]) -> list[Compared]:
        """Each sample of uint8 ``[B, T, H, W, 3]``; a version for each row."""
        measured = [measure_frames(self.metrics, version, originals) for version in versions]
        seen = {
            name: [
                collector.compute(frames) for collector, frames in zip(collectors, (originals, *versions), strict=True)
            ]
            for name, collectors in self.collectors.items()
        }
        middle = originals.shape[1] // 2
        pictures = [frames[:, middle].cpu().numpy() for frames in (originals, *versions)]
        return [
            Compared(
                [row[i] for row in measured],
                {name: (first[i], [row[i] for row in rest]) for name, (first, *rest) in seen.items()},
                [picture[i].copy() for picture in pictures],
            )
            for i in range(len(originals))
        ]

    def add(self, place: int, name: str, compared: Compared) -> None:
        """Count one sample."""
        self.samples += 1
        for tallies, metrics in zip(self.tallies, compared.metrics, strict=True):
            for metric, values in metrics.items():
                tallies[metric].add(place, name, values)
        for network, (original, versions) in compared.features.items():
            for collector, features in zip(self.collectors[network], (original, *versions), strict=True):
                collector.add(place, features)

    def meet(self, processes: Processes) -> None:
        """Put together what the processes have counted."""
        own = [{name: tally.rows() for name, tally in tallies.items()} for tallies in self.tallies]
        for rank, others in enumerate(processes.gather_json(own)):
            if rank != processes.rank:
                for tallies, rows in zip(self.tallies, others, strict=True):
                    for name, tally in tallies.items():
                        tally.merge([(row[0], row[1], row[2], row[3]) for row in rows[name]])
        self.samples = processes.count_all(self.samples)

    def distances(self, processes: Processes) -> tuple[list[dict[str, float]], dict[str, int]]:
        """Fréchet distances of each row, and how many vectors each network gave."""
        rows: list[dict[str, float]] = [{} for _ in self.tallies]
        counts = {}
        for name, collectors in self.collectors.items():
            original, *versions = (each.distribution({"src": "originals"}, processes) for each in collectors)
            counts[name] = original.count or 0
            for row, version in zip(rows, versions, strict=True):
                row[name] = frechet_distance(original.mean, original.covariance, version.mean, version.covariance)
        return rows, counts


def reconstruction(
    src: str,
    settings: ReconSettings,
    *,
    processes: Processes = ALONE,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Say = lambda text: None,
) -> Reconstruction:
    """Measure what comes back of the pictures of ``src``.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If options contradict each other, nothing can be read, pairs do not fit, or weights are missing.
    Unfinished
        If ``stop`` asked for it.
    """
    stop = stop or Stop()
    pairs = open_pairs(src, settings.reading, settings.rounds, settings.compare, settings.reconstructions, say=say)
    metrics, networks = choose_metrics(settings, say)
    meter = Meter(len(pairs.rows), metrics, networks)
    gallery = _Gallery(len(pairs.pictures), next(iter(metrics), None))
    sizes = OneSize(wanted=settings.reading.size is None and bool(networks))
    found = pairs.compare(meter.measure, (processes.rank, processes.count), stop, say)
    for measured in counted(found, len(pairs.pictures), sizes, processes, stop, report):
        meter.add(measured.place, measured.name, measured.result)
        gallery.add(measured)
    meter.meet(processes)
    if not meter.samples:
        raise MediaError(f"{src}: none of its {len(pairs.pictures)} samples could be compared")
    distances, counts = meter.distances(processes)
    rows = [
        ReconRow(
            rounds=m,
            label=label,
            spreads={name: tally.spread() for name, tally in tallies.items()},
            distances=apart,
        )
        for (m, label), tallies, apart in zip(pairs.rows, meter.tallies, distances, strict=True)
    ]
    return Reconstruction(
        src=src,
        about=pairs.pictures.about(),
        tokenizer=pairs.tokenizer,
        samples=meter.samples,
        failed=processes.count_all(pairs.failed),
        rows=rows,
        networks={
            name: {"name": n.name, "sha256": n.sha256, "input": n.size_note, "vectors": counts[name]}
            for name, n in networks.items()
        },
        warnings=[
            warning
            for name, each in meter.collectors.items()
            for warning in few_samples(src, counts[name], each[0].dimensions, name.removeprefix("r"))
        ],
        sheet=gallery.picture([label for _, label in pairs.rows]),
    )


def choose_metrics(settings: ReconSettings, say: Say) -> tuple[dict[str, Metric], dict[str, FeatureNetwork]]:
    """Metrics of pairs and networks of Fréchet distances; without a wish, those that there are weights for."""
    wanted = settings.metrics
    known = (*METRICS, *LPIPS_NETWORKS, *FRECHET)
    for name in wanted or ():
        if name not in known:
            raise UsageError(f"--metrics {name}: there is no such metric, expected some of {', '.join(known)}")
    if wanted and settings.features is not None and not set(wanted) & set(FRECHET):
        raise UsageError(f"--features {settings.features}: --metrics has no Fréchet distance, expected rfd among them")
    if wanted and settings.lpips is not None and not set(wanted) & LPIPS_NETWORKS.keys():
        raise UsageError(f"--lpips {settings.lpips}: --metrics has no LPIPS, expected lpips or lpips-vgg among them")
    metrics: dict[str, Metric] = {name: metric for name, metric in METRICS.items() if not wanted or name in wanted}
    device, download = settings.reading.device, settings.download
    for name, network in LPIPS_NETWORKS.items():
        if name in (wanted or ("lpips",)):
            try:
                metrics[name] = lpips_metric(
                    network, settings.lpips, cache=settings.cache / "lpips", device=device, download=download, say=say
                )
            except CheckpointError:
                if wanted or settings.lpips is not None:
                    raise
    return metrics, _choose_networks(settings, wanted, say)


def _choose_networks(settings: ReconSettings, wanted: tuple[str, ...] | None, say: Say) -> dict[str, FeatureNetwork]:
    if wanted is None and settings.features is None:
        return {}
    if wanted is not None and "rfd" in wanted and settings.features is None:
        raise UsageError("--metrics rfd needs --features FILE|RUN, the network whose features are compared")
    which = {"rfid": "inception", "rfvd": "i3d"}
    found: dict[str, FeatureNetwork] = {}
    for name in wanted if wanted is not None else ("rfd",):
        if name not in FRECHET:
            continue
        origin = settings.features if settings.features is not None else which[name]
        network = load_feature_network(
            origin,
            cache=settings.cache / "features",
            download=settings.download,
            device=settings.reading.device,
            say=say,
        )
        label = f"r{network.frechet}"
        if name != label and wanted is not None and name != "rfd":
            raise UsageError(
                f"--metrics {name}: {origin} is not the network that {name} is defined by; expected rfd with it"
            )
        found[label] = network
    return found


class _Gallery:
    """Pictures for a sheet: some, evenly spread, then those furthest from their originals; of this process."""

    def __init__(self, samples: int, metric: str | None) -> None:
        spread = np.linspace(0, max(0, samples - 1), SHEET_SPREAD).round().astype(int)
        self._shown = set(spread.tolist())
        self._metric = metric
        self._spread: dict[int, list[Frames]] = {}
        self._worst: list[tuple[float, int, int, list[Frames]]] = []
        self._seen = 0

    def add(self, measured: Measured[Compared]) -> None:
        compared = measured.result
        self._seen += 1
        if measured.place in self._shown:
            self._spread.setdefault(measured.place, compared.pictures)
        values = compared.metrics[-1].get(self._metric or "", [])
        mean = sum(values) / len(values) if values else math.nan
        if mean == mean:
            signed = mean if self._metric in LARGER_IS_BETTER else -mean
            entry = (signed, measured.place, self._seen, compared.pictures)
            self._worst = sorted([*self._worst, entry], key=lambda each: each[:3])
            del self._worst[SHEET_WORST:]

    def picture(self, labels: Sequence[str]) -> Frames:
        """uint8 ``[H, W, 3]``: a row for each sample, the original first."""
        rows = [pictures for _, pictures in sorted(self._spread.items())]
        captions = ["source", *labels] * len(rows)
        for value, _, _, pictures in self._worst:
            rows.append(pictures)
            captions += ["among the worst", *[""] * (len(labels) - 1), f"{self._metric} {abs(value):.4g}"]
        return contact_sheet(rows, captions, cell=128)
