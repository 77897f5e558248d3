"""Reading typed recipes from YAML, with overrides from the command line, and writing them back.

What a recipe holds is declared as frozen dataclasses where it is used; this module only checks and converts.
"""

import difflib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import printable

Schema = TypeVar("Schema")

MAX_BYTES = 4 << 20
"""Largest recipe: a file, and what it stands for once every alias in it is written out."""

SUGGESTIONS = 3  # fields that a message about an unknown one proposes
YAML_LINE_ENDS = "\x85\u2028\u2029"
LONGEST_FIELD, LONGEST_REASON = 100, 300  # characters of them in a message
ALIKE = 0.65  # how much of its name a field must share, of 1, to be proposed from another section
ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
MANY = {int: "whole numbers", float: "numbers", str: "texts"}


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
    data = load_yaml(path)
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: holds a {type(data).__name__}, expected fields and values")
    check(data)
    for override in overrides:
        _assign(data, override)
    return parse_recipe(data, schema, str(path), overrides)


def load_yaml(path: Path) -> Any:
    """The plain data of a YAML file that may be anybody's; RecipeError where it cannot be read or is too large.

    Ten lines of YAML can stand for gigabytes: an alias repeats all that its anchor holds, aliases among it.
    """
    try:
        loader = yaml.SafeLoader(_read_text(path))
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
        reason = _one_line(error)[:300]
    raise RecipeError(f"{path}: cannot be read as a YAML recipe ({reason})")


def read_own_recipe(path: Path, schema: type[Schema]) -> Schema:
    """The recipe in a run directory, which was written whole and checked: a fault in it is damage, no wrong usage."""
    try:
        return read_recipe(path, schema)
    except RecipeError as error:
        raise CheckpointError(f"{error}; restore the file") from None


def parse_own_recipe(fields: Mapping[str, Any], schema: type[Schema], path: Path) -> Schema:
    """As ``read_own_recipe``, of what has been loaded from ``path`` already."""
    try:
        return parse_recipe(fields, schema, str(path))
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

    unknown = _find_unknown(data, schema)
    if unknown is not None:
        field, known = unknown
        near = _suggest(field, schema)
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"
        raise refuse(field, f"there is no field {_cut(field, LONGEST_FIELD)}; {hint}")
    try:
        return TypeAdapter(schema).validate_python(data)
    except ValidationError as error:
        raise refuse(*_explain(error, schema)) from None


