"""Choosing the device and number format a network runs in."""

import torch

from grncli.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``; ``auto`` takes the quickest present.

    Raises
    ------
    UsageError
        If there is no such device here.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    kind = name.split(":")[0]
    if not present.get(kind, False):
        have = ", ".join(kind for kind, there in present.items() if there)
        raise UsageError(f"--device {name}: there is no such device here, expected auto or one of {have}")
    return torch.device(name)


def pick_dtype(name: str) -> torch.dtype:
    """``float32`` or ``bfloat16``; UsageError for anything else."""
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: expected {' or '.join(DTYPES)}")
    return DTYPES[name]
