"""JSON documents checked against declared types, without silent conversions."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, Strict, TypeAdapter, ValidationError

from grncli.runtime.errors import GrnError
from grncli.runtime.jsonfiles import brief, read_json

Schema = TypeVar("Schema")

Count = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
"""A whole number from 0, written as one: neither ``"4"`` nor ``4.0`` nor ``true``."""
Text = Annotated[str, Strict()]


_adapter = cache(TypeAdapter)  # making one takes a hundred times as long as using it

_WORDS = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "string_type": "expected text",
    "dict_type": "expected an object",
    "dataclass_type": "expected an object",
    "list_type": "expected a list",
}
"""Pydantic's kinds of faults in the words of JSON."""


def read_json_as(path: Path, schema: type[Schema], *, error: type[GrnError], remedy: str) -> Schema:
    """The document in a file as an instance of the dataclass ``schema``; further fields of the file do not count.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    error
        In one sentence that names file and field, what was found and expected, and ends with ``remedy``.
    """
    return check(read_json(path, error=error, remedy=remedy), schema, str(path), error=error, remedy=remedy)


def check(value: Any, schema: type[Schema], name: str, *, error: type[GrnError], remedy: str) -> Schema:
    """Plain data as an instance of ``schema``; ``name`` is what the error calls it."""
    try:
        adapter: TypeAdapter[Schema] = _adapter(schema)  # type: ignore[arg-type]  # every class can be hashed
        return adapter.validate_python(value)
    except ValidationError as problem:
        raise error(f"{name}: {explain(problem)}; {remedy}") from None


def explain(problem: ValidationError) -> str:
    """The first fault of a document: its field, its value and what was expected, on one line."""
    first = problem.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:100]
    if first["type"] == "missing":
        return f"has no field {field}"
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")[:200]
    expected = _WORDS.get(first["type"], expected)
    return f"{f'field {field} ' if field else ''}is {brief(first['input'])}, {expected}"
