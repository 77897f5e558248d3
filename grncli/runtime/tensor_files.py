"""Tensors in files: safetensors, read one by one, and pickled checkpoints, of which nothing but data is read."""

import hashlib
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grncli.runtime.errors import CheckpointError
from grncli.runtime.text import one_line

REASON = 200  # characters of another library's error in a message
# What an extension module of safetensors raises for the same file differs from release to release.
_DAMAGED = (OSError, ValueError, TypeError, SafetensorError)


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
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except _DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({one_line(error, REASON)})") from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Named tensors of one safetensors file, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    with open_tensors(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dictionary


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_released(file: Path) -> dict[str, Any]:
    """Load a released, pickled checkpoint with nothing but tensors and plain containers allowed.

    This is the only place where a pickle is opened, and PyTorch's restricted unpickler does it: whatever else
    the file wants to build or call is refused before it happens. The one class it may build is argparse's Namespace,
    a bag of names and values without behaviour, in which released generators keep their training arguments.

    Raises
    ------
    CheckpointError
        If the file is not there, is no PyTorch checkpoint, or asks for more than data.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: is not a file, expected a released checkpoint (.ckpt or .pth)")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # of the pickle's protocol, which is not the user's business
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        fault = f"asks to build or call {wanted[1]}" if wanted else "is no PyTorch checkpoint, or a damaged one"
        raise CheckpointError(
            f"{file}: {fault}; refused, expected a checkpoint that holds only tensors and plain values"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of weights")
    return loaded
