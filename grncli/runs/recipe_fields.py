"""The fields of recipe schemas, which are frozen dataclasses: their names of now and before, and sections by type."""

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import Discriminator


def renamed(default: Any, before: str) -> Any:
    """A field of a recipe that was called ``before``: the old name is read in runs, and refused with the new one."""
    return field(default=default, metadata={"before": before})


def by_type(default: str) -> Discriminator:
    """For a section that is one of several: its field ``type``, or else ``default``, is the tag of the one it is."""

    def tag(section: Any) -> str:
        named = section.get("type", default) if isinstance(section, Mapping) else getattr(section, "type", default)
        return str(named)

    return Discriminator(tag)


def field_names(schema: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a dataclass, each section before what it holds."""
    hints = get_type_hints(schema)
    for each in fields(schema):
        yield f"{prefix}{each.name}"
        inner = dataclass_in(hints[each.name])
        if inner is not None:
            yield from field_names(inner, f"{prefix}{each.name}.")


def sections(data: Any, hint: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each section of plain data: its prefix, its fields and its dataclass; the outer one before what it holds."""
    schema = dataclass_in(hint, data)
    if schema is None or not isinstance(data, Mapping):
        return
    yield prefix, data, schema
    hints = get_type_hints(schema)
    for key, value in data.items():
        if key in hints:
            yield from sections(value, hints[key], f"{prefix}{key}.")


def other_types(section: Any, schema: Any, field: str) -> list[str]:
    """Values of the field ``type`` for which a section of ``schema`` that is a ``section`` would have such a field."""
    unions = [members_of(hint) for hint in get_type_hints(schema).values()]
    others = [each for members in unions if section in members for each in members if is_dataclass(each)]
    having = [get_type_hints(each) for each in others if field in [known.name for known in fields(each)]]
    return [kind for hints in having for kind in get_args(hints.get("type"))]


def new_names(section: Any) -> dict[str, str]:
    """What the fields of a section were called before, to what they are called now."""
    return {each.metadata["before"]: each.name for each in fields(section) if "before" in each.metadata}


def rename_fields(data: dict[str, Any], schema: Any) -> None:
    """Give the fields of earlier versions the names they have now, in place."""
    for _, values, section in sections(data, schema):
        for before, now in new_names(section).items():
            if before in values and now not in values:
                values[now] = values.pop(before)


def members_of(hint: Any) -> list[Any]:
    """The types of a union, or the type itself."""
    if get_origin(hint) is Annotated:
        return members_of(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [member for part in get_args(hint) for member in members_of(part)]
    return [hint]


def dataclass_in(hint: Any, data: Any = None) -> Any:
    """The dataclass in a type hint such as ``Data | None``; of several the one that the field ``type`` chooses."""
    choices = [each for each in members_of(hint) if is_dataclass(each)]
    kinds = [get_args(get_type_hints(each).get("type")) for each in choices]
    if isinstance(data, Mapping) and "type" in data and any(kinds):
        return next((each for each, kind in zip(choices, kinds, strict=True) if kind and data["type"] in kind), None)
    return choices[0] if choices else None
