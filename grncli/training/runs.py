"""Run directories that training writes: what is done, whether the recipe is still the same, and making one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from grncli.checkpoint import RECIPE, check_run_is_free, clear_run, is_run, list_checkpoints, recipe_kind
from grncli.devices import DTYPES
from grncli.errors import CheckpointError, RecipeError
from grncli.recipe import dump_recipe, read_recipe
from grncli.runtime.files import whole_file
from grncli.training.processes import Processes
from grncli.training.recipes import Optimization, Training

# What of a recipe may change between the parts of a run.
EXTENDABLE = (
    *("steps", "log_every", "checkpoint_every", "preview_every", "validate_every"),
    *("keep", "keep_every", "compile", "recompute", "tensorboard"),
)


class Recipe(Protocol):
    """What every training recipe has."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def optimization(self) -> Optimization: ...  # noqa: D102
    @property
    def training(self) -> Training: ...  # noqa: D102
    @property
    def imported(self) -> dict[str, str] | None: ...  # noqa: D102


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_training_recipe(path: Path, schema: type[AnyRecipe], overrides: tuple[str, ...] | list[str]) -> AnyRecipe:
    """A recipe to train by; RecipeError when it is one for something else."""
    recipe = read_recipe(path, schema, overrides)
    if recipe.imported is not None:
        raise RecipeError(f"{path}: is the recipe of an imported run, which has no training to repeat")
    return recipe


def steps_done(run: Path, recipe: Recipe, *, overwrite: bool) -> int:
    """Steps that the run directory has done with this recipe, 0 where there is none; nothing is written.

    Raises
    ------
    CheckpointError
        If ``run`` was trained with another recipe, is an imported one, or is no run directory.
    """
    if overwrite or not is_run(run):
        check_run_is_free(run, recipe.kind, overwrite=overwrite)
        return 0
    if recipe_kind(run) != recipe.kind:
        check_run_is_free(run, recipe.kind, overwrite=overwrite)  # which says why it is not
    present: Any = read_recipe(run / RECIPE, type(recipe))
    if present.imported is not None:
        raise CheckpointError(f"{run}: was made by grn import and cannot be trained further; give another --out")
    free = EXTENDABLE if recorded_dtype(run) else (*EXTENDABLE, "dtype")
    comparable = replace(
        present,
        training=replace(present.training, **{k: getattr(recipe.training, k) for k in free}),
    )
    if comparable != recipe:
        raise CheckpointError(
            f"{run} was made with another recipe ({_differences(comparable, recipe)}); "
            "use the same one, another --out, or --overwrite"
        )
    checkpoints = list_checkpoints(run)
    return int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0


def recorded_dtype(run: Path) -> str | None:
    """The number format that a run is trained in; None where there is no run, or its recipe does not say."""
    try:
        dtype = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))["training"]["dtype"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, yaml.YAMLError):
        return None
    return dtype if dtype in DTYPES else None


def prepare_run(run: Path, recipe: Recipe, processes: Processes, *, overwrite: bool) -> None:
    """Make the run directory, or empty one that is to be overwritten, and put the recipe into it.

    The first of several processes does, once all have looked at what is there.
    """
    processes.wait()
    if processes.leads:
        if overwrite or not is_run(run):
            clear_run(run)
            run.mkdir(parents=True, exist_ok=True)
        text = dump_recipe(recipe)
        if not is_run(run) or (run / RECIPE).read_text(encoding="utf-8") != text:
            with whole_file(run / RECIPE) as temporary:
                temporary.write_text(text, encoding="utf-8")
    processes.wait()


def check_division(batches: dict[str, int], accumulate: int, processes: Processes) -> None:
    """Raise RecipeError unless every batch divides among the processes, and there into its pieces.

    ``batches`` are sizes by the name of their field.
    """
    pieces = processes.count * accumulate
    for field, batch in batches.items():
        if batch % pieces:
            raise RecipeError(
                f"{field} is {batch}, expected a multiple of {pieces}: "
                f"{processes.count} processes times optimization.accumulate={accumulate}"
            )


def _differences(there: Any, asked: Any) -> str:
    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for key, inner in value.items() for k, v in flat(f"{prefix}.{key}".lstrip("."), inner).items()}

    old, new = flat("", asdict(there)), flat("", asdict(asked))
    return ", ".join(
        f"{key}={old.get(key)} there, {new.get(key)} asked"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )
