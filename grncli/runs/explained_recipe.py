"""A recipe with every field written out, and above each what it means."""

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from grncli.runs.recipe import dump_flow
from grncli.runs.recipe_meanings import meanings

COLUMNS = 100  # of a line; a value is never broken


def explained_recipe(recipe: Any) -> str:
    """YAML text of a recipe, a dataclass: all fields in the order of declaration, each below its meaning."""
    return "".join(f"{line}\n" for line in _lines(recipe, ""))


def _lines(section: Any, indent: str) -> Iterator[str]:
    kind: Any = type(section)
    known, sharp = meanings(kind), f"{indent}# "
    for each in fields(section):
        value = getattr(section, each.name)
        yield from textwrap.wrap(known.get(each.name, ""), COLUMNS, initial_indent=sharp, subsequent_indent=sharp)
        if is_dataclass(value):
            yield f"{indent}{each.name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{each.name}: {dump_flow(value)}"
