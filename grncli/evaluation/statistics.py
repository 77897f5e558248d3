"""A set of pictures as seen by a feature network: moments, features, class scores; and statistics files.

A statistics file is an .npz with ``mu`` and ``sigma`` (the layout that guided-diffusion, JiT, pytorch-fid and
torch-fidelity share), and ours says in ``grn`` how it came about.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grncli.evaluation.picture_sources import ARRAY, Measured, Pictures, Say
from grncli.metrics.distributions import ClassScores
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.feature_networks import FeatureNetwork, Features
from grncli.metrics.frechet import Array, Moments
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.processes import ALONE, Processes
from grncli.runtime.stopping import Stop, Unfinished

ADDED_AT_ONCE = 256  # vectors: each addition to a covariance reads and writes all of it
MAX_DIMENSIONS = 16384

Report = Callable[[int, int, str], None]

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Pictures as a feature network sees them."""

    mean: Array
    covariance: Array
    count: int | None  # of feature vectors; None where a file does not say
    features: FeatureFile | None = None
    scores: ClassScores | None = None
    agreement: float | None = None  # share of pictures that a classifier assigns to their own class
    about: dict[str, Any]  # src, size, network {name, sha256}, ...

    @property
    def name(self) -> str:
        """Where the pictures are from."""
        return str(self.about["src"])


class Collector:
    """Sums up what a feature network makes of pictures.

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
        self._agreed = np.zeros(2)  # pictures assigned to their class, and pictures that have one

    @property
    def dimensions(self) -> int:
        """Length of a feature vector; 0 before the first."""
        return 0 if self._moments is None else self._moments.dimensions

    def compute(self, frames: Tensor) -> list[Features]:
        """Features of each sample of a batch, uint8 ``[B, T, H, W, 3]``."""
        try:
            found = self.network(frames, probabilities=self._probabilities)
        except ValueError as error:  # a size or length the network cannot take
            raise UsageError(str(error)) from None
        each = len(found.values) // len(frames)
        values, odds = found.values.cpu(), found.probabilities
        odds = None if odds is None else odds.cpu()
        rows = [slice(i * each, (i + 1) * each) for i in range(len(frames))]
        return [Features(values[row], None if odds is None else odds[row]) for row in rows]

    def add(self, place: int, features: Features, label: str | None = None) -> None:
        """Count one sample; ``label`` names its class."""
        self._waiting.append((place, features, label))
        self._rows += len(features.values)
        if self._rows >= ADDED_AT_ONCE:
            self._flush()

    def distribution(self, about: dict[str, Any], processes: Processes = ALONE) -> Distribution:
        """Everything that all processes have counted; GrnError where that is nothing."""
        self._flush()
        self._meet(processes)
        if self._moments is None or not self._moments.count:
            raise MediaError(f"{about['src']}: none of its pictures could be read")
        told = {"network": {"name": self.network.name, "sha256": self.network.sha256, "input": self.network.size_note}}
        return Distribution(
            mean=self._moments.mean,
            covariance=self._moments.covariance,
            count=self._moments.count,
            features=self._features,
            scores=self._scores,
            agreement=float(self._agreed[0] / self._agreed[1]) if self._agreed[1] else None,
            about={**about, "count": self._moments.count, **told},
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
            if label in known:
                self._agreed += (sum(known[best] == label for best in odds.argmax(axis=1)), len(odds))

    def _meet(self, processes: Processes) -> None:
        """Put together what the processes have counted, each of its own pictures."""
        if processes.count == 1:
            return
        self._agreed = np.sum(processes.gather(self._agreed), axis=0)
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
        told = np.concatenate([places[start : start + len(block), None], block], axis=1).astype(float)
        start += len(block)
        found = processes.gather(told.ravel())
        if not any(len(part) for part in found):
            return together
        for part in found:
            rows = part.reshape(-1, own.dimensions + 1)
            together.put(rows[:, 0].astype(np.int64), rows[:, 1:].astype(np.float32))


class OneSize:
    """Refuses pictures of several sizes: a network resizes each in silence, and the figures then mix scales."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.several = False
        self.first: tuple[tuple[int, ...], str] | None = None

    def check(self, measured: Measured[Any]) -> None:
        """Take note of a picture's height and width; UsageError where it differs from the first."""
        size = measured.shape[1:]
        if self.first is None:
            self.first = (size, measured.name)
        elif size != self.first[0] and not self._wanted:
            self.several = True
        elif size != self.first[0]:
            raise UsageError(
                f"{self.first[1]} is {show_size(self.first[0])} pixels and {measured.name} {show_size(size)}; "
                "expected one size, give --size 256 (or HxW) to bring them to it, or --size native to take them so"
            )

    def meet(self, processes: Processes) -> None:
        """Compare with the pictures of other processes."""
        own = None if self.first is None else [list(self.first[0]), self.first[1]]
        for other in processes.gather_json(own):
            if other is not None:
                self.check(Measured(0, other[1], (1, *other[0]), None))

    @property
    def size(self) -> list[int] | None:
        """Height and width of the pictures; None for several sizes."""
        return None if self.first is None or self.several else list(self.first[0])


