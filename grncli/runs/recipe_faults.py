"""What is wrong with a recipe, as the field and a sentence about it."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from grncli.runs.recipe_fields import dataclass_in, field_names, members_of, new_names, other_types, sections
from grncli.runtime.jsonfiles import brief

SUGGESTIONS = 3  # fields that a message about an unknown one proposes
LONGEST_FIELD, LONGEST_REASON = 100, 300  # characters of them in a message
ALIKE = 0.65  # how much of its name a field must share, of 1, to be proposed from another section
ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
MANY = {int: "whole numbers", float: "numbers", str: "texts"}


def unknown_fields(data: Any, schema: Any) -> Iterator[tuple[str, str]]:
    """Fields without a meaning, which pydantic would drop silently, and what to write instead."""
    for prefix, values, section in sections(data, schema):
        known = [each.name for each in fields(section)]
        for key, value in values.items():
            if key in new_names(section):
                yield f"{prefix}{key}", f"{prefix}{key} is called {prefix}{new_names(section)[key]} now"
            elif key not in known:
                field = _lone_field(f"{prefix}{key}", value)
                types = other_types(section, schema, key)
                yield field, _no_field(field, f"{prefix}type={' or '.join(types)}" if types else "", known, schema)


def _no_field(field: str, condition: str, known: Sequence[str], schema: Any) -> str:
    """That there is no such field, and what may have been meant; there would be one under the condition, if any."""
    name = cut(field, LONGEST_FIELD)
    if condition:
        return f"there is no field {name} unless {condition}; add that, or leave it out"
    # Of a section by type, names are those of its default type, which is not that of this one.
    near = [each for each in _suggest(field, schema) if each != field]
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"
    return f"there is no field {name}; {hint}"


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
        fitting = [name for name in names if tail(name.rpartition(".")[2]) == last]
        inside = [name for name in fitting if name.startswith(f"{section}.")]
        if section and not inside:
            sections = difflib.get_close_matches(section, [name.rpartition(".")[0] for name in fitting], n=1)
            inside = [name for name in fitting if name.rpartition(".")[0] in sections]
        if fitting:
            return (inside or fitting)[:SUGGESTIONS]
    # "network" is close to "network.x", and no answer.
    near = difflib.get_close_matches(field, [name for name in names if not field.startswith(f"{name}.")], n=1)
    if near:
        return near
    near = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in names], n=1, cutoff=ALIKE)
    return [name for name in names if name.rpartition(".")[2] in near][:SUGGESTIONS]


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def explain_faults(problem: ValidationError, schema: Any) -> Iterator[tuple[str, str]]:
    """Each field whose value has no meaning, and a sentence with what is there and what was expected."""
    seen = set()
    for error in problem.errors(include_url=False):
        field, fault = _explain(error, schema)
        if field not in seen:  # each type that a field may have is an error of its own
            seen.add(field)
            yield field, fault


def _explain(error: ErrorDetails, schema: Any) -> tuple[str, str]:
    short = error["type"] == "missing" and isinstance(error["loc"][-1], int)  # a list with too few items
    field, hint = _locate(error["loc"][:-1] if short else error["loc"], schema)
    if error["type"] == "union_tag_invalid":
        known = error["ctx"]["expected_tags"].replace("'", "").replace(", ", " or ")
        return f"{field}.type", f"{field}.type is {brief(error['input']['type'])}: expected {known}"
    shown = cut(field, LONGEST_FIELD)
    if error["type"] == "missing" and not short:
        return field, f"has no field {shown}, expected {in_words(hint)}"
    if error["type"] == "value_error":  # from a __post_init__, which names the value
        reason = cut(error["msg"].removeprefix("Value error, "), LONGEST_REASON)
        return field, f"{shown}: {reason}" if field else reason
    return field, f"{shown} is {brief(error['input'])}: expected {in_words(hint)}"


def _locate(loc: Sequence[int | str], schema: Any) -> tuple[str, Any]:
    """Dotted name and type of the place of a fault; pydantic names the members of unions too, which are no places."""
    names, hint = [], schema
    for part in loc:
        section = dataclass_in(hint)
        members = {get_origin(each): get_args(each) for each in members_of(hint)}
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


def in_words(hint: Any) -> str:
    """A type in words, such as "a whole number or null"."""
    members = members_of(hint)
    if len(members) > 1:
        *most, last = map(in_words, members)
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


def cut(text: str, longest: int) -> str:
    """At most so many characters, the last three of them dots where some are left out."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
