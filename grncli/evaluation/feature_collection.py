"""One pass over pictures through a feature network, in one process or several."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from grncli.evaluation.measuring import PictureReading, Pictures
from grncli.evaluation.observing import Observer, observe
from grncli.metrics.distributions import ClassScores
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.feature_networks import FeatureNetwork, Features, load_feature_network
from grncli.metrics.frechet import Moments
from grncli.metrics.statistics_files import Distribution
from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes

Mistake = tuple[int, str, str, float]
"""Place and class of a sample, and for which class it is taken with what probability."""

ADDED_AT_ONCE = 256  # vectors: each addition to a covariance reads and writes all of it


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which feature network is used, and where downloaded weights are."""

    features: str | None = None  # name, file or run; None takes the network that defines the metric
    cache: Path = field(default_factory=default_cache)  # of the weights of all networks
    download: bool = False  # fetch published weights that are missing

    def open(self, default: str, reading: PictureReading, say: Say) -> FeatureNetwork:
        """The network asked for, or else ``default``, on the device of ``reading``; see `load_feature_network`."""
        return load_feature_network(
            self.features or default,
            cache=self.cache / "features",
            download=self.download,
            device=reading.device,
            opened=reading.opened,
            say=say,
        )


class Collector(Observer[Features]):
    """Sums up the features of pictures.

    Parameters
    ----------
    keep : keep each feature vector too, for KID, precision and recall
    probabilities : count class probabilities, for the Inception Score
    """

    def __init__(self, network: FeatureNetwork, *, keep: bool = False, probabilities: bool = False) -> None:
        self.network = network
        self._keep = keep
        self._probabilities = probabilities
        self._moments: Moments | None = None
        self._features: FeatureFile | None = None
        self._scores: ClassScores | None = None
        self._waiting: list[tuple[int, Features, str | None]] = []
        self._rows = 0  # feature vectors that wait
        self._classified = np.zeros(2)  # pictures assigned to their own class, and pictures that have one
        self._mistakes: list[Mistake] = []

    @property
    def dimensions(self) -> int:
        """Length of a feature vector; 0 before the first."""
        return 0 if self._moments is None else self._moments.dimensions

    def compute(self, frames: Tensor) -> list[Features]:
        """Features of each sample of a batch, uint8 ``[B, T, H, W, 3]``."""
        try:
            features = self.network(frames, probabilities=self._probabilities)
        except ValueError as error:  # a size or length the network cannot take
            raise UsageError(str(error)) from None
        each = len(features.values) // len(frames)
        values, odds = features.values.cpu(), features.probabilities
        odds = None if odds is None else odds.cpu()
        rows = [slice(i * each, (i + 1) * each) for i in range(len(frames))]
        return [Features(values[row], None if odds is None else odds[row]) for row in rows]

    def add(self, place: int, features: Features, label: str | None = None) -> None:
        """Count one sample; ``label`` names its class."""
        self._waiting.append((place, features, label))
        self._rows += len(features.values)
        if self._rows >= ADDED_AT_ONCE:
            self._flush()

    def mistakes(self, processes: Processes = SINGLE_PROCESS) -> list[Mistake]:
        """The samples of all processes that are assigned to another class than their own."""
        return [(place, *rest) for part in processes.gather_json(self._mistakes) for place, *rest in part]

    def distribution(self, about: dict[str, Any], processes: Processes = SINGLE_PROCESS) -> Distribution:
        """The sums of all processes; MediaError where no picture was counted."""
        self._flush()
        self._merge(processes)
        if self._moments is None or not self._moments.count:
            raise MediaError(f"{about['src']}: none of its pictures could be read")
        return Distribution(
            mean=self._moments.mean,
            covariance=self._moments.covariance,
            count=self._moments.count,
            features=self._features,
            scores=self._scores,
            class_accuracy=float(self._classified[0] / self._classified[1]) if self._classified[1] else None,
            about={**about, "count": self._moments.count, "network": self.network.about()},
        )

    def _flush(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate([features.values.numpy() for _, features, _ in self._waiting])
        places = np.concatenate([np.full(len(features.values), place) for place, features, _ in self._waiting])
        if self._moments is None:
            self._moments = Moments(values.shape[1])
            self._features = FeatureFile(values.shape[1]) if self._keep else None
        self._moments.add(values)
        if self._features is not None:
            self._features.put(places, values)
        self._classify()
        self._waiting, self._rows = [], 0

    def _classify(self) -> None:
        """Count the class probabilities of what waits, of each frame by itself."""
        known = self.network.classes
        for place, features, label in self._waiting:
            if features.probabilities is None:
                continue
            odds = features.probabilities.numpy()
            self._scores = self._scores or ClassScores(odds.shape[1])
            self._scores.add(np.arange(place * len(odds), (place + 1) * len(odds)), odds)
            if label is not None and label in known:
                self._classified += (sum(known[best] == label for best in odds.argmax(axis=1)), len(odds))
                mean = odds.mean(axis=0)
                if known[best := int(mean.argmax())] != label:
                    self._mistakes.append((place, label, known[best], float(mean[best])))

    def _merge(self, processes: Processes) -> None:
        """Merge the sums of all processes, each over its own pictures."""
        if processes.count == 1:
            return
        self._classified = np.sum(processes.gather(self._classified), axis=0)
        state = None if self._scores is None else self._scores.state()
        own_sizes = [
            0 if self._moments is None else self._moments.dimensions,
            0 if self._scores is None else self._scores.classes,
        ]
        dimensions, classes = (max(column) for column in zip(*processes.gather_json(own_sizes), strict=True))
        if not dimensions:
            return
        own = self._moments or Moments(dimensions)
        merged = Moments(dimensions)
        for other in processes.gather(own.state()):
            merged.merge(other)
        self._moments = merged
        if classes:
            empty = ClassScores(classes)
            empty.restore(np.sum(processes.gather(empty.state() if state is None else state), axis=0))
            self._scores = empty
        if self._keep:
            self._features = _gathered(self._features or FeatureFile(dimensions), processes)


def _gathered(own: FeatureFile, processes: Processes) -> FeatureFile:
    """The features of all processes in one file, a block of each at a time."""
    together = FeatureFile(own.dimensions)
    places = np.sort(np.array(own.places()))
    blocks = own.blocks()
    start = 0
    while True:
        block = next(blocks, np.zeros((0, own.dimensions), np.float32))
        placed = np.concatenate([places[start : start + len(block), None], block], axis=1).astype(float)
        start += len(block)
        parts = processes.gather(placed.ravel())
        if not any(len(part) for part in parts):
            return together
        for part in parts:
            rows = part.reshape(-1, own.dimensions + 1)
            together.put(rows[:, 0].astype(np.int64), rows[:, 1:].astype(np.float32))


def collect(
    pictures: Pictures,
    network: FeatureNetwork,
    *,
    keep: bool = False,
    probabilities: bool = False,
    one_size: bool = True,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> Distribution:
    """The distribution of pictures, in one pass over them.

    Raises
    ------
    UsageError
        If their sizes differ and ``one_size`` expects them alike, or the network cannot take them.
    MediaError
        If none can be read.
    Unfinished
        If ``monitor`` asked for it.
    """
    collector = Collector(network, keep=keep, probabilities=probabilities)
    about = observe(pictures, [collector], one_size=one_size, processes=processes, monitor=monitor)
    return collector.distribution(about, processes)
