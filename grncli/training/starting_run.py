"""A training that begins with the weights of another run, trained or imported (``--from``)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from grncli.runs.checkpoint import read_state
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.generators import identify_generator, open_generator
from grncli.runs.loading import has_weights
from grncli.runtime.differences import describe_differences
from grncli.runtime.errors import RecipeError
from grncli.runtime.monitor import Say
from grncli.store import open_store
from grncli.training.objective import Average

IMPORTED_STEPS = 1_000_000  # that an imported average counts as having seen: its decay is in force at once


@dataclass(frozen=True)
class FirstWeights:
    """What a training begins with.

    Parameters
    ----------
    weights : of the network; None where another process has them
    average : of the moving averages; None where they begin anew with the weights
    """

    weights: Mapping[str, Tensor] | None
    average: Average | None


def begin_from(
    recipe: GeneratorRecipe,
    run: Path,
    store: Path,
    *,
    keep: bool,
    reads: bool = True,
    say: Say = lambda text: None,
) -> tuple[GeneratorRecipe, FirstWeights]:
    """The recipe with the record of ``run``, and the weights to begin with.

    Parameters
    ----------
    store : one of those to train on
    keep : go on from the weights and the moving average of ``run``, as far as it has both; otherwise its moving
        average is what the weights begin with, and they are averaged anew
    reads : read the weights; the first of several processes does, and sends them to the others

    Raises
    ------
    RecipeError
        If a size of the network differs.
    StoreMismatch
        If the run learned bits of another tokenizer, or of another stride.
    CheckpointError
        If there is no such run.
    """
    loaded = open_generator(run, say=say) if reads else identify_generator(run)
    theirs, ours = asdict(loaded.recipe.network), asdict(recipe.network)
    if theirs != ours:
        raise RecipeError(
            f"--from {run}: its network is of other sizes than the recipe's ({describe_differences(theirs, ours)}); "
            "change the section network, or begin from another run"
        )
    learned = BitFormat.of_generator(loaded.recipe.network, loaded.recipe.bits.tokenizer, loaded.recipe.bits.stride)
    require_fit(BitFormat.of_store(open_store(store)), learned, "begin from another run, or train on other stores")
    _check_encoder(recipe, loaded.recipe, run)
    recipe = replace(recipe, started_from={**loaded.identity, "ema": "keep" if keep else "restart"})
    average = dict(loaded.network.state_dict()) if reads else None
    if not keep:
        return recipe, FirstWeights(average, None)
    steps = read_state(loaded.checkpoint).averaged or IMPORTED_STEPS
    if not reads:
        return recipe, FirstWeights(None, Average(None, steps))
    weights = average
    if has_weights(loaded.checkpoint, "weights"):
        weights = dict(open_generator(loaded.checkpoint, "weights").network.state_dict())
    return recipe, FirstWeights(weights, Average(average, steps))


def _check_encoder(recipe: GeneratorRecipe, theirs: GeneratorRecipe, run: Path) -> None:
    """RecipeError where both know their text encoder and they differ."""
    known = [(each.text.encoder if each.text else {}).get("sha256") for each in (recipe, theirs)]
    if all(known) and known[0] != known[1]:
        raise RecipeError(
            f"--from {run}: was trained with text encoder {str(known[1])[:8]}…, and --text was made by "
            f"{str(known[0])[:8]}…; encode the captions with that one"
        )
