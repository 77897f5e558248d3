"""Reading typed recipes from YAML, with overrides from the command line, and writing them back.

What a recipe holds is declared as frozen dataclasses where it is used; this module only checks and converts.
"""

import difflib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from grncli.errors import RecipeError
from grncli.runtime.jsonfiles import brief

Schema = TypeVar("Schema")

MAX_BYTES = 4 << 20
"""Largest recipe: a file, and what it stands for once every alias in it is written out."""


def read_recipe(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Load a YAML recipe as an instance of the dataclass ``schema``.

    Parameters
    ----------
    overrides : ``dotted.field=value`` assignments; values are read as YAML

    Raises
    ------
    RecipeError
        In one sentence, for a missing or unreadable file, an unknown field (with the nearest name), or a wrong value.
    """
    data = load_yaml(path)
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: holds a {type(data).__name__}, expected fields and values")
    for override in overrides:
        _assign(data, override)
    return parse_recipe(data, schema, str(path))


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


def parse_recipe(data: Mapping[str, Any], schema: type[Schema], name: str) -> Schema:
    """Check plain ``data`` against the dataclass ``schema``; ``name`` is the file that errors name."""
    _refuse_unknown(data, schema, name, "")
    try:
        return TypeAdapter(schema).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])[:100]
        found = "" if isinstance(first["input"], dict) else f" is {brief(first['input'])}"
        place = f"{field}{found}: " if field else ""  # no field: a check over several of them failed
        raise RecipeError(f"{name}: {place}{first['msg'].removeprefix('Value error, ')[:300]}") from None


def dump_recipe(recipe: Any, only: Sequence[str] = ()) -> str:
    """A recipe as YAML text, every field resolved, in the order of declaration; or ``only`` these sections."""
    data = {key: value for key, value in asdict(recipe).items() if not only or key in only}
    return yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True)


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
        raise RecipeError(f"the override {override!r} is not of the form field=value, such as training.steps=1000")
    try:
        value = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"the override {override!r} has no readable value ({_one_line(error)})") from None
    for section in sections:
        inner = data.get(section)
        if not isinstance(inner, dict | None):
            raise RecipeError(f"the override {override!r} names {section}, which is {inner!r} and holds no fields")
        inner = dict(inner or {})  # a copy, because a YAML alias lets two sections share one dictionary
        data[section] = inner
        data = inner
    data[last] = value


def _refuse_unknown(data: Any, schema: Any, name: str, prefix: str) -> None:
    """Walk nested dataclasses; pydantic would drop unknown fields of a plain dataclass silently."""
    schema = _dataclass_in(schema)
    if schema is None or not isinstance(data, Mapping):
        return
    hints = get_type_hints(schema)
    known = [field.name for field in fields(schema)]
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise RecipeError(f"{name}: there is no field {prefix}{str(key)[:100]}; {hint}")
        _refuse_unknown(value, hints[key], name, f"{prefix}{key}.")


def _dataclass_in(hint: Any) -> Any:
    """The dataclass in a type hint such as ``Data | None``."""
    if isinstance(hint, UnionType) or get_origin(hint) is not None:
        return next((found for part in get_args(hint) if (found := _dataclass_in(part))), None)
    return hint if is_dataclass(hint) else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