def show_size(size: Sequence[int]) -> str:
    """``32x48``, height first."""
    return "x".join(map(str, size))


def collect(
    pictures: Pictures,
    network: FeatureNetwork,
    *,
    keep: bool = False,
    probabilities: bool = False,
    one_size: bool = True,
    processes: Processes = ALONE,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    warn: Say = lambda text: None,
) -> Distribution:
    """The distribution of pictures, in one pass over them.

    Raises
    ------
    UsageError
        If their sizes differ and ``one_size`` wants them alike, or the network cannot take them.
    MediaError
        If none can be read.
    Unfinished
        If ``stop`` asked for it.
    """
    stop = stop or Stop()
    collector, sizes = Collector(network, keep=keep, probabilities=probabilities), OneSize(wanted=one_size)
    found = pictures.measure(collector.compute, share=(processes.rank, processes.count), stop=stop, warn=warn)
    done = 0
    for measured in counted(found, len(pictures), sizes, processes, stop, report):
        collector.add(measured.place, measured.result, measured.label)
        done += 1
    about = {
        **pictures.about(),
        "samples": processes.count_all(done),
        "picture": sizes.size,
        "failed": processes.count_all(pictures.failed),
    }
    return collector.distribution(about, processes)


def counted(
    found: Iterator[Measured[R]], total: int, sizes: OneSize, processes: Processes, stop: Stop, report: Report
) -> Iterator[Measured[R]]:
    """Pass on what was measured of one size, by all processes to the end.

    Raises
    ------
    UsageError
        If sizes differ that are wanted alike, here or between processes.
    Unfinished
        If ``stop`` asked for it, in any process.
    """
    done = 0
    for measured in found:
        sizes.check(measured)
        yield measured
        done += 1
        report(done * processes.count, total, "")
    if processes.count_all(stop.reason is not None):
        raise Unfinished(f"{stop.reason or 'another process'}: stopped after {done} of {total} pictures")
    sizes.meet(processes)


def write_statistics(path: Path, found: Distribution, *, features: bool = False) -> None:
    """Write ``mu``, ``sigma``, ``count``, ``grn`` and, if asked, each of the features; whole or not at all."""
    arrays: dict[str, Any] = {"mu": found.mean, "sigma": found.covariance, "grn": np.array(json.dumps(found.about))}
    if found.count is not None:
        arrays["count"] = np.array(found.count)
    if features and found.features is not None:
        arrays["features"] = np.concatenate(list(found.features.blocks()))
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def holds_statistics(path: Path) -> bool:
    """Whether a file is an .npz with ``mu`` and ``sigma``."""
    return {"mu", "sigma"} <= _members(path)


def holds_pictures(path: Path) -> bool:
    """Whether a file is an .npz with pictures in it, as the reference batches of guided-diffusion are."""
    return ARRAY in _members(path)


def _members(path: Path) -> set[str]:
    if path.suffix != ".npz" or not path.is_file():
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: is no .npz file ({error}); expected statistics or pictures") from None


