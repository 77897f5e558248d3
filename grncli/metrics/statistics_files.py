"""A set of pictures in the features of a network: moments, single features, class scores; and the files of them.

A statistics file is an .npz with ``mu`` and ``sigma`` (the layout that guided-diffusion, JiT, pytorch-fid and
torch-fidelity share), and ours says in ``grn`` how it came about.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.metrics.distributions import ClassScores
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.frechet import Array
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.files import whole_file

MAX_DIMENSIONS = 16384


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The features that a network gives for pictures."""

    mean: Array
    covariance: Array
    count: int | None  # of feature vectors; None where a file does not say
    features: FeatureFile | None = None
    scores: ClassScores | None = None
    class_accuracy: float | None = None  # share of pictures that a classifier assigns to their own class
    about: dict[str, Any]  # src, size, network {name, sha256}, ...

    @property
    def name(self) -> str:
        """Where the pictures are from."""
        return str(self.about["src"])


def write_statistics(path: Path, statistics: Distribution, *, features: bool = False) -> None:
    """Write ``mu``, ``sigma``, ``count``, ``grn`` and, if asked, each of the features; whole or not at all."""
    arrays: dict[str, Any] = {
        "mu": statistics.mean,
        "sigma": statistics.covariance,
        "grn": np.array(json.dumps(statistics.about)),
    }
    if statistics.count is not None:
        arrays["count"] = np.array(statistics.count)
    if features and statistics.features is not None:
        arrays["features"] = np.concatenate(list(statistics.features.blocks()))
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def holds_statistics(path: Path) -> bool:
    """Whether a file is an .npz with ``mu`` and ``sigma``."""
    return {"mu", "sigma"} <= npz_members(path)


def npz_members(path: Path) -> set[str]:
    """Names of the arrays of an .npz file, empty for any other; MediaError where it is damaged."""
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
    if "src" in about:
        about["made_of"] = about["src"]
    about |= {"src": str(path)} | ({} if count is None else {"count": count})
    return Distribution(mean=mean, covariance=covariance, count=count, features=features, about=about)


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


def _names_network(about: dict[str, Any]) -> bool:
    """Whether what is said of the network, if anything, is as `FeatureNetwork.about` says it."""
    if "network" not in about:
        return True
    network = about["network"]
    return isinstance(network, dict) and all(isinstance(network.get(n), str) for n in ("name", "sha256", "input"))


def _real(array: NDArray[Any], dtype: type[np.floating] = np.float64) -> NDArray[Any]:
    """As floating numbers; TypeError for what is none, or complex."""
    if array.dtype.kind not in "fiu":
        raise TypeError(f"found {array.dtype}, expected real numbers")
    return array.astype(dtype, copy=False)


def _check(path: Path, mean: Array, covariance: Array, count: int | None, about: Any) -> None:
    shaped = mean.ndim == 1 and covariance.shape == (mean.size, mean.size)
    if not shaped or not 0 < mean.size <= MAX_DIMENSIONS:
        shapes = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
        raise MediaError(f"{path}: holds {shapes}, expected [D] and [D, D]; make it again, or get it anew")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise MediaError(f"{path}: holds numbers that are not finite; make it again, or get it anew")
    scale = max(1.0, float(np.abs(covariance).max()))
    if np.diag(covariance).min() < -1e-6 * scale:
        raise MediaError(f"{path}: sigma has negative variances, so it is no covariance; make it again, or get it anew")
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * scale):
        raise MediaError(f"{path}: sigma is not symmetric, so it is no covariance; make it again, or get it anew")
    sound = isinstance(about, dict) and _names_network(about) and _is_size(about.get("picture"))
    if not sound or (count is not None and count < 1):
        raise MediaError(f"{path}: what it says of itself (grn, count) is damaged; make it again, or get it anew")


def same_network(ours: Distribution, theirs: Distribution) -> None:
    """Refuse distributions in the features of two networks, as far as the files name them."""
    left, right = (side.about.get("network") for side in (ours, theirs))
    if len(ours.mean) != len(theirs.mean):
        sizes = f"{len(ours.mean)} features of {ours.name} and {len(theirs.mean)} of {theirs.name}"
        raise UsageError(f"{sizes} are of two networks; make the statistics with the same --features")
    if left and right and left.get("sha256") != right.get("sha256"):
        names = [f"{network.get('name')} ({str(network.get('sha256'))[:12]})" for network in (left, right)]
        raise UsageError(
            f"{ours.name} was seen by {names[0]} and {theirs.name} by {names[1]}; make both with the same --features"
        )