def field_names(schema: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a dataclass, each section before what it holds."""
    hints = get_type_hints(schema)
    for each in fields(schema):
        yield f"{prefix}{each.name}"
        inner = _dataclass_in(hints[each.name])
        if inner is not None:
            yield from field_names(inner, f"{prefix}{each.name}.")


def dump_recipe(recipe: Any, only: Sequence[str] = ()) -> str:
    """A recipe as YAML text, every field resolved, in the order of declaration; or ``only`` these sections."""
    data = {key: value for key, value in asdict(recipe).items() if not only or key in only}
    return yaml.dump(_plain(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Escapes what YAML takes for the end of a line, and reads back as a space: a class may have any name."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(char in text for char in YAML_LINE_ENDS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _read_text(path: Path) -> str:
    # Without O_NONBLOCK, opening a named pipe that took the file's place would wait forever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no plain file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    return data.decode("utf-8")


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
        raise RecipeError(f"the override {brief(override)} has no readable value ({_one_line(error)})") from None
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


def _find_unknown(data: Any, schema: Any, prefix: str = "") -> tuple[str, list[str]] | None:
    """The first field without a meaning, and those its section has; pydantic would drop it silently."""
    schema = _dataclass_in(schema)
    if schema is None or not isinstance(data, Mapping):
        return None
    hints = get_type_hints(schema)
    known = [field.name for field in fields(schema)]
    for key, value in data.items():
        if key not in known:
            return _lone_field(f"{prefix}{key}", value), known
        found = _find_unknown(value, hints[key], f"{prefix}{key}.")
        if found is not None:
            return found
    return None


def _lone_field(name: str, value: Any) -> str:
    """The field of an unknown section that has one only, which is what an override makes."""
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        name = f"{name}.{key}"
        if len(name) > LONGEST_FIELD:  # it may hold itself
            break
    return name


def _suggest(field: str, schema: Any) -> list[str]:
    """Fields that the name of an unknown one may stand for: of its name in any section, abbreviated, or mistyped."""
    names = list(field_names(schema))
    section, _, last = field.rpartition(".")
    for tail in (lambda name: name, _initials):
        found = [name for name in names if tail(name.rpartition(".")[2]) == last]
        inside = [name for name in found if name.startswith(f"{section}.")]
        if section and not inside:
            sections = difflib.get_close_matches(section, [name.rpartition(".")[0] for name in found], n=1)
            inside = [name for name in found if name.rpartition(".")[0] in sections]
        if found:
            return (inside or found)[:SUGGESTIONS]
    # "network" is close to "network.x", and no answer.
    near = difflib.get_close_matches(field, [name for name in names if not field.startswith(f"{name}.")], n=1)
    if near:
        return near
    near = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in names], n=1, cutoff=ALIKE)
    return [name for name in names if name.rpartition(".")[2] in near][:SUGGESTIONS]


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def _explain(problem: ValidationError, schema: Any) -> tuple[str, str]:
    """The field of the first fault, and what was found there and expected."""
    first = problem.errors(include_url=False)[0]
    short = first["type"] == "missing" and isinstance(first["loc"][-1], int)  # a list with too few items
    field, hint = _locate(first["loc"][:-1] if short else first["loc"], schema)
    shown = _cut(field, LONGEST_FIELD)
    if first["type"] == "missing" and not short:
        return field, f"has no field {shown}, expected {_expected(hint)}"
    if first["type"] == "value_error":  # from a check of ours, which says what it found
        reason = _cut(first["msg"].removeprefix("Value error, "), LONGEST_REASON)
        return field, f"{shown}: {reason}" if field else reason
    return field, f"{shown} is {brief(first['input'])}: expected {_expected(hint)}"


def _locate(loc: Sequence[int | str], schema: Any) -> tuple[str, Any]:
    """Dotted name and type of the place of a fault; pydantic names the members of unions too, which are no places."""
    names, hint = [], schema
    for part in loc:
        section = _dataclass_in(hint)
        members = {get_origin(each): get_args(each) for each in _members(hint)}
        if section is not None and part in [field.name for field in fields(section)]:
            hint = get_type_hints(section)[str(part)]
        elif isinstance(part, int):
            items = next((args for origin, args in members.items() if origin in (tuple, list)), (Any,))
            hint = items[min(part, len(items) - 1)] if ... not in items else items[0]
        elif dict in members and part != "[key]":
            hint = members[dict][1]
        else:
            continue
        names.append(str(part))
    return ".".join(names), hint


def _expected(hint: Any) -> str:
    """A type in words."""
    members = _members(hint)
    if len(members) > 1:
        *most, last = map(_expected, members)
        return f"{', '.join(most)} or {last}"
    (only,) = members
    origin, args = get_origin(only), get_args(only)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (tuple, list):
        count = f"{len(args)} " if origin is tuple and ... not in args else ""
        return f"a list of {count}{MANY.get(args[0], 'values')}"
    if is_dataclass(only):
        return f"a section with {', '.join(field.name for field in fields(only))}"
    return ONE.get(only, "fields and values" if origin is dict else "another value")


def _members(hint: Any) -> list[Any]:
    """The types of a union, or the type itself."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if isinstance(hint, UnionType):
        return [member for part in get_args(hint) for member in _members(part)]
    return [hint]


def _dataclass_in(hint: Any) -> Any:
    """The dataclass in a type hint such as ``Data | None``."""
    if isinstance(hint, UnionType) or get_origin(hint) is not None:
        return next((found for part in get_args(hint) if (found := _dataclass_in(part))), None)
    return hint if is_dataclass(hint) else None


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _cut(printable(" ".join(text.split())), LONGEST_REASON)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
