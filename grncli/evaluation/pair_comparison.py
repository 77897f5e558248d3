"""How far pictures are from their originals, in one pass over pairs: what ``grn eval recon`` and
``grn quantize-stats --media`` report, each in its own way.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grncli.evaluation.exhibits import Exhibit
from grncli.evaluation.feature_collection import Collector
from grncli.evaluation.measuring import Measured, OneSize, measured_by_all
from grncli.evaluation.pair_gallery import Candidate, PairGallery
from grncli.evaluation.pairs import Pairs, Rounds, Version
from grncli.media.writing import Frames
from grncli.metrics.feature_networks import FeatureNetwork, Features
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.metrics.pairwise import FeatureErrors, Spread, Tally
from grncli.metrics.quality import LARGER_IS_BETTER, Metric, measure_frames
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes


@dataclass(frozen=True, kw_only=True)
class ReconRow:
    """The figures of one number of rounds."""

    rounds: Rounds
    label: str
    spreads: dict[str, Spread]
    distances: dict[str, float]
    """Fréchet distances between originals and reconstructions, by their names."""
    errors: FeatureErrors = field(default_factory=FeatureErrors)
    """Of the features that were quantized here, none for the continuous feature."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined."""
        metrics = {name: spread.to_json() for name, spread in self.spreads.items()}
        return {"rounds": self.rounds, "label": self.label, "metrics": metrics, "distances": self.distances}


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """The result of `compare`."""

    src: str
    about: dict[str, Any]
    """How the pictures were read."""
    tokenizer: dict[str, str] | None
    images: int
    clips: int
    failed: int
    rows: list[ReconRow]
    networks: dict[str, dict[str, Any]]
    """Name, file and input of the feature network behind each Fréchet distance, and how many vectors it gave."""
    warnings: list[str]
    sheet: Frames = field(repr=False)
    """uint8 ``[H, W, 3]``: originals and their reconstructions."""
    exhibits: list[Exhibit] = field(default_factory=list, repr=False)
    """The same pictures, with their names."""

    @property
    def samples(self) -> int:
        """Images and clips."""
        return self.images + self.clips

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the picture; null for what is not defined."""
        return {
            "kind": "recon",
            "src": self.src,
            "about": self.about,
            "tokenizer": self.tokenizer,
            "samples": self.samples,
            "failed": self.failed,
            "networks": self.networks,
            "warnings": self.warnings,
            "rows": [row.to_json() for row in self.rows],
        }


def compare(
    pairs: Pairs,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    *,
    one_size: bool = False,
    spread: int,
    worst: int = 0,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> PairComparison:
    """Measure every pair, in one pass.

    Parameters
    ----------
    metrics, networks : measured of every version, by the names they are reported under
    one_size : expect pictures of one size
    spread, worst : samples on the sheet: evenly spread ones, and those furthest from their originals

    Raises
    ------
    UsageError, MediaError
        If pairs do not fit, or nothing can be read.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor, total = monitor or Monitor(), len(pairs.pictures)
    meter = Meter(len(pairs.rows), metrics, networks)
    ranked_by = next(iter(metrics), None)
    gallery = PairGallery(total, spread=spread, worst=worst, largest_first=ranked_by not in LARGER_IS_BETTER)
    measured = pairs.compare(meter.measure, (processes.rank, processes.count), monitor)
    for each in measured_by_all(measured, total, OneSize(wanted=one_size), processes, monitor):
        meter.add(each)
        gallery.add(_candidate(each, ranked_by))
    meter.merge(processes)
    gallery.merge(processes)
    if not meter.images + meter.clips:
        raise MediaError(f"{pairs.pictures.src}: none of its {total} sources could be read")
    rows, counts = meter.rows(pairs.rows, processes)
    labels = [label for _, label in pairs.rows]
    return PairComparison(
        src=pairs.pictures.src,
        about=pairs.pictures.about(),
        tokenizer=pairs.tokenizer,
        images=meter.images,
        clips=meter.clips,
        failed=processes.count_all(pairs.failed),
        rows=rows,
        networks={name: network.about() | {"vectors": counts[name]} for name, network in networks.items()},
        warnings=[
            warning
            for name, each in meter.collectors.items()
            for warning in few_samples(pairs.pictures.src, counts[name], each[0].dimensions, name.removeprefix("r"))
        ],
        sheet=gallery.sheet(labels, ranked_by),
        exhibits=gallery.exhibits(labels, ranked_by, pairs.pictures.src),
    )


@dataclass
class Compared:
    """One sample; the lists have an entry for each version."""

    pictures: list[Frames]
    """The middle frame of the original, then of each version."""
    features: dict[str, list[Features]]
    """By network: of the original, then of each version."""
    metrics: list[dict[str, list[float]]] = field(default_factory=list)
    """Of each frame."""
    errors: list[tuple[float, float, int] | None] = field(default_factory=list)
    """Largest and mean error of its features, and their number."""


