"""Opening a run: its newest weights, the recipe they belong to, and the hash of the very file they were read from.

A training that is under way adds checkpoints and removes old ones. What is opened here is of one checkpoint, however
many appear or go meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from grncli.models.unfilled import made_on_meta
from grncli.runs.checkpoint import EMA, RECIPE, check_tensors, find_checkpoint, read_state, run_of
from grncli.runs.kinds import AnyModule, AnyRecipe, NetworkKind
from grncli.runs.networks import FORMATS, check_config, fill
from grncli.runs.recipe import kind_of, load_fields, parse_own_recipe, restoring
from grncli.runtime.errors import CheckpointError, GrnError, UsageError
from grncli.runtime.held_files import FileIdentity, HeldFile, identity_at
from grncli.runtime.monitor import Say
from grncli.runtime.tensor_files import DTYPES, open_tensors

Result = TypeVar("Result")

ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class OpenedRun(Generic[AnyModule, AnyRecipe]):
    """A run whose recipe and step are known, before any weights are read."""

    run: Path
    """As it was named: the run directory, or one of its checkpoints."""
    checkpoint: Path
    kind: NetworkKind[AnyModule, AnyRecipe]
    recipe: AnyRecipe
    step: int

    @property
    def is_finished(self) -> bool:
        """Whether the checkpoint is the last one of its training; an imported network has none."""
        return bool(self.recipe.imported) or self.step >= self.recipe.training.steps

    @property
    def unfinished(self) -> str | None:
        """A sentence where its training has not come to the end, else None."""
        if self.is_finished:
            return None
        return f"{self.run}: is at step {self.step} of {self.recipe.training.steps}, its training is not finished"


@dataclass(frozen=True, kw_only=True)
class Loaded(OpenedRun[AnyModule, AnyRecipe]):
    """The network of a run, ready for inference, with what belongs to the very weights that were read."""

    network: AnyModule
    identity: dict[str, str]
    """``{name, sha256}`` for a store's fingerprint; the hash is that of the weights file."""


def open_run(
    run: str | Path,
    kind: NetworkKind[AnyModule, AnyRecipe],
    *,
    weights: str = "ema",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    say: Say,
) -> Loaded[AnyModule, AnyRecipe]:
    """The network of a run's newest checkpoint, or that of a checkpoint that is named itself.

    Parameters
    ----------
    kind : what the run should be of
    weights : ``ema``, or the name of another weights file of the checkpoint
    device, dtype : where its weights are put, one by one, and as which numbers: float32 or bfloat16
    say : called with one sentence where the training is not finished

    Raises
    ------
    CheckpointError
        If there is no such run, it is of another kind, or its recipe or weights are damaged, no finite numbers or do
        not fit each other.
    """
    run = Path(run)
    loaded = read_newest(
        run, lambda checkpoint: load_network(read_run(run, checkpoint, [kind]), weights, device, dtype)
    )
    if loaded.unfinished is not None:
        say(loaded.unfinished)
    return loaded


def read_newest(run: Path, read: Callable[[Path], Result]) -> Result:
    """What ``read`` makes of a run's newest checkpoint; it reads again where recipe or checkpoint change meanwhile."""
    for _ in range(ATTEMPTS):
        newest = _newest(run)
        try:
            result = read(newest.checkpoint)
        except GrnError:
            if _newest(run) == newest:
                raise
            continue  # removed or replaced while it was read
        if identity_at(run_of(newest.checkpoint) / RECIPE) == newest.recipe:
            return result
    raise CheckpointError(f"{run}: changed {ATTEMPTS} times while it was read; wait for what writes it to end")


def read_run(
    run: Path, checkpoint: Path, kinds: Sequence[NetworkKind[AnyModule, AnyRecipe]]
) -> OpenedRun[AnyModule, AnyRecipe]:
    """The recipe and the step of a checkpoint; CheckpointError, naming ``run``, where it is of none of ``kinds``."""
    path = run_of(checkpoint) / RECIPE
    with restoring():
        fields = load_fields(path)
    name = kind_of(fields)
    kind = next((each for each in kinds if name in (None, each.name)), None)
    if kind is None:
        expected = " or a ".join(each.name for each in kinds)
        raise CheckpointError(f"{run}: is the run of a {str(name)[:40]}, expected that of a {expected}")
    recipe = parse_own_recipe(fields, kind.schema, path)
    return OpenedRun(run=run, checkpoint=checkpoint, kind=kind, recipe=recipe, step=read_state(checkpoint).step)


class _Newest(NamedTuple):
    """Which checkpoint and recipe a run has at one time."""

    checkpoint: Path
    folder: FileIdentity | None
    recipe: FileIdentity | None


def _newest(run: Path) -> _Newest:
    checkpoint = find_checkpoint(run)
    # ``checkpoints/latest`` may lead elsewhere from one file to the next.
    checkpoint = checkpoint.resolve() if checkpoint.is_symlink() else checkpoint
    return _Newest(checkpoint, identity_at(checkpoint), identity_at(run_of(checkpoint) / RECIPE))


def load_network(
    opened: OpenedRun[AnyModule, AnyRecipe],
    weights: str = "ema",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Loaded[AnyModule, AnyRecipe]:
    """The network of an opened run, hashed and filled from one file that stays open meanwhile."""
    file = weights_file(opened.checkpoint, weights)
    with HeldFile(file) as held, open_tensors(file) as content:
        held.confirm()
        names = list(content.keys())
        check_config(opened.recipe.network, content.metadata() or {}, file)
        network = made_on_meta(lambda: opened.kind.build(opened.recipe))
        headers = {name: _Header(content, name) for name in names}
        check_tensors(headers, network.state_dict(), file, formats=FORMATS)
        tensors = {name: content.get_tensor(name).to(device, dtype) for name in names}
        return Loaded(**vars(opened), network=fill(network, tensors, str(file)), identity=_identity(opened, held))


def identify_network(opened: OpenedRun[AnyModule, AnyRecipe], weights: str = "ema") -> Loaded[AnyModule, AnyRecipe]:
    """As `load_network`, for what asks for the identity only: the network is on the meta device, without weights."""
    with HeldFile(weights_file(opened.checkpoint, weights)) as held:
        network = made_on_meta(lambda: opened.kind.build(opened.recipe))
        return Loaded(**vars(opened), network=network, identity=_identity(opened, held))


def _identity(opened: OpenedRun[AnyModule, AnyRecipe], weights: HeldFile) -> dict[str, str]:
    return {"name": run_of(opened.checkpoint).name, "sha256": weights.sha256()}


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

    def __init__(self, content: Any, name: str) -> None:
        piece = content.get_slice(name)
        self.shape = tuple(piece.get_shape())
        self.dtype = DTYPES.get(str(piece.get_dtype()), str(piece.get_dtype()))
