"""Weight files of other authors: where they are published, finding or fetching them, and taking tensors from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.text import one_line


@dataclass(frozen=True)
class WeightFile:
    """A file of other authors: where it is published, and its SHA-256 or the beginning of it."""

    url: str
    sha256: str
    name: str = ""
    """What it is called here; by default as it is there."""
    twin: bool = False
    """Whether a .safetensors file of the same weights may lie in its place."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.url.rpartition("/")[2])

    @property
    def checksum(self) -> str:
        """Its SHA-256 for reading; dots follow where only the beginning is known."""
        return self.sha256 if len(self.sha256) == 64 else f"{self.sha256}..."


def find_weights(folder: Path, files: Sequence[WeightFile], *, download: bool, say: Say, remedy: str) -> list[Path]:
    """Files in ``folder``, fetched if they may be.

    Parameters
    ----------
    folder : where they lie under their names, or are put
    files : what to look for
    download : fetch what is missing; without it nothing is ever fetched
    say : called with what is fetched from where
    remedy : what allows the download, as the end of the sentence "put what is missing there, or ..."

    Returns
    -------
    Their paths, in the order of ``files``. What was there already is not checked against its SHA-256.

    Raises
    ------
    CheckpointError
        If one is missing and may not be fetched, cannot be, or has another checksum than published.
    """
    present = {file: present_weights(folder, file) for file in files}
    missing = [file for file, path in present.items() if path is None]
    if missing and not download:
        lacking = " and ".join(f"{file.name} ({file.url}, sha256 {file.checksum})" for file in missing)
        raise CheckpointError(f"{folder}: lacks {lacking}; put what is missing there, or {remedy}")
    return [path or _fetch(file, folder, say) for file, path in present.items()]


def present_weights(folder: Path, file: WeightFile) -> Path | None:
    """Where a file, or what may lie in its place, is in ``folder``; None if it is not there."""
    published = folder / file.name
    candidates = (published.with_suffix(".safetensors"), published) if file.twin else (published,)
    return next((path for path in candidates if path.is_file()), None)


def take_weights(
    contents: Mapping[str, Any], wanted: Mapping[str, Tensor], file: Path, owner: str
) -> dict[str, Tensor]:
    """The tensors that ``wanted`` names, in float32.

    Parameters
    ----------
    contents : what ``file`` holds, by name; it may hold more
    wanted : tensors whose shapes are expected, on any device
    file, owner : the file and the network it should be of, for messages

    Raises
    ------
    CheckpointError
        If one is not there or has another shape.
    """
    for name, tensor in wanted.items():
        weight = contents.get(name)
        if not isinstance(weight, Tensor):
            raise CheckpointError(f"{file}: holds no weights named {name}; expected those of {owner}, get another file")
        if weight.shape != tensor.shape:
            raise CheckpointError(
                f"{file}: {name} has the shape {list(weight.shape)}, expected {list(tensor.shape)}; get another file"
            )
    return {name: contents[name].float() for name in wanted}


def _fetch(file: WeightFile, folder: Path, say: Say) -> Path:
    """Download one file; it gets its name only once its checksum is right."""
    final = folder / file.name
    say(f"fetching {file.name} from {file.url} into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(final), hash_prefix=file.sha256, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # torch.hub raises RuntimeError for a wrong checksum
        raise CheckpointError(
            f"{final}: could not be fetched from {file.url} ({one_line(error)}); "
            f"nothing was kept, put the file with sha256 {file.checksum} there by hand or try again"
        ) from None
    return final