class Meter:
    """Measures batches of reconstructions against their originals, and sums up."""

    def __init__(self, rows: int, metrics: Mapping[str, Metric], networks: Mapping[str, FeatureNetwork]) -> None:
        self.metrics = metrics
        self.tallies = [
            {name: Tally(larger_is_better=name in LARGER_IS_BETTER) for name in metrics} for _ in range(rows)
        ]
        self.errors = [FeatureErrors() for _ in range(rows)]
        self.collectors = {name: [Collector(network) for _ in range(rows + 1)] for name, network in networks.items()}
        self.images = self.clips = 0

    def measure(self, originals: Tensor, versions: Iterable[Version]) -> list[Compared]:
        """Each sample of uint8 ``[B, T, H, W, 3]``; a version for each row, made when it is asked for."""
        middle = originals.shape[1] // 2
        features = {name: collectors[0].compute(originals) for name, collectors in self.collectors.items()}
        samples = [
            Compared([picture.copy()], {name: [each[i]] for name, each in features.items()})
            for i, picture in enumerate(originals[:, middle].cpu().numpy())
        ]
        for row, version in enumerate(versions, start=1):
            measured = measure_frames(self.metrics, version.frames, originals)
            seen = {name: collectors[row].compute(version.frames) for name, collectors in self.collectors.items()}
            pictures = version.frames[:, middle].cpu().numpy()
            errors = _summarized(version.errors) if version.errors is not None else [None] * len(samples)
            for i, sample in enumerate(samples):
                sample.metrics.append(measured[i])
                sample.errors.append(errors[i])
                sample.pictures.append(pictures[i].copy())
                for name, each in seen.items():
                    sample.features[name].append(each[i])
        return samples

    def add(self, measured: Measured[Compared]) -> None:
        """Count one sample."""
        compared = measured.result
        self.images += measured.shape[0] == 1
        self.clips += measured.shape[0] > 1
        for tallies, errors, metrics, error in zip(
            self.tallies, self.errors, compared.metrics, compared.errors, strict=True
        ):
            for metric, values in metrics.items():
                tallies[metric].add(measured.place, measured.name, values)
            if error is not None:
                errors.add(*error)
        for network, features in compared.features.items():
            for collector, each in zip(self.collectors[network], features, strict=True):
                collector.add(measured.place, each)

    def merge(self, processes: Processes) -> None:
        """Merge the sums of all processes."""
        own = {
            "rows": [{name: tally.rows() for name, tally in tallies.items()} for tallies in self.tallies],
            "errors": [[errors.largest, errors.total, errors.features] for errors in self.errors],
        }
        for rank, other in enumerate(processes.gather_json(own)):
            if rank == processes.rank:
                continue
            for tallies, rows in zip(self.tallies, other["rows"], strict=True):
                for name, tally in tallies.items():
                    tally.merge([(row[0], row[1], row[2], row[3]) for row in rows[name]])
            for errors, (largest, total, features) in zip(self.errors, other["errors"], strict=True):
                errors.merge(largest, total, features)
        self.images, self.clips = processes.count_all(self.images), processes.count_all(self.clips)

    def rows(self, rows: Sequence[tuple[Rounds, str]], processes: Processes) -> tuple[list[ReconRow], dict[str, int]]:
        """The figures of each row, and how many vectors each network gave."""
        distances: list[dict[str, float]] = [{} for _ in rows]
        counts = {}
        for name, collectors in self.collectors.items():
            original, *versions = (each.distribution({"src": "originals"}, processes) for each in collectors)
            counts[name] = original.count or 0
            for apart, version in zip(distances, versions, strict=True):
                apart[name] = frechet_distance(original.mean, original.covariance, version.mean, version.covariance)
        return [
            ReconRow(
                rounds=m,
                label=label,
                spreads={name: tally.spread() for name, tally in tallies.items()},
                distances=apart,
                errors=errors,
            )
            for (m, label), tallies, apart, errors in zip(rows, self.tallies, distances, self.errors, strict=True)
        ], counts


def _summarized(errors: Tensor) -> list[tuple[float, float, int]]:
    """Largest and mean of errors ``[B, n]``, and n."""
    largest_and_mean = torch.stack([errors.amax(dim=1), errors.mean(dim=1)], dim=1).tolist()
    return [(largest, mean, errors.shape[1]) for largest, mean in largest_and_mean]


def _candidate(measured: Measured[Compared], metric: str | None) -> Candidate:
    """A sample for the gallery, ranked by a metric of its last version."""
    values = measured.result.metrics[-1].get(metric or "", [])
    mean = sum(values) / len(values) if values else math.nan
    return Candidate(measured.place, measured.name, mean, measured.shape[0], measured.result.pictures)
