"""How alike two sets of pictures are beyond mean and covariance: KID, precision and recall, and the Inception Score."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from grncli.metrics.feature_files import FeatureFile
from grncli.rng import Purpose, uniform

KID_SUBSETS, KID_SUBSET = 100, 1000
NEIGHBOURS = 3
SPLITS = 10


def kid(ours: FeatureFile, theirs: FeatureFile, *, seed: int = 0) -> tuple[float, float, int]:
    """Kernel Inception distance: mean and standard deviation over random subsets, and the size of these.

    Binkowski et al. 2018, "Demystifying MMD GANs": the unbiased squared maximum mean discrepancy under the kernel
    (x.y / D + 1)^3, over 100 subsets of 1,000 (or of all, where there are fewer), drawn anew for each from ``seed``.
    """
    size = min(KID_SUBSET, len(ours), len(theirs))
    if size < 2:
        return math.nan, math.nan, size
    random = np.random.default_rng(seed)
    values = []
    for _ in range(KID_SUBSETS):
        pair = [
            torch.from_numpy(features.read(random.choice(len(features), size, replace=False))).double()
            for features in (theirs, ours)
        ]
        values.append(float(poly_mmd(pair[0], pair[1])))
    return float(np.mean(values)), float(np.std(values)), size


def precision(samples: FeatureFile, real: FeatureFile, neighbours: int = NEIGHBOURS, *, device: str = "cpu") -> float:
    """Share of samples that lie within the manifold of real pictures; NaN where that is not defined.

    Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models": the manifold of
    a set is the union of balls around its features, each as wide as the distance to its k-th nearest neighbour.
    """
    return _covered(samples, real, neighbours, device)


def recall(samples: FeatureFile, real: FeatureFile, neighbours: int = NEIGHBOURS, *, device: str = "cpu") -> float:
    """Share of real pictures that lie within the manifold of the samples; see `precision`."""
    return _covered(real, samples, neighbours, device)


def _covered(points: FeatureFile, manifold: FeatureFile, neighbours: int, device: str) -> float:
    """Share of points within a manifold; NaN where a set has no k-th neighbour."""
    if not len(points) or len(manifold) <= neighbours:
        return math.nan
    # About a vector of the manifold: distances come from products, in which features far from zero would cancel.
    origin = manifold.read([0])
    radii = [
        _nearest(_blocks(manifold, origin, device), block, neighbours + 1)[:, -1]
        for block in _blocks(manifold, origin, device)
    ]
    within = 0
    for block in _blocks(points, origin, device):
        inside = torch.zeros(len(block), dtype=torch.bool, device=device)
        for other, reach in zip(_blocks(manifold, origin, device), radii, strict=True):
            inside |= (torch.cdist(block, other) <= reach).any(dim=1)
        within += int(inside.sum())
    return within / len(points)


def nearest_distances(points: FeatureFile, others: FeatureFile, *, device: str = "cpu") -> NDArray[np.float32]:
    """Euclidean distance ``[n]`` of each point, in the order of the places, from the nearest of the others."""
    origin = others.read([0])  # see `_covered`
    blocks = (_nearest(_blocks(others, origin, device), block, 1) for block in _blocks(points, origin, device))
    return np.concatenate([block[:, 0].cpu().numpy() for block in blocks])


def _blocks(features: FeatureFile, origin: NDArray[np.float32], device: str) -> Iterator[Tensor]:
    for block in features.blocks():
        yield torch.from_numpy(block - origin).to(device)


def _nearest(others: Iterable[Tensor], block: Tensor, count: int) -> Tensor:
    """Distances ``[n, count]`` to the nearest features, ascending; a feature of the manifold is its own first."""
    best = torch.full((len(block), count), math.inf, device=block.device)
    for other in others:
        best = torch.cat([best, torch.cdist(block, other)], dim=1).topk(count, largest=False).values
    return best


class ClassScores:
    """Inception Score in one pass: exp of the mean Kullback-Leibler divergence of p(class | picture) from p(class).

    Salimans et al. 2016, "Improved Techniques for Training GANs". A picture's split is drawn from its place: as good as
    a shuffle, however the classes alternate, and the same in whatever order or process pictures are counted.
    """

    def __init__(self, classes: int, splits: int = SPLITS) -> None:
        self._counts = np.zeros(splits)
        self._sums = np.zeros((splits, classes))
        self._negentropies = np.zeros(splits)

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self._sums.shape[1]

    def add(self, places: NDArray[np.int64], probabilities: NDArray[np.floating]) -> None:
        """Count pictures at places ``[n]`` by their probabilities ``[n, K]``."""
        p = probabilities.astype(np.float64)
        drawn = uniform(0, torch.from_numpy(places), 0, Purpose.SPLIT, ())
        splits = (drawn.numpy() * len(self._counts)).astype(np.int64)
        np.add.at(self._counts, splits, 1)
        np.add.at(self._sums, splits, p)
        np.add.at(self._negentropies, splits, (p * np.log(p.clip(min=1e-300))).sum(axis=1))

    def state(self) -> NDArray[np.float64]:
        """Everything, as one vector that may be added to that of another process."""
        return np.concatenate([self._counts, self._sums.ravel(), self._negentropies])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Take over a `state`."""
        splits = len(self._counts)
        self._counts, self._negentropies = state[:splits].copy(), state[-splits:].copy()
        self._sums = state[splits:-splits].reshape(self._sums.shape).copy()

    def score(self) -> tuple[float, float, int]:
        """Mean and standard deviation over the splits that have pictures, and their number."""
        used = self._counts > 0
        if not used.any():
            return math.nan, math.nan, 0
        counts = self._counts[used]
        mean = self._sums[used] / counts[:, None]
        marginal = (mean * np.log(mean.clip(min=1e-300))).sum(axis=1)
        scores = np.exp(self._negentropies[used] / counts - marginal)
        return float(scores.mean()), float(scores.std()), int(used.sum())
