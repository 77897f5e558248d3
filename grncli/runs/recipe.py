"""Reading typed recipes from YAML, with overrides from the command line, and writing them back.

What a recipe holds is declared as frozen dataclasses elsewhere; this module only checks and converts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from grncli.runs.recipe_faults import LONGEST_REASON, explain_faults, unknown_fields
from grncli.runs.recipe_fields import rename_fields
from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.files import read_plain
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import one_line, printable

Schema = TypeVar("Schema")

MAX_BYTES = 4 << 20
"""Largest recipe: a file, and what it stands for once every alias in it is written out."""

YAML_LINE_ENDS = "\x85\u2028\u2029"


def read_recipe(
    path: Path,
    schema: type[Schema],
    overrides: Sequence[str] = (),
    check: Callable[[Mapping[str, Any]], None] = lambda fields: None,
) -> Schema:
    """Load a YAML recipe as an instance of the dataclass ``schema``.

    Parameters
    ----------
    overrides : ``dotted.field=value`` assignments; values are read as YAML
    check : called with the plain fields of the file, before anything else looks at them

    Raises
    ------
    RecipeError
        In one sentence, for a missing or unreadable file, an unknown field (with the nearest name), or a wrong value.
    """
    data = load_fields(path)
    check(data)
    return parse_recipe(overridden(data, overrides), schema, str(path), overrides)


def overridden(fields: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The plain fields with ``dotted.field=value`` assignments; RecipeError for one that is none."""
    for override in overrides:
        _assign(fields, override)
    return fields


def load_fields(path: Path) -> dict[str, Any]:
    """The plain fields of a recipe file, none of an empty one; RecipeError where it holds something else."""
    data = load_yaml(path)
    if not isinstance(data, dict | None):
        raise RecipeError(f"{path}: holds a {type(data).__name__}, expected fields and values")
    return data or {}


def kind_of(fields: Any) -> str | None:
    """``tokenizer`` or ``generator``; None for what is no recipe of a run, as a file called recipe.yaml may hold."""
    is_recipe = isinstance(fields, dict) and {"kind", "network"} <= fields.keys()
    return str(fields["kind"]) if is_recipe else None


def load_yaml(path: Path) -> Any:
    """The plain data of an untrusted YAML file; RecipeError where it cannot be read or is too large.

    Ten lines of YAML can stand for gigabytes: an alias repeats all that its anchor holds, aliases among it.
    """
    try:
        loader = yaml.SafeLoader(read_text(path))
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            if _written_out(root, {}) > MAX_BYTES:
                raise ValueError(f"its aliases stand for more than {MAX_BYTES >> 20} MiB")
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError:
        reason = "it is nested too deeply, or holds itself"
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: an impossible date, say
        reason = printable(one_line(error, LONGEST_REASON))
    raise RecipeError(f"{path}: cannot be read as a YAML recipe ({reason})")


def read_own_recipe(path: Path, schema: type[Schema]) -> Schema:
    """The recipe in a run directory, with `parse_own_recipe`."""
    with restoring():
        data = load_fields(path)
    return parse_own_recipe(data, schema, path)


def parse_own_recipe(data: dict[str, Any], schema: type[Schema], path: Path) -> Schema:
    """As `parse_recipe` for the fields of a run's own recipe, which may have the names of earlier versions."""
    with restoring():
        rename_fields(data, schema)
        return parse_recipe(data, schema, str(path))


@contextmanager
def restoring() -> Iterator[None]:
    """A run's own recipe was written whole and checked: a fault in it is damage (CheckpointError), no wrong usage."""
    try:
        yield
    except RecipeError as error:
        raise CheckpointError(f"{error}; restore the file") from None


def parse_recipe(data: Mapping[str, Any], schema: type[Schema], name: str, overrides: Sequence[str] = ()) -> Schema:
    """Check plain ``data`` against the dataclass ``schema``.

    Parameters
    ----------
    name : file that errors name
    overrides : those already in ``data``; an error in one of them names it instead
    """

    def refuse(field: str, fault: str) -> RecipeError:
        blamed = [each for each in overrides if f"{field}.".startswith(f"{each.partition('=')[0]}.")]
        place = f"the override {brief(blamed[-1])}" if blamed else name
        return RecipeError(printable(f"{place}: {fault}"))

    for unknown in unknown_fields(data, schema):
        raise refuse(*unknown)
    try:
        return TypeAdapter(schema).validate_python(data)
    except ValidationError as error:
        raise refuse(*next(explain_faults(error, schema))) from None


def recipe_faults(data: Mapping[str, Any], schema: type[Any]) -> list[str]:
    """A sentence for each fault of plain data: for fields that do not exist, then for those with a wrong value."""
    faults = [*unknown_fields(data, schema)]
    try:
        TypeAdapter(schema).validate_python(data)
    except ValidationError as error:
        unknown = {field for field, _ in faults}  # a name that is no text is a fault of its value too
        faults += [fault for fault in explain_faults(error, schema) if fault[0] not in unknown]
    return [printable(fault) for _, fault in faults]


def dump_recipe(recipe: Any, only: Sequence[str] = ()) -> str:
    """A recipe as YAML text, every field resolved, in the order of declaration; or ``only`` these sections."""
    data = {key: value for key, value in asdict(recipe).items() if not only or key in only}
    return yaml.dump(_plain(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_flow(value: Any) -> str:
    """One value of a recipe as YAML on one line."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.dump([_plain(value)], Dumper=_Dumper, default_flow_style=True, default_style=style, width=inf)
    return text.strip()[1:-1]


class _Dumper(yaml.SafeDumper):
    """Escapes what YAML takes for the end of a line, and reads back as a space: a class may have any name."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(char in text for char in YAML_LINE_ENDS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def read_text(path: Path) -> str:
    """The text of a recipe file; OSError or ValueError where it cannot be read, or is too large."""
    data = read_plain(path, MAX_BYTES)
    if data is None:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    return data.decode("utf-8-sig")  # editors on Windows may begin a file with a byte order mark


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Characters and values that a node stands for; each node is looked at once, however often it is repeated."""
    if id(node) not in sizes:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        sizes[id(node)] = 1 + own + sum(_written_out(part, sizes) for part in parts)
    return sizes[id(node)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _assign(data: dict[str, Any], override: str) -> None:
    """Set one ``dotted.field=value`` in plain data, creating the sections on the way."""
    field, equals, text = override.partition("=")
    *sections, last = field.split(".")
    if not equals or not all(field.split(".")):
        raise RecipeError(f"the override {brief(override)} is not of the form field=value, such as training.steps=1000")
    try:
        value = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(
            f"the override {brief(override)} has no readable value ({printable(one_line(error, LONGEST_REASON))})"
        ) from None
    for section in sections:
        inner = data.get(section)
        if not isinstance(inner, dict | None):
            raise RecipeError(
                f"the override {brief(override)} names {section}, which is {brief(inner)} and holds no fields"
            )
        inner = dict(inner or {})  # a copy, because a YAML alias lets two sections share one dictionary
        data[section] = inner
        data = inner
    data[last] = value
