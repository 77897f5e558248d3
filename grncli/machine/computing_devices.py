"""What computes here: the processor and its instructions, the threads of PyTorch, GPUs."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from grncli.machine.system_limits import core_quota
from grncli.models import products
from grncli.runtime.devices import dtype_name, pick_dtype, processor_name
from grncli.runtime.system import usable_cores

# As PyTorch calls them, and as people do; those that networks run faster by.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma3": "FMA",
    "avx512_f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "neon": "NEON",
    "sve": "SVE",
    "sve2": "SVE2",
    "bf16": "BF16",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class ProcessorState:
    """The processor.

    Attributes
    ----------
    cores : that this process may run on
    quota : cores that a container or batch job may keep busy, None for no limit
    threads : that PyTorch computes with
    threads_set_by : variable and value that set them, such as ``OMP_NUM_THREADS=1``; None for none
    load : processes that wanted to compute at a time, the mean of the last minute; None where the system does not tell
    instructions : those that networks run faster by; None where PyTorch does not tell
    onednn_products : whether float32 products go through oneDNN, see `grncli.models.products`
    """

    name: str
    architecture: str
    cores: int
    quota: float | None
    threads: int
    threads_set_by: str | None
    load: float | None
    instructions: tuple[str, ...] | None
    onednn_products: bool


@dataclass(frozen=True)
class DeviceState:
    """Where networks can run.

    Attributes
    ----------
    name : as ``--device`` takes it
    model : what is built in, empty for the processor
    dtype : number format that ``--dtype auto`` stands for
    memory, free : bytes of its own memory, None where it has none, or does not tell
    fault : why it cannot be used, None where it can
    """

    name: str
    model: str
    dtype: str
    memory: int | None = None
    free: int | None = None
    fault: str | None = None


def processor(environment: Mapping[str, str], system: Path = Path("/")) -> ProcessorState:
    """The processor of this machine; ``environment`` has the variables of this process."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    instructions = tuple(shown for name, shown in INSTRUCTIONS.items() if known.get(name))
    set_by = next((f"{name}={environment[name]}" for name in THREAD_VARIABLES if environment.get(name)), None)
    return ProcessorState(
        name=processor_name(),
        architecture=platform.machine(),
        cores=usable_cores(),
        quota=core_quota(system),
        threads=torch.get_num_threads(),
        threads_set_by=set_by,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        instructions=instructions if known else None,
        onednn_products=products.FASTER_BY_ONEDNN,
    )


def devices() -> list[DeviceState]:
    """The processor, and every GPU that PyTorch can use."""
    cpu = torch.device("cpu")
    found = [DeviceState("cpu", "", dtype_name(pick_dtype("auto", cpu)))]
    if torch.cuda.is_available():
        found += [_gpu(torch.device(f"cuda:{number}")) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        mps = torch.device("mps")
        found.append(DeviceState("mps", "Apple GPU", dtype_name(pick_dtype("auto", mps))))
    return found


def unused_gpu(environment: Mapping[str, str], system: Path = Path("/")) -> str | None:
    """Why PyTorch cannot use an NVIDIA GPU whose driver is here; None where it can, or where there is no driver."""
    if torch.cuda.is_available() or not (system / "proc/driver/nvidia/version").exists():
        return None
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: install another one, as https://pytorch.org/get-started says"
    if environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return _first_line(error)
    return f"this PyTorch is built for CUDA {torch.version.cuda}, and the driver does not take it"


def _gpu(device: torch.device) -> DeviceState:
    """One that the driver lists may still be taken by another process, or broken: its first use tells."""
    try:
        free, total = torch.cuda.mem_get_info(device)
        model, dtype = torch.cuda.get_device_name(device), dtype_name(pick_dtype("auto", device))
    except (RuntimeError, AssertionError) as error:
        return DeviceState(str(device), "", "", fault=_first_line(error))
    return DeviceState(str(device), model, dtype, total, free)


def _first_line(error: Exception) -> str:
    """What went wrong, without the advice that PyTorch adds in further lines."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
