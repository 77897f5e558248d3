"""Which fields differ between two nested settings: what is there, and what is asked for."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grncli.runtime.jsonfiles import SHOWN, brief

SHOWN_DIFFERENCES = 8


class Difference(NamedTuple):
    """One field, by dotted name, whose values differ; the value of a field that one side lacks is None."""

    name: str
    there: Any
    asked: Any


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """The fields that differ, in the order of ``there``, then those that only ``asked`` has.

    Objects are compared field by field, also with None; lists and single values as wholes.
    """
    for key in [*there, *(key for key in asked if key not in there)]:
        name, ours, theirs = f"{prefix}{key}", there.get(key), asked.get(key)
        if ours == theirs:
            continue
        inner = [value for value in (ours, theirs) if value is not None]
        if all(isinstance(value, Mapping) and value for value in inner):
            yield from differences(ours or {}, theirs or {}, f"{name}.")
        else:
            yield Difference(name, ours, theirs)


def describe_differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The fields that differ, for a sentence: ``network.rounds=4 there, 6 asked, seed=0 there, 1 asked``."""
    differing = list(differences(there, asked))
    shown = [
        f"{each.name[:SHOWN]}={shown_value(each.there)} there, {shown_value(each.asked)} asked"
        for each in differing[:SHOWN_DIFFERENCES]
    ]
    more = len(differing) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")


def shown_value(value: Any) -> str:
    """A value as sentences and tables show it, shortened where it is long."""
    return brief(value) if isinstance(value, (dict, list, tuple)) else str(value)[:SHOWN]
