"""Networks of others as PyTorch exports them: TorchScript archives, and programs of ``torch.export`` (.pt2).

Both are programs: use files of people you trust.
"""

import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.runtime.errors import CheckpointError, GrnError
from grncli.runtime.held_files import HeldFile
from grncli.runtime.tensor_files import utf8_name
from grncli.runtime.text import one_line

TEXTS, TENSOR = "List[str]", "Tensor"  # types of an argument, as TorchScript writes them
_REASON = 300  # characters of PyTorch's error in a message


@dataclass(frozen=True)
class ExportedNetwork:
    """A network with one input."""

    name: str
    """Of its file."""
    sha256: str
    takes: str
    """Type of the input: `TENSOR`, `TEXTS`, or another that TorchScript has."""
    call: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        """What the network gives; GrnError where it fails."""
        return call_exported(self.name, self.call, x)

    def about(self) -> dict[str, str]:
        """Which network it is, for reports."""
        return {"name": self.name, "sha256": self.sha256}


def load_exported(file: Path, device: str | torch.device = "cpu") -> ExportedNetwork:
    """The network of a TorchScript archive or a .pt2 file, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is neither, is damaged, or its network needs more than one input.
    """
    with HeldFile(file) as held:
        sha256 = held.sha256()
        if is_torchscript(file):
            call, types = _scripted(file, device)
        elif _is_program(file):
            call, types = _program(file, device)
        else:
            raise CheckpointError(f"{file}: is no exported network, expected a TorchScript archive or a .pt2 file")
        held.confirm()
    if len(types) != 1:
        given = ", ".join(types) or "nothing"
        raise CheckpointError(f"{file}: takes {given}, expected a network of one input; export it as such")
    return ExportedNetwork(file.name, sha256, types[0], call)


def is_torchscript(file: Path) -> bool:
    """Whether it is an archive with code, as PyTorch makes of modules; one of weights has none."""
    names = _members(file)
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def load_torchscript(file: Path) -> torch.jit.ScriptModule:
    """The module of an archive, in evaluation mode on the CPU; CheckpointError where it is damaged."""
    try:
        with utf8_name(file) as name, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
            module: torch.jit.ScriptModule = torch.jit.load(name, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # it raises whatever the bytes lead it to
        reason = one_line(error, _REASON)
        raise CheckpointError(f"{file}: cannot be read as TorchScript ({reason}); get it again") from None
    return module.eval()


def arguments_of(module: torch.jit.ScriptModule) -> dict[str, bool]:
    """The names of what ``forward`` takes, and whether it has to be given; none where there is no such method."""
    return {argument.name: not argument.has_default_value() for argument in _schema(module)}


def call_exported(name: str, call: Callable[..., Any], x: Any, **options: bool) -> Any:
    """What a network gives for a tensor, or for texts; GrnError, which names it, where it fails."""
    try:
        return call(x, **options)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, torch.jit.Error) as error:  # of many lines, the last says what it was
        reason = str(error).strip().rpartition("\n")[2]
        given = f"{x.dtype} input of the shape {list(x.shape)}" if isinstance(x, Tensor) else f"{len(x)} texts"
        raise GrnError(f"{name}: fails on {given} ({reason})") from None


def checked_vectors(name: str, what: str, output: Any, count: int) -> Tensor:
    """Output of a network as float32 ``[count, D]``; GrnError if it is anything but vectors of finite numbers."""
    if not (isinstance(output, Tensor) and output.is_floating_point() and output.dim() == 2):
        shape = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise GrnError(f"{name}: gives {what} of the form {shape}, expected float [{count}, D]")
    if len(output) != count:
        raise GrnError(f"{name}: gives {len(output)} vectors of {what} for {count} inputs; choose another one")
    if not output.isfinite().all():
        raise GrnError(f"{name}: gives {what} that are not finite numbers; its weights may be damaged")
    return output.float()


@contextmanager
def exactly() -> Iterator[None]:
    """Full float32, without choices made while running: features must not depend on what was computed before."""
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), torch.jit.optimized_execution(False), cudnn:  # type: ignore[attr-defined]
        yield


def _members(file: Path) -> Sequence[str]:
    """Names of the files in an archive, below the folder that holds them all; none where it is no archive."""
    if not zipfile.is_zipfile(file):
        return []
    try:
        with zipfile.ZipFile(file) as archive:
            return ["/".join(name.split("/")[1:]) for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file}: is a damaged archive ({error}); get it again") from None


def _is_program(file: Path) -> bool:
    names = _members(file)
    return "archive_format" in names and any(name.startswith("models/") for name in names)


def _schema(module: torch.jit.ScriptModule) -> Sequence[Any]:
    forward = getattr(module, "forward", None)
    return forward.schema.arguments[1:] if forward is not None else []


def _scripted(file: Path, device: str | torch.device) -> tuple[Callable[..., Any], list[str]]:
    """A function, and the types of what it has to be given."""
    module = load_torchscript(file).to(device)
    return module, [str(argument.type) for argument in _schema(module) if not argument.has_default_value()]


def _program(file: Path, device: str | torch.device) -> tuple[Callable[..., Any], list[str]]:
    """The same of a .pt2 file, whose inputs are tensors."""
    try:
        with file.open("rb") as stream:  # of a name it wants UTF-8 and .pt2 at its end
            program = torch.export.load(stream)
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass  # takes half a second

            program = move_to_device_pass(program, device)
    except Exception as error:  # it raises whatever the bytes lead it to
        reason = one_line(error, _REASON)
        raise CheckpointError(f"{file}: cannot be read as an exported program ({reason}); get it again") from None
    return program.module(), [TENSOR] * len(program.graph_signature.user_inputs)