def read_statistics(path: Path) -> Distribution:
    """Read a statistics file; MediaError where it is damaged or holds something else. Nothing in it is unpickled."""
    try:
        _require_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (_real(file[name]) for name in ("mu", "sigma"))
            count = int(file["count"]) if "count" in file else None
            about = json.loads(str(file["grn"])) if "grn" in file else {}
            rows = _real(file["features"], np.float32) if "features" in file else None
    except Exception as error:  # numpy, zipfile, zlib and json each have their own for a damaged file
        reason = " ".join(str(error).split()).partition(". ")[0][:120] or type(error).__name__
        raise MediaError(f"{path}: cannot be read as statistics ({reason}); make it again, or get it anew") from None
    _check(path, mean, covariance, count, about)
    features = None
    if rows is not None:
        if rows.ndim != 2 or rows.shape[1] != len(mean) or not np.isfinite(rows).all():
            raise MediaError(f"{path}: its features are not finite numbers [n, {len(mean)}]; make it again")
        features = FeatureFile(len(mean))
        features.put(np.arange(len(rows)), rows)
    counted = {} if count is None else {"count": count}
    told = {**about, **counted, "src": str(path), **({"made_of": about["src"]} if "src" in about else {})}
    return Distribution(mean=mean, covariance=covariance, count=count, features=features, about=told)


def _require_sizes(path: Path) -> None:
    """ValueError where an array claims another size than its bytes have, before memory is taken for it."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
                claimed = math.prod(shape) * dtype.itemsize
                if claimed != member.file_size - file.tell():
                    raise ValueError(f"{member.filename[:40]} is {list(shape)} of {dtype}, which is not its size")
                if member.filename in ("mu.npy", "sigma.npy") and claimed > MAX_DIMENSIONS**2 * dtype.itemsize:
                    raise ValueError(f"{member.filename} is {list(shape)}, expected at most {MAX_DIMENSIONS} features")


def _is_size(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value))


def _real(array: NDArray[Any], dtype: type[np.floating] = np.float64) -> NDArray[Any]:
    """As floating numbers; TypeError for what is none, or complex."""
    if array.dtype.kind not in "fiu":
        raise TypeError(f"found {array.dtype}, expected real numbers")
    return array.astype(dtype, copy=False)


def _check(path: Path, mean: Array, covariance: Array, count: int | None, about: Any) -> None:
    shaped = mean.ndim == 1 and covariance.shape == (mean.size, mean.size)
    if not shaped or not 0 < mean.size <= MAX_DIMENSIONS:
        found = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
        raise MediaError(f"{path}: holds {found}, expected [D] and [D, D]; make it again, or get it anew")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise MediaError(f"{path}: holds numbers that are not finite; make it again, or get it anew")
    scale = max(1.0, float(np.abs(covariance).max()))
    if np.diag(covariance).min() < -1e-6 * scale:
        raise MediaError(f"{path}: sigma has negative variances, so it is no covariance; make it again, or get it anew")
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * scale):
        raise MediaError(f"{path}: sigma is not symmetric, so it is no covariance; make it again, or get it anew")
    told = isinstance(about, dict) and isinstance(about.get("network", {}), dict) and _is_size(about.get("picture"))
    if not told or (count is not None and count < 1):
        raise MediaError(f"{path}: what it says of itself (grn, count) is damaged; make it again, or get it anew")


def same_network(ours: Distribution, theirs: Distribution) -> None:
    """Refuse distributions that two networks made, as far as they say so."""
    left, right = (found.about.get("network") for found in (ours, theirs))
    if len(ours.mean) != len(theirs.mean):
        sizes = f"{len(ours.mean)} features of {ours.name} and {len(theirs.mean)} of {theirs.name}"
        raise UsageError(f"{sizes} are of two networks; make the statistics with the same --features")
    if left and right and left.get("sha256") != right.get("sha256"):
        names = [f"{network.get('name')} ({str(network.get('sha256'))[:12]})" for network in (left, right)]
        raise UsageError(
            f"{ours.name} was seen by {names[0]} and {theirs.name} by {names[1]}; make both with the same --features"
        )
