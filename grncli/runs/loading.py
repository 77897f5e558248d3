"""Opening a run: its newest weights, the recipe they belong to, and the hash of the very file they were read from.

A training that is under way adds checkpoints and removes old ones. What is opened here is of one checkpoint, however
many appear or go meanwhile.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from grncli.runs.checkpoint import EMA, RECIPE, check_tensors, find_checkpoint, read_released, read_state, run_of
from grncli.runs.networks import NetworkRecipe, check_config, fill, is_finished, made_on_meta, read_recipe_of
from grncli.runtime.errors import CheckpointError, GrnError, UsageError
from grncli.runtime.files import open_plain

ATTEMPTS = 5
SHOWN = 200  # characters of a reason that safetensors gives

Network_co = TypeVar("Network_co", bound=nn.Module, covariant=True)
Recipe_co = TypeVar("Recipe_co", bound=NetworkRecipe, covariant=True)
AnyModule = TypeVar("AnyModule", bound=nn.Module)
AnyRecipe = TypeVar("AnyRecipe", bound=NetworkRecipe)
Say = Callable[[str], None]

_Identity = tuple[int, int, int, int]
# What an extension module of safetensors raises for the same file differs from release to release.
_DAMAGED = (OSError, ValueError, TypeError, SafetensorError)

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded(Generic[Network_co, Recipe_co]):
    """The network of a run, ready for inference, with what belongs to the very weights that were read."""

    run: Path
    """As it was named: the run directory, or one of its checkpoints."""
    network: Network_co
    recipe: Recipe_co
    identity: dict[str, str]
    """``{name, sha256}`` for a store's fingerprint; the hash is that of the weights file."""
    step: int

    @property
    def unfinished(self) -> str | None:
        """A sentence where its training has not come to the end, else None."""
        if is_finished(self.recipe, self.step):
            return None
        return f"{self.run}: is at step {self.step} of {self.recipe.training.steps}, its training is not finished"


class HeldFile:
    """A file that stays open while others open it by its name, so that its hash is that of what they read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "HeldFile":
        try:
            self._stream = os.fdopen(open_plain(self._file), "rb")
        except OSError as error:
            raise CheckpointError(f"{self._file}: cannot be opened ({error.strerror})") from None
        self._identity = _identity(os.fstat(self._stream.fileno()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def confirm(self) -> None:
        """Raise CheckpointError if the name means another file by now, or the file was written to."""
        # While it is open, no other file can get its inode.
        if _stat(self._file) != self._identity:
            raise CheckpointError(f"{self._file}: was replaced while it was read; run the command again")

    def sha256(self) -> str:
        """SHA-256 of its bytes; CheckpointError if they changed since it was opened."""
        self._stream.seek(0)
        digest = hashlib.file_digest(self._stream, "sha256").hexdigest()
        if _identity(os.fstat(self._stream.fileno())) != self._identity:
            raise CheckpointError(f"{self._file}: was written to while it was read; run the command again")
        return digest


class Released(NamedTuple):
    """What a file of other authors holds, and the SHA-256 of the bytes that this was read from."""

    contents: dict[str, Any]
    sha256: str


def open_released(file: Path) -> Released:
    """Read a released checkpoint as `read_released` does."""
    if not file.is_file():
        return Released(read_released(file), "")  # which says so
    with HeldFile(file) as held:
        contents = read_released(file)
        held.confirm()
        return Released(contents, held.sha256())


def open_run(
    run: str | Path,
    schema: type[AnyRecipe],
    kind: str,
    build: Callable[[AnyRecipe], AnyModule],
    *,
    weights: str = "ema",
    say: Say = lambda text: None,
) -> Loaded[AnyModule, AnyRecipe]:
    """The network of a run's newest checkpoint, on the CPU, or that of a checkpoint that is named itself.

    Parameters
    ----------
    schema, kind : what the run's recipe should be
    build : makes the network of a recipe; called with the meta device as default
    weights : ``ema``, or the name of another weights file of the checkpoint
    say : told in one sentence where the training is not finished

    Raises
    ------
    CheckpointError, RecipeError
        If there is no such run, or its weights are damaged, no finite numbers or do not fit its recipe.
    """
    run = Path(run)
    for _ in range(ATTEMPTS):
        newest = _newest(run)
        try:
            loaded = _open(run, newest.checkpoint, schema, kind, build, weights)
        except GrnError:
            if _newest(run) == newest:
                raise
            continue  # removed or replaced while it was read
        if _stat(run_of(newest.checkpoint) / RECIPE) == newest.recipe:
            if loaded.unfinished is not None:
                say(loaded.unfinished)
            return loaded
    raise CheckpointError(f"{run}: changed {ATTEMPTS} times while it was read; wait for what writes it to end")


class _Newest(NamedTuple):
    """Which checkpoint and recipe a run has at one time."""

    checkpoint: Path
    folder: _Identity | None
    recipe: _Identity | None


def _newest(run: Path) -> _Newest:
    found = find_checkpoint(run)
    # ``checkpoints/latest`` may lead elsewhere from one file to the next.
    checkpoint = found.resolve() if found.is_symlink() else found
    return _Newest(checkpoint, _stat(checkpoint), _stat(run_of(checkpoint) / RECIPE))


def _open(
    run: Path,
    checkpoint: Path,
    schema: type[AnyRecipe],
    kind: str,
    build: Callable[[AnyRecipe], AnyModule],
    weights: str,
) -> Loaded[AnyModule, AnyRecipe]:
    recipe = read_recipe_of(checkpoint, schema, kind, run)
    step = read_state(checkpoint).step
    file = weights_file(checkpoint, weights)
    with ExitStack() as stack:
        held = stack.enter_context(HeldFile(file))
        try:
            opened = stack.enter_context(safe_open(file, framework="pt"))
            header, names = opened.metadata() or {}, list(opened.keys())
        except _DAMAGED as error:
            raise _damaged(file, error) from None
        held.confirm()
        check_config(recipe, header, file)
        network = made_on_meta(lambda: build(recipe))
        check_tensors({name: _Header(opened, name) for name in names}, network.state_dict(), file)
        try:
            tensors = {name: opened.get_tensor(name) for name in names}
        except _DAMAGED as error:
            raise _damaged(file, error) from None
        identity = {"name": run_of(checkpoint).name, "sha256": held.sha256()}
        return Loaded(run=run, network=fill(network, tensors, str(file)), recipe=recipe, identity=identity, step=step)


def weights_file(checkpoint: Path, weights: str) -> Path:
    """File of the weights called ``weights``; UsageError with those that there are."""
    file = f"{weights}.safetensors"
    if file != EMA:
        present = sorted(path.stem for path in checkpoint.glob("*.safetensors") if path.stem != "optimizer")
        if weights not in present:
            raise UsageError(f"{checkpoint}: has no weights called {weights}, expected one of {', '.join(present)}")
    return checkpoint / file


class _Header:
    """Shape and type of a tensor as the header of its file says, before memory is asked for."""

    def __init__(self, opened: Any, name: str) -> None:
        piece = opened.get_slice(name)
        self.shape = tuple(piece.get_shape())
        self.dtype = _DTYPES.get(str(piece.get_dtype()), str(piece.get_dtype()))


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file}: cannot be read as safetensors ({' '.join(str(error).split())[:SHOWN]})")


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _stat(path: Path) -> _Identity | None:
    try:
        return _identity(path.stat())
    except OSError:
        return None
