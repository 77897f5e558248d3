"""The grid of a decoding search: which settings it varies, over which values."""

import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grncli.runtime.errors import UsageError
from grncli.sampling.settings import SampleOptions

SEARCHED = (  # settings that decode the same generator in another way
    "temperature",
    "guidance",
    "guidance_interval",
    "steps",
    "schedule",
    "cosine_end",
    "shift",
    "k",
    "b",
    "min_steps",
    "max_steps",
    "warmup_steps",
    "target_steps",
    "adapt_temperature",
    "select",
)

Value = float | int | str | bool
Point = Mapping[str, Value]


def parse_grid(settings: Sequence[str]) -> dict[str, list[Value]]:
    """``temperature=1.0,1.2``, ``guidance=1.5:3:0.5`` (from, to, step) and so on, as values of each setting.

    Raises
    ------
    UsageError
        For a setting that cannot be searched, or values it cannot take.
    """
    kinds = typing.get_type_hints(SampleOptions)
    grid: dict[str, list[Value]] = {}
    for text in settings:
        name, equals, values = text.partition("=")
        if not equals or name not in SEARCHED or name in grid:
            raise UsageError(f"--grid {text}: expected NAME=VALUES once for each of {', '.join(SEARCHED)}")
        read, expected = _reader(kinds[name])
        try:
            expanded = [value for part in values.split(",") for value in _expand(part.strip(), read, name)]
        except ValueError:
            expanded = []
        if not expanded:
            raise UsageError(f"--grid {text}: expected {expected}")
        grid[name] = list(dict.fromkeys(expanded))
    if not grid:
        raise UsageError("give a grid to search, such as --grid temperature=1.0,1.2 guidance=1.5:3:0.5")
    return grid


def _expand(text: str, read: Callable[[str], Value], name: str) -> list[Value]:
    parts = text.split(":")
    if len(parts) != 3 or name == "guidance_interval":
        return [read(text)]
    first, last, step = map(float, parts)
    if not (step > 0 and last >= first and (last - first) / step < 1000):
        raise ValueError(text)
    # Decimal steps as they are written: 1.1 rather than 1.1000000000000001.
    return [read(f"{first + i * step:.10g}") for i in range(math.floor((last - first) / step + 1e-9) + 1)]


def _reader(kind: Any) -> tuple[Callable[[str], Value], str]:
    """The function that reads a setting of some type, and its valid values in words."""
    options = _alternatives(kind)
    if bool in options:
        return _read_flag, "true, false or both"
    numbers = "numbers such as 1,2 or, from, to and step, 1:3:1"
    if float in options:
        return _read_finite, numbers
    if int in options:
        return int, f"whole {numbers}"
    if isinstance(options[0], str):
        return lambda text: text if text in options else _refuse(text), f"some of {', '.join(options)}"
    return str, "LOW:HIGH, such as 0.2:1"


def _alternatives(kind: Any) -> list[Any]:
    """The types of a union, or the values of a literal, also of one that may be None."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union, typing.Literal):
        return [one for each in typing.get_args(kind) if each is not types.NoneType for one in _alternatives(each)]
    return [kind]


def _read_finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)


def _read_flag(text: str) -> bool:
    return text == "true" if text in ("true", "false") else _refuse(text)


def _refuse(text: str) -> typing.NoReturn:
    raise ValueError(text)


def name_of(point: Point) -> str:
    """``guidance=2.0,temperature=1.2``: independent of the order of the settings; also the name of their store."""
    return ",".join(f"{name}={value}" for name, value in sorted(point.items()))
