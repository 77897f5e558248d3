"""What a released file does not hold: ``--set FIELD=VALUE`` of the user, or the header of an exported one."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from grncli.hbq import MAX_ROUNDS
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runtime.errors import UsageError
from grncli.tokens import Prediction

PREDICTIONS = get_args(Prediction)


def read_settings(settings: Sequence[str], known: Mapping[str, str], texts: Collection[str] = ()) -> dict[str, Any]:
    """The user's ``field=value`` settings for what a released file does not contain.

    Parameters
    ----------
    known : an example for each field; UsageError for any other
    texts : fields whose values are text, taken as it is written; the others are YAML
    """
    values = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.removeprefix("network.")
        if field not in known or not equals:
            examples = " or ".join(dict.fromkeys(known.values()))
            raise UsageError(f"--set {setting}: expected {examples}, the rest is in the file")
        try:
            values[field] = text if field in texts else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise UsageError(f"--set {setting}: has no readable value, expected {known[field]}") from None
    return values


def check_settings(settings: Mapping[str, Any], expected: Mapping[str, tuple[bool, str]], file: Path) -> None:
    """UsageError for the first of the settings that is out of its range.

    Parameters
    ----------
    expected : of each field whether it is right, and what is right
    """
    bits = {
        "prediction": (settings["prediction"] in PREDICTIONS, " or ".join(PREDICTIONS)),
        "rounds": (is_count(settings["rounds"]) and 1 <= settings["rounds"] <= MAX_ROUNDS, f"1 to {MAX_ROUNDS}"),
    }
    for field, (right, wanted) in {**bits, **expected}.items():
        if not right:
            raise UsageError(f"{file}: {field} is {settings[field]!r}, expected {wanted}; change it with --set")


def require_true_bits(recipe: GeneratorRecipe) -> None:
    """ValueError for a generator that predicts anything else: no released one does, and no file would say so."""
    if recipe.refinement.target != "absolute":
        raise ValueError(f"refinement.target is {recipe.refinement.target}, expected absolute")


def is_count(value: Any) -> bool:
    """Whether a setting is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
