"""Opening a run: its newest weights, the recipe they belong to, and the hash of the very file they were read from.

A training that is under way adds checkpoints and removes old ones. What is opened here is of one checkpoint, however
many appear or go meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch

from grncli.models.unfilled import made_on_meta
from grncli.runs.checkpoint import RECIPE, check_tensors, entries, find_checkpoint, read_state, run_of
from grncli.runs.kinds import AnyModule, AnyRecipe, NetworkKind
from grncli.runs.networks import FORMATS, check_config, fill
from grncli.runs.recipe import kind_of, load_fields, parse_own_recipe, restoring
from grncli.runs.stored_tensors import StoredTensors, open_stored
from grncli.runtime.errors import CheckpointError, GrnError, UsageError
from grncli.runtime.held_files import FileIdentity, identity_at
from grncli.runtime.monitor import Say

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
    """``{name, sha256}`` for a store's fingerprint; the hash is that of the weights file, whole or in shards."""


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
    """The network of an opened run, hashed and filled from files that stay open meanwhile."""
    with opened_weights(opened, weights) as (network, stored):
        tensors = {name: stored.read(name).to(device, dtype) for name in stored.sizes}
        filled = fill(network, tensors, str(stored.place))
        return Loaded(**vars(opened), network=filled, identity=_identity(opened, stored))


@contextmanager
def opened_weights(
    opened: OpenedRun[AnyModule, AnyRecipe], weights: str = "ema"
) -> Iterator[tuple[AnyModule, StoredTensors]]:
    """The network of a run, without any weights, and those that fit it, to be read one by one in a block."""
    with _open_weights(opened.checkpoint, weights) as stored:
        check_config(opened.recipe.network, stored.metadata, stored.place)
        network = made_on_meta(lambda: opened.kind.build(opened.recipe))
        check_tensors(stored.sizes, network.state_dict(), stored.place, formats=FORMATS)
        yield network, stored


def identify_network(opened: OpenedRun[AnyModule, AnyRecipe], weights: str = "ema") -> Loaded[AnyModule, AnyRecipe]:
    """As `load_network`, for what asks for the identity only: the network is on the meta device, without weights."""
    with _open_weights(opened.checkpoint, weights) as stored:
        network = made_on_meta(lambda: opened.kind.build(opened.recipe))
        return Loaded(**vars(opened), network=network, identity=_identity(opened, stored))


def _identity(opened: OpenedRun[AnyModule, AnyRecipe], weights: StoredTensors) -> dict[str, str]:
    return {"name": run_of(opened.checkpoint).name, "sha256": weights.sha256()}


def has_weights(checkpoint: Path, weights: str) -> bool:
    """Whether a checkpoint has weights of this name."""
    return weights in _present(checkpoint)


def _open_weights(checkpoint: Path, weights: str) -> AbstractContextManager[StoredTensors]:
    """The weights called ``weights``; UsageError with those that there are."""
    present = _present(checkpoint)
    if weights != "ema" and weights not in present:
        raise UsageError(f"{checkpoint}: has no weights called {weights}, expected one of {', '.join(present)}")
    return open_stored(checkpoint, weights)


def _present(checkpoint: Path) -> list[str]:
    files = [path for path in entries(checkpoint) if path.suffix == ".safetensors" or path.is_dir()]
    return sorted(path.stem for path in files if path.stem != "optimizer")
