"""Choosing the device and number format a network runs in."""

import platform
import re
import socket
from typing import TYPE_CHECKING

import torch

from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    from grncli.runtime.processes import Processes

# By name; also what recipes say.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``; ``auto`` takes the quickest present.

    Of several GPUs that no number picks from, the process takes the one of its ``local_rank`` on this machine. A
    launcher may show each process no more than the GPU that is its own.

    Raises
    ------
    UsageError
        If there is no such device here, or none for the process; if the name is that of several.
    """
    _refuse_several(name)
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
    if name != "cuda":
        return torch.device(name)
    if local_rank >= len(numbers) > 1:
        raise UsageError(
            f"{socket.gethostname()} has {len(numbers)} GPUs, and this is process {local_rank} there, counted from 0; "
            "start one process for each GPU"
        )
    return torch.device("cuda", min(local_rank, len(numbers) - 1))


def _refuse_several(name: str) -> None:
    """UsageError with the commands that start a process for each of the GPUs in ``cuda:0,1``."""
    numbers = re.findall("[0-9]+", name)
    if name.startswith("cuda") and "," in name:
        raise UsageError(
            f"--device {name}: a process computes on one GPU; leave it out and start one process for each, "
            f"CUDA_VISIBLE_DEVICES={','.join(numbers)} torchrun --nproc-per-node={len(numbers)} -m grncli ... or srun "
            f"--ntasks={len(numbers)} --gpus-per-task=1 grn ..., with --part auto where the command has it"
        )


def require_own_gpus(processes: "Processes", device: torch.device) -> None:
    """For processes that train one network: UsageError, on all of them, unless each has a GPU of its own, or none has.

    Parameters
    ----------
    device : of this process
    """
    if processes.count == 1:
        return
    on_gpu = device.type == "cuda"
    every = processes.gather_json(
        {
            "host": socket.gethostname(),
            "gpu": str(torch.cuda.get_device_properties(device).uuid) if on_gpu else None,
            "shown": torch.cuda.device_count() if on_gpu else 0,
        }
    )
    ranks: dict[tuple[str, str], int] = {}
    for rank, each in enumerate(every):
        name = f"process {rank} of {processes.count} on {each['host']}"
        if each["gpu"] is None and any(other["gpu"] for other in every):
            raise UsageError(f"{name} has no GPU, and others have; start them where each has one, or add --device cpu")
        if each["gpu"] is None:
            continue
        before = ranks.setdefault((each["host"], each["gpu"]), rank)
        if before != rank:
            raise UsageError(
                f"{name} has the same GPU as process {before}, of {each['shown']} that are shown to it; start one "
                "process for each GPU"
            )


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
