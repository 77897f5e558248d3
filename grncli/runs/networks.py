"""What tokenizers and generators have in common as run directories: finding, checking, filling and importing them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import yaml
from torch import Tensor, nn

from grncli.runs.checkpoint import (
    EMA,
    RECIPE,
    check_tensors,
    find_checkpoint,
    read_config,
    read_state,
    run_of,
    sha256_of,
    take_checkpoint,
    write_checkpoint,
)
from grncli.runs.recipe import dump_recipe, read_own_recipe
from grncli.runs.rundir import (
    STAGING,
    check_run_is_free,
    clear_run,
    locked_run,
    mark_complete,
    new_record,
    recipe_kind,
    refuse_links,
    remove,
    write_record,
)
from grncli.runtime.errors import CheckpointError, GrnError, RecipeError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.jsonfiles import brief


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
    recipe = read_recipe_of(checkpoint, schema, kind, run)
    config = read_config(checkpoint / EMA)
    _compare_config(recipe, config or {}, checkpoint / EMA)
    return checkpoint, recipe


def read_recipe_of(checkpoint: Path, schema: type[AnyRecipe], kind: str, run: str | Path) -> AnyRecipe:
    """The recipe of the run that a checkpoint lies in; CheckpointError, naming ``run``, where it is of another kind."""
    found = recipe_kind(run_of(checkpoint))
    if found not in (None, kind):
        raise CheckpointError(f"{run}: is the run of a {found}, expected that of a {kind}")
    return read_own_recipe(run_of(checkpoint) / RECIPE, schema)


def fill(network: AnyModule, weights: Mapping[str, Tensor], name: str) -> AnyModule:
    """A network made on the meta device with its weights, ready for inference; ``name`` is what errors name.

    Raises
    ------
    CheckpointError
        If a weight is missing, is one too many, has another shape or type, or a value that is no finite number.
    """
    check_tensors(weights, network.state_dict(), name)
    for key, weight in weights.items():
        if not is_finite(weight):
            raise CheckpointError(f"{name}: {key} has values that are no finite numbers; use another checkpoint")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def is_finite(weight: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity.

    A sum shows either, and on a CPU takes a hundredth of the time of ``isfinite``: 9 ms for 64 M weights, one thread.
    """
    return not weight.is_floating_point() or bool(weight.sum().isfinite() or weight.isfinite().all())


def verify_network(run: str | Path, load: Callable[[str | Path], nn.Module]) -> list[str]:
    """Problems of a run's weights, one sentence each; none if they load and are finite."""
    try:
        load(run)
    except GrnError as error:
        return [str(error)]
    return []


def is_finished(recipe: NetworkRecipe, step: int) -> bool:
    """Whether a checkpoint is the last one of its training; an imported network has none."""
    return bool(recipe.imported) or step >= recipe.training.steps


def describe_network(
    checkpoint: Path, recipe: NetworkRecipe, network: nn.Module, only: Sequence[str]
) -> dict[str, Any]:
    """What ``grn info`` tells of any run; of an imported one ``only`` these sections of the recipe."""
    step = read_state(checkpoint).step
    sections = asdict(recipe)  # type: ignore[call-overload]
    return {
        "kind": recipe.kind,
        "name": run_of(checkpoint).name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": checkpoint.name,
        "step": step,
        "complete": is_finished(recipe, step),
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
        raise CheckpointError(
            f"{file}: has no weights under {wanted!r}, expected one of {present or brief(list(loaded))}"
        )
    if not present:
        entries = " or ".join(map(repr, names.values()))
        raise CheckpointError(
            f"{file}: has the entries {brief(list(loaded))}, expected the weights of a {kind} under {entries}"
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
    with locked_run(run):
        check_run_is_free(run, recipe.kind, overwrite=overwrite)  # another process may have made it since
        staging = run / STAGING
        remove(staging)
        try:
            # What is there already is cleared only once the new one is on disk.
            made = write_checkpoint(staging, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(recipe.network))
            clear_run(run, but=(STAGING,))
            refuse_links(run)
            with whole_file(run / RECIPE) as temporary:
                temporary.write_text(dump_recipe(recipe, only), encoding="utf-8")
            write_record(run, new_record(None, None, None))
            take_checkpoint(made, run)
        finally:
            remove(staging)
        mark_complete(run)


def check_memory(network: nn.Module, copies: int, device: torch.device) -> None:
    """Raise RecipeError where so many copies of a network's weights, which are on no device yet, exceed all memory."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = parameters * torch.float32.itemsize * copies
    if needed > memory:
        raise RecipeError(
            f"the network has {parameters / 1e6:.4g} M parameters, and training it takes {needed / 1e9:.4g} GB for "
            f"weights, gradients, moments and averages; {device.type} has {memory / 1e9:.4g} GB: make it smaller"
        )


def made_on_meta(build: Callable[[], AnyModule]) -> AnyModule:
    """A network without memory for its weights, to be filled."""
    with torch.device("meta"):
        return build()


def check_config(recipe: NetworkRecipe, header: Mapping[str, str], file: Path) -> None:
    """The weights remember the sizes they were made with; a recipe edited since may fit them by chance.

    ``header`` is what the safetensors file has beside its tensors.
    """
    try:
        made = dict(json.loads(header.get("config", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file}: has no readable header ({' '.join(str(error).split())[:120]})") from None
    _compare_config(recipe, made, file)


def _compare_config(recipe: NetworkRecipe, made: Mapping[str, Any], file: Path) -> None:
    told = json.loads(json.dumps(asdict(recipe.network)))
    for field, value in made.items():
        if field not in told or told[field] != value:
            raise CheckpointError(
                f"{file}: was made with network.{field[:60]}={brief(value)}, and {RECIPE} says "
                f"{brief(told.get(field))}; restore {RECIPE}"
            )
