"""Weights of LPIPS from the files of torchvision (the trunk) and of the LPIPS authors (the heads)."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.checkpoint import read_released, read_tensors
from grncli.errors import CheckpointError
from grncli.models.lpips import LPIPS, Network


@dataclass(frozen=True)
class WeightFile:
    """A file of the authors: where it is published, and the beginning of its SHA-256."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its name there and here."""
        return self.url.rpartition("/")[2]


_TORCHVISION = "https://download.pytorch.org/models"
_AUTHORS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
FILES: dict[Network, tuple[WeightFile, WeightFile]] = {  # the trunk, then the heads
    "vgg": (
        WeightFile(f"{_TORCHVISION}/vgg16-397923af.pth", "397923af"),
        WeightFile(f"{_AUTHORS}/vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    ),
    "alex": (
        WeightFile(f"{_TORCHVISION}/alexnet-owt-7be5be79.pth", "7be5be79"),
        WeightFile(f"{_AUTHORS}/alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    ),
}


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/grn/lpips``, by default below ``~/.cache``; for whoever reads the environment to call."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grn" / "lpips"


def load_lpips(
    network: Network,
    weights: Path | None,
    *,
    cache: Path,
    download: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> LPIPS:
    """LPIPS with the weights of its authors.

    Parameters
    ----------
    network : the trunk, ``"vgg"`` (for training) or ``"alex"`` (for reporting)
    weights : directory with the trunk of torchvision and the heads of the LPIPS authors under their published names,
        as .pth or .safetensors; or one .safetensors file with all of it under our names; None for ``cache``
    cache : directory used where ``weights`` is None, see `default_cache`
    download : fetch what the directory lacks, once; without it nothing is ever fetched
    say : told what is fetched from where, before it is

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
        sources = _find(place, FILES[network], download=download, say=say)
    module = LPIPS(network)
    wanted = module.state_dict()
    parts = [wanted] if len(sources) == 1 else [_below(wanted, "features."), _below(wanted, "heads.")]
    for file, part in zip(sources, parts, strict=True):
        wanted.update(_read(file, part))
    module.load_state_dict(wanted)
    return module


def _find(folder: Path, files: tuple[WeightFile, ...], *, download: bool, say: Callable[[str], None]) -> list[Path]:
    """The files in ``folder``, fetched if they may be."""
    present = {file: _present(folder, file) for file in files}
    missing = [file for file, path in present.items() if path is None]
    if missing and not download:
        lacking = " and ".join(f"{file.name} ({file.url}, sha256 {file.sha256}{_dots(file)})" for file in missing)
        raise CheckpointError(
            f"{folder}: lacks {lacking}; put what is missing there, or allow the download (losses.lpips_download=true)"
        )
    return [path or _fetch(file, folder, say) for file, path in present.items()]


def _present(folder: Path, file: WeightFile) -> Path | None:
    candidates = ((folder / file.name).with_suffix(".safetensors"), folder / file.name)
    return next((path for path in candidates if path.is_file()), None)


def _fetch(file: WeightFile, folder: Path, say: Callable[[str], None]) -> Path:
    """Download one file; it gets its name only once its checksum is right."""
    final = folder / file.name
    say(f"fetching {file.name} from {file.url} into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(final), hash_prefix=file.sha256, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # torch.hub tells a wrong checksum by a RuntimeError
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{final}: could not be fetched from {file.url} ({reason}); "
            f"nothing was kept, put the file with sha256 {file.sha256}{_dots(file)} there by hand or try again"
        ) from None
    return final


def _dots(file: WeightFile) -> str:
    return "..." if len(file.sha256) < 64 else ""


def _read(file: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``file`` that ``wanted`` names, checked against their shapes there."""
    contents: Mapping[str, Any] = read_tensors(file) if file.suffix == ".safetensors" else read_released(file)
    named = {re.sub(r"^lin(\d)\.model\.1\.", r"heads.\1.", str(name)): value for name, value in contents.items()}
    for name, tensor in wanted.items():
        found = named.get(name)
        if not isinstance(found, Tensor):
            raise CheckpointError(f"{file}: holds no weights named {name}; expected those of LPIPS, get another file")
        if found.shape != tensor.shape:
            raise CheckpointError(
                f"{file}: {name} has the shape {list(found.shape)}, expected {list(tensor.shape)}; get another file"
            )
    return {name: named[name].float() for name in wanted}


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}
