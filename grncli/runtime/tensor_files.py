"""Tensors in files: safetensors, read one by one, and pickled checkpoints, of which nothing but data is read."""

import hashlib
import json
import os
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grncli.runtime.errors import CheckpointError
from grncli.runtime.text import one_line

SAFETENSORS = ".safetensors"
REASON = 200  # characters of another library's error in a message
# What an extension module of safetensors raises for the same file differs from release to release.
_DAMAGED = (OSError, ValueError, TypeError, SafetensorError)
# As safetensors names them, in the order in which it lays them out: none needs more room than those before it.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(DTYPES.values())}


class TensorSize(Protocol):
    """Shape and type of a tensor, wherever that is known from."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is made of others each time it is needed, so that a large network never lies in memory twice."""

    make: Callable[[], Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, make: Callable[[Sequence[Tensor]], Tensor], parts: Sequence["Tensor | LazyTensor"]) -> "LazyTensor":
        """What ``make`` gives of these tensors; it is tried on their sizes alone, which may raise RuntimeError."""
        size = make([torch.empty(part.shape, dtype=part.dtype, device="meta") for part in parts])
        return cls(lambda: make([made(part) for part in parts]), tuple(size.shape), size.dtype)


def made(tensor: Tensor | LazyTensor) -> Tensor:
    """A tensor as it is, or made now."""
    return tensor.make() if isinstance(tensor, LazyTensor) else tensor


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    """A safetensors file, whose tensors are read one by one.

    Raises
    ------
    CheckpointError
        If it is missing or damaged, also where this shows only in the block.
    """
    # Opening a named pipe would wait forever.
    if not file.is_file():
        reason = "is no plain file" if file.exists() else "is not there"
        raise CheckpointError(f"{file}: cannot be read as safetensors ({reason})")
    with naming_damage(file), utf8_name(file) as name, safe_open(name, framework="pt") as opened:
        yield opened


@contextmanager
def naming_damage(file: Path) -> Iterator[None]:
    """Turn what safetensors raises in a block into a CheckpointError that names ``file``."""
    try:
        yield
    except _DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({one_line(error, REASON)})") from None


@contextmanager
def utf8_name(file: Path) -> Iterator[str]:
    """A name of ``file`` in UTF-8: safetensors and PyTorch take no other, and a file system has any bytes."""
    # Python has surrogates in the place of bytes that are not UTF-8.
    if not any("\ud800" <= letter <= "\udfff" for letter in str(file)):
        yield str(file)
        return
    with file.open("rb") as stream:
        yield f"/proc/{os.getpid()}/fd/{stream.fileno()}"


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Named tensors of one safetensors file, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    with open_tensors(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dictionary


def is_finite(weight: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity.

    A sum shows either, and on a CPU takes a hundredth of the time of ``isfinite``: 9 ms for 64 M weights, one thread.
    """
    return not weight.is_floating_point() or bool(weight.sum().isfinite() or weight.isfinite().all())


def write_tensors(file: Path, tensors: Mapping[str, Tensor | LazyTensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, with one tensor at a time in memory beside those that are there already.

    Parameters
    ----------
    tensors : on any device
    metadata : what the header holds beside them

    Raises
    ------
    OSError
        If it cannot be written.
    """
    names, header = lay_out(tensors, metadata)
    with file.open("wb") as stream:
        stream.write(header)
        for name in names:
            stream.write(bytes_of(made(tensors[name])))


def lay_out(sizes: Mapping[str, TensorSize], metadata: Mapping[str, str]) -> tuple[list[str], bytes]:
    """Names in the order in which a safetensors file has them, and all that comes before the first tensor's bytes."""
    names = sorted(sizes, key=lambda name: (_ORDER[sizes[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        size = sizes[name]
        start, end = end, end + size.dtype.itemsize * torch.Size(size.shape).numel()
        header[name] = {"dtype": _NAMES[size.dtype], "shape": list(size.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return names, len(text).to_bytes(8, "little") + text


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on any device, as a safetensors file has them."""
    array: NDArray[np.uint8] = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return array.data


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_released(file: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Load a released checkpoint with nothing but tensors and plain containers allowed.

    This is the only place where a pickle is opened, and PyTorch's restricted unpickler does it: whatever else the file
    wants to build or call is refused before it happens. The one class it may build is argparse's Namespace, a bag of
    names and values without behaviour, in which released generators keep their training arguments. A safetensors file,
    which holds no more than named tensors, is read as such.

    Parameters
    ----------
    mapped : leave tensors in the file until they are used, where its format allows it; the file must not change
        meanwhile. Those of a safetensors file always stay there

    Raises
    ------
    CheckpointError
        If the file is not there, is no PyTorch checkpoint, or asks for more than data.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: is not a file, expected a released checkpoint (.ckpt, .pth or {SAFETENSORS})")
    if file.suffix == SAFETENSORS:
        return dict(read_tensors(file))
    try:
        with utf8_name(file) as name, warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # of the pickle's protocol, which is not the user's business
            loaded = torch.load(name, map_location="cpu", weights_only=True, mmap=mapped and _is_mappable(file))
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        fault = f"asks to build or call {wanted[1]}" if wanted else "is no PyTorch checkpoint, or a damaged one"
        raise CheckpointError(
            f"{file}: {fault}; refused, expected a checkpoint that holds only tensors and plain values"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of weights")
    return loaded


def _is_mappable(file: Path) -> bool:
    """Whether a checkpoint is a zip archive, as PyTorch writes them, whose members lie in it as they are."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        # Mapped bytes of a compressed member would be taken for weights.
        return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
