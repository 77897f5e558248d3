"""What tokenizers and generators have in common as run directories: finding, checking, filling and importing them."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import yaml
from torch import Tensor, nn

from grncli.checkpoint import (
    CHECKPOINTS,
    EMA,
    RECIPE,
    check_run_is_free,
    clear_run,
    find_checkpoint,
    read_config,
    read_state,
    recipe_kind,
    run_of,
    sha256_of,
    write_checkpoint,
)
from grncli.errors import CheckpointError, GrnError, UsageError
from grncli.recipe import dump_recipe, read_own_recipe


class NetworkRecipe(Protocol):
    """What every recipe says of its network."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def network(self) -> Any: ...  # noqa: D102
    @property
    def training(self) -> Any: ...  # noqa: D102
    @property
    def imported(self) -> dict[str, str] | None: ...  # noqa: D102


AnyRecipe = TypeVar("AnyRecipe", bound=NetworkRecipe)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def run_kind(run: Path) -> str | None:
    """``tokenizer`` or ``generator``, as the recipe of a run directory (or of one of its checkpoints) says."""
    return recipe_kind(run_of(find_checkpoint(run)))


def read_run(run: str | Path, schema: type[AnyRecipe], kind: str) -> tuple[Path, AnyRecipe]:
    """The newest checkpoint of a run and its recipe; CheckpointError where it is of another kind or was edited."""
    checkpoint = find_checkpoint(Path(run))
    found = run_kind(Path(run))
    if found not in (None, kind):
        raise CheckpointError(f"{run}: is the run of a {found}, expected that of a {kind}")
    recipe = read_own_recipe(run_of(checkpoint) / RECIPE, schema)
    _check_config(recipe, checkpoint)
    return checkpoint, recipe


def fill(network: AnyModule, weights: Mapping[str, Tensor], name: str) -> AnyModule:
    """A network made on the meta device with its weights, ready for inference; ``name`` is what errors name."""
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{name}: the weights do not fit the network of the recipe ({reason})") from None
    return network.eval().requires_grad_(False)


def network_identity(run: str | Path) -> dict[str, str]:
    """``{name, sha256}`` of a run's network for a store's fingerprint; the hash is that of the weights file."""
    checkpoint = find_checkpoint(Path(run))
    return {"name": run_of(checkpoint).name, "sha256": sha256_of(checkpoint / EMA)}


def verify_network(run: str | Path, load: Callable[[str | Path], nn.Module]) -> list[str]:
    """Problems of a run's weights, one sentence each; none if they load and are finite."""
    try:
        network = load(run)
    except GrnError as error:
        return [str(error)]
    file = find_checkpoint(Path(run)) / EMA
    wrong = [name for name, weight in network.state_dict().items() if not weight.isfinite().all()]
    return [f"{file}: {name} has values that are no finite numbers; use another checkpoint" for name in wrong]


def describe_network(
    checkpoint: Path, recipe: NetworkRecipe, network: nn.Module, only: Sequence[str]
) -> dict[str, Any]:
    """What ``grn info`` tells of any run; of an imported one ``only`` these sections of the recipe."""
    step = read_state(checkpoint)["step"]
    sections = asdict(recipe)  # type: ignore[call-overload]
    return {
        "kind": recipe.kind,
        "name": run_of(checkpoint).name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": checkpoint.name,
        "step": step,
        "complete": bool(recipe.imported) or step >= recipe.training.steps,
        "sha256": sha256_of(checkpoint / EMA),
        "recipe": {key: value for key, value in sections.items() if not recipe.imported or key in only},
    }


def choose_weights(
    loaded: Mapping[str, Any], names: Mapping[str, str], wanted: str | None, file: Path, kind: str
) -> tuple[str, dict[str, Tensor]]:
    """The weights to take from a released file.

    Parameters
    ----------
    names : what ``--weights`` calls them, to their entry in the file; the first that is there is the default

    Returns
    -------
    The name, and the weights.
    """
    present = [name for name, entry in names.items() if isinstance(loaded.get(entry), dict)]
    if wanted is not None and wanted not in present:
        raise CheckpointError(f"{file}: has no weights under {wanted!r}, expected one of {present or list(loaded)[:5]}")
    if not present:
        entries = " or ".join(map(repr, names.values()))
        raise CheckpointError(
            f"{file}: has the entries {list(loaded)[:5]}, expected the weights of a {kind} under {entries}"
        )
    chosen = wanted or present[0]
    weights = loaded[names[chosen]]
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{file}: the entry {names[chosen]!r} holds more than tensors, expected weights")
    return chosen, weights


def read_settings(settings: Sequence[str], known: Mapping[str, str]) -> dict[str, Any]:
    """The user's ``field=value`` settings for what a released file cannot tell.

    ``known`` gives an example for each field; UsageError for any other.
    """
    values = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.removeprefix("network.")
        if field not in known or not equals:
            raise UsageError(f"--set {setting}: expected {' or '.join(known.values())}, the rest is in the file")
        try:
            values[field] = yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise UsageError(f"--set {setting}: has no readable value, expected {known[field]}") from None
    return values


def write_imported(
    run: Path, recipe: NetworkRecipe, network: nn.Module, only: Sequence[str], *, overwrite: bool
) -> None:
    """Make the run directory of an imported network: whole, or not at all."""
    check_run_is_free(run, recipe.kind, overwrite=overwrite)
    run = run.resolve()  # links stay what they are
    partial = run.with_name(f".{run.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_checkpoint(partial, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(recipe.network))
    (partial / RECIPE).write_text(dump_recipe(recipe, only), encoding="utf-8")
    if run.exists():
        clear_run(run)
        for name in (RECIPE, CHECKPOINTS):
            (partial / name).rename(run / name)
        partial.rmdir()
    else:
        partial.rename(run)


def made_on_meta(build: Callable[[], AnyModule]) -> AnyModule:
    """A network without memory for its weights, to be filled."""
    with torch.device("meta"):
        return build()


def _check_config(recipe: NetworkRecipe, checkpoint: Path) -> None:
    """The weights remember the sizes they were made with; a recipe edited since may fit them by chance."""
    made, told = read_config(checkpoint / EMA), json.loads(json.dumps(asdict(recipe.network)))
    for field, value in (made or {}).items():
        if field not in told or told[field] != value:
            raise CheckpointError(
                f"{checkpoint / EMA}: was made with network.{field}={value}, and {RECIPE} says {told.get(field)}; "
                f"restore {RECIPE}"
            )
