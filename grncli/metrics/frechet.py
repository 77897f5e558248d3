"""Mean and covariance of features in one pass, and the Fréchet distance between two of them.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule": with Gaussians fitted to the features of two sets of
pictures, d^2 = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). It is called FID for the features of Inception only.
"""

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import GrnError

Array = NDArray[np.float64]
LITERATURE_SAMPLES = {"fid": 50_000, "fvd": 2_048}  # behind published figures


class Moments:
    """Running mean and covariance, in float64, of feature vectors that need not fit in memory.

    Sums are taken about the first vector: features far from zero would cancel otherwise.
    """

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self._origin: Array = np.zeros(dimensions)
        self._sum: Array = np.zeros(dimensions)
        self._products: Array = np.zeros((dimensions, dimensions))

    @property
    def dimensions(self) -> int:
        """Length D of a feature vector."""
        return len(self._sum)

    def add(self, features: NDArray[np.floating]) -> None:
        """Count feature vectors ``[n, D]``; GrnError for values that are not finite."""
        if not len(features):
            return
        values = features.astype(np.float64)
        if not np.isfinite(values).all():
            raise GrnError("the feature network gives values that are not finite; its weights or its input are damaged")
        if not self.count:
            self._origin = values[0].copy()
        values -= self._origin
        self._sum += values.sum(axis=0)
        self._products += values.T @ values
        self.count += len(values)

    def state(self) -> Array:
        """Everything, as one vector about the origin of another process; see `merge`."""
        return np.concatenate([[self.count], self._origin, self._sum, self._products.ravel()])

    def merge(self, state: Array) -> None:
        """Count what another process has counted, from its `state`."""
        size = self.dimensions
        count, origin, total = int(state[0]), state[1 : 1 + size], state[1 + size : 1 + 2 * size]
        if not count:
            return
        if not self.count:
            self._origin = origin.copy()
        shift = origin - self._origin
        crossed = np.outer(shift, total)
        self._products += state[1 + 2 * size :].reshape(size, size) + crossed + crossed.T
        self._products += count * np.outer(shift, shift)
        self._sum += total + count * shift
        self.count += count

    @property
    def mean(self) -> Array:
        """Mean ``[D]``."""
        return self._origin + self._sum / max(1, self.count)

    @property
    def covariance(self) -> Array:
        """Covariance ``[D, D]`` with n - 1 in the denominator, as ``numpy.cov`` has it."""
        centre = self._sum / max(1, self.count)
        return (self._products - self.count * np.outer(centre, centre)) / max(1, self.count - 1)


def frechet_distance(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """Squared Fréchet distance of two Gaussians, in float64.

    The trace of (S1 S2)^(1/2) is that of the symmetric (R S2 R)^(1/2) with R = S1^(1/2), so eigenvalues of symmetric
    matrices are all it takes: real numbers, also for singular covariances, without the offset other codes add to those.

    Raises
    ------
    ValueError
        If the shapes do not agree.
    """
    if mean1.shape != mean2.shape or covariance1.shape != covariance2.shape:
        raise ValueError(f"features of {len(mean1)} and {len(mean2)} dimensions have no Fréchet distance")
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    crossed = root @ covariance2 @ root
    shared = np.sqrt(np.linalg.eigvalsh((crossed + crossed.T) / 2).clip(min=0)).sum()
    apart = np.square(mean1 - mean2).sum()
    squared = apart + np.trace(covariance1) + np.trace(covariance2) - 2 * shared
    return max(0.0, float(squared))  # rounding may end below zero for equal sets


def few_samples(name: str, count: int | None, dimensions: int, distance: str) -> list[str]:
    """A sentence where pictures are too few for their covariance."""
    if count is None or count > dimensions:
        return []
    usual = LITERATURE_SAMPLES.get(distance)
    advice = f"; the literature uses {usual:,}" if usual else ""
    return [
        f"{name} has {count} feature vectors of {dimensions} dimensions: the covariance is singular and the distance "
        f"biased upwards{advice}"
    ]
