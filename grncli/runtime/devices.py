"""Choosing the device and number format a network runs in."""

import platform

import torch

from grncli.runtime.errors import UsageError

# By name; also what recipes say.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``; ``auto`` takes the quickest present.

    Of several GPUs that no number picks from, the process takes the one of its ``local_rank`` on this machine.

    Raises
    ------
    UsageError
        If there is no such device here.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if present[kind])
    kind, _, number = name.partition(":")
    if not present.get(kind, False):
        have = ", ".join(kind for kind, there in present.items() if there)
        raise UsageError(f"--device {name}: there is no such device here, expected auto or one of {have}")
    numbers = [str(number) for number in range(torch.cuda.device_count() if kind == "cuda" else 1)]
    if name != kind and number not in numbers:
        raise UsageError(f"--device {name}: there is no such device here, expected {kind}:0 to {kind}:{numbers[-1]}")
    return torch.device(f"cuda:{local_rank}" if name == "cuda" else name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """``float32``, ``bfloat16``, or for ``auto`` bfloat16 where the device computes in it and float32 elsewhere.

    Raises
    ------
    UsageError
        For any other name.
    """
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: expected auto, {' or '.join(DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` or ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def multiplies_faster_by_onednn() -> bool:
    """Whether float32 products of this processor go to MKL by default, and run at half the speed of oneDNN's there.

    MKL keeps to AVX2 on processors that Intel did not make.
    """
    known = _processor()
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return libraries and str(known.get("cpu_name")).startswith("AMD") and bool(known.get("avx512_f"))


def processor_name() -> str:
    """What the processor is called, as far as the system tells."""
    return str(_processor().get("cpu_name") or platform.processor() or platform.machine())


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        known = _processor()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return False


def _processor() -> dict[str, object]:
    """Name and instructions of the processor; nothing where PyTorch is too old to tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()
