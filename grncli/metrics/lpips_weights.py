"""Weights of LPIPS from the files of torchvision (the trunk) and of the LPIPS authors (the heads)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from grncli.models.lpips import LPIPS, Network
from grncli.runs.weight_files import WeightFile, find_weights, take_weights
from grncli.runtime import cache_folder
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.tensor_files import read_released, read_tensors

_TORCHVISION = "https://download.pytorch.org/models"
_AUTHORS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
FILES: dict[Network, tuple[WeightFile, WeightFile]] = {  # the trunk, then the heads
    "vgg": (
        WeightFile(f"{_TORCHVISION}/vgg16-397923af.pth", "397923af", twin=True),
        WeightFile(
            f"{_AUTHORS}/vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", twin=True
        ),
    ),
    "alex": (
        WeightFile(f"{_TORCHVISION}/alexnet-owt-7be5be79.pth", "7be5be79", twin=True),
        WeightFile(
            f"{_AUTHORS}/alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", twin=True
        ),
    ),
}


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/grn/lpips``, by default below ``~/.cache``; for whoever reads the environment to call."""
    return cache_folder.default_cache() / "lpips"


def load_lpips(
    network: Network,
    weights: Path | None,
    *,
    cache: Path,
    download: bool = False,
    say: Say = lambda text: None,
    remedy: str = "allow the download (losses.lpips_download=true)",
) -> LPIPS:
    """LPIPS with the weights of its authors.

    Parameters
    ----------
    network : the trunk, ``"vgg"`` (for training) or ``"alex"`` (for reporting)
    weights : directory with the trunk of torchvision and the heads of the LPIPS authors under their published names,
        as .pth or .safetensors; or one .safetensors file with all of it under our names; None for ``cache``
    cache : directory used where ``weights`` is None, see `default_cache`
    download : fetch what the directory lacks, once; without it nothing is ever fetched
    say : gets a sentence before something is fetched
    remedy : what allows the download, for the end of a message

    Returns
    -------
    frozen float32 module on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing, cannot be fetched, has another checksum than published, asks for more than data, or holds
        something else.
    """
    place = cache if weights is None else weights
    if place.suffix == ".safetensors":
        sources = [place]
    elif place.exists() and not place.is_dir():
        raise CheckpointError(f"{place}: is no .safetensors file; expected one, or a directory with LPIPS weights")
    else:
        sources = find_weights(place, FILES[network], download=download, say=say, remedy=remedy)
    module = LPIPS(network)
    wanted = module.state_dict()
    parts = [wanted] if len(sources) == 1 else [_below(wanted, "features."), _below(wanted, "heads.")]
    for file, part in zip(sources, parts, strict=True):
        wanted.update(_read(file, part))
    module.load_state_dict(wanted)
    return module


def _read(file: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``file`` that ``wanted`` names, checked against their shapes there."""
    contents: Mapping[str, Any] = read_tensors(file) if file.suffix == ".safetensors" else read_released(file)
    named = {re.sub(r"^lin(\d)\.model\.1\.", r"heads.\1.", str(name)): value for name, value in contents.items()}
    return take_weights(named, wanted, file, "LPIPS")


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}
