"""What a store was made with: the settings two commands must share to use the same bits."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from grncli.runtime.differences import Difference, differences
from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.runtime.jsonfiles import brief
from grncli.runtime.urls import is_url
from grncli.store.root_kinds import BITS_ATTRIBUTE, kind_of_group
from grncli.store.rows.byte_source import ByteSource, root_attributes
from grncli.store.rows.schema import FORMAT, MAX_PARTS, METADATA

# What readers do not care about; a writer compares the division into parts too.
_NOT_COMPARED = ("parts", "versions")
_SHOWN_CHARACTERS = 40
_LARGEST = {"rounds": 8, "channels": 1 << 16, "parts": MAX_PARTS}
_LARGEST_STRIDE = 1 << 16
_DEEPEST = 16  # levels of objects and lists inside a field


@dataclass(frozen=True)
class Fingerprint:
    """The settings recorded in the root of a store.

    Parameters
    ----------
    rounds, channels : M and C of the bits
    stride : pixels (frames, height, width) per latent token
    tokenizer : name and sha256 of the network
    preprocessing : how sources became pixels
    labels : class names; a sample's label is an index into them
    parts : number of parts the sources are divided into
    versions : what wrote the store; recorded, never compared
    """

    rounds: int
    channels: int
    stride: tuple[int, int, int]
    tokenizer: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    parts: int = 1
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # JSON's types, so that a fingerprint compares equal to the one read back from disk.
        for mapping in ("tokenizer", "preprocessing", "versions"):
            object.__setattr__(self, mapping, json.loads(json.dumps(dict(getattr(self, mapping)))))
        object.__setattr__(self, "stride", tuple(int(n) for n in self.stride))
        object.__setattr__(self, "labels", tuple(str(name) for name in self.labels))
        _check_fields(self.to_attributes()[BITS_ATTRIBUTE])

    def to_attributes(self) -> dict[str, Any]:
        """Attributes of the root group."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"stride": list(self.stride), "labels": list(self.labels)}
        return {BITS_ATTRIBUTE: {"format": FORMAT, **values}}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: Path | str) -> "Fingerprint":
        """Read the attributes of the root group at ``where``; StoreError when they do not make sense."""
        values = attributes.get(BITS_ATTRIBUTE)
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise StoreError(
                f"{where} is a {kind_of_group(attributes)} but not a bit store: its attributes have no valid "
                f"{BITS_ATTRIBUTE!r} entry; give a store made by grn tokenize or grn sample."
            )
        if values["format"] != FORMAT:
            raise StoreError(
                f"{where} has store format {brief(values['format'])}, and this version reads format {FORMAT}; "
                "update grn, or tokenize again."
            )
        try:
            _check_fields(values)
        except ValueError as error:
            raise StoreError(
                f"{where}/{METADATA}: the {BITS_ATTRIBUTE!r} attributes are damaged ({error}); "
                "restore the file, or make the store again with --overwrite."
            ) from None
        return cls(**{f.name: values[f.name] for f in fields(cls)})

    def differences(self, asked: "Fingerprint", parts: bool = False) -> list[Difference]:
        """Fields in which this stored fingerprint differs from the one ``asked`` for; ``parts`` on request."""
        stored, wanted = self.to_attributes()[BITS_ATTRIBUTE], asked.to_attributes()[BITS_ATTRIBUTE]
        for name in _NOT_COMPARED:
            if not (parts and name == "parts"):
                del stored[name], wanted[name]
        if _same_network(self.tokenizer, asked.tokenizer):
            # A run directory that was renamed or copied holds the same network.
            del stored["tokenizer"], wanted["tokenizer"]
        return list(differences(stored, wanted))

    def require(self, asked: "Fingerprint", where: Path, remedy: str, parts: bool = False) -> None:
        """Raise StoreMismatch, one sentence with every differing field, unless ``asked`` fits."""
        shown = [_shown(difference) for difference in self.differences(asked, parts)]
        if shown:
            stored = ", ".join(f"{name}={value}" for name, value, _ in shown)
            wanted = ", ".join(value for *_, value in shown)
            raise StoreMismatch(f"{where} was made with {stored}; this command asks for {wanted}. {remedy}")


def read_fingerprint(source: ByteSource) -> Fingerprint:
    """Fingerprint of a store; StoreError when there is none to read."""
    where = source.where("")
    attributes = root_attributes(source)
    if attributes is None:
        raise StoreError(_not_a_store(where))
    return Fingerprint.from_attributes(attributes, where)


def _check_fields(values: Mapping[str, Any]) -> None:
    """ValueError, with the field's name, for what no writer of ours has put there."""
    missing = [f.name for f in fields(Fingerprint) if f.name not in values]
    if missing:
        raise ValueError(f"there is no field {missing[0]}")
    for name, most in _LARGEST.items():
        if not _is_whole(values[name], most):
            raise _unexpected(name, values[name], f"a whole number from 1 to {most}")
    stride = values["stride"]
    if not isinstance(stride, list) or len(stride) != 3 or not all(_is_whole(n, _LARGEST_STRIDE) for n in stride):
        raise _unexpected("stride", stride, "three whole numbers from 1")
    labels = values["labels"]
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise _unexpected("labels", labels, "a list of names")
    for name in ("tokenizer", "preprocessing", "versions"):
        if not isinstance(values[name], dict) or not _is_plain(values[name], _DEEPEST):
            raise _unexpected(name, values[name], "an object of texts and finite numbers")
    for name in ("name", "sha256"):
        if not isinstance(values["tokenizer"].get(name, ""), str):
            raise _unexpected(f"tokenizer.{name}", values["tokenizer"][name], "text")


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_plain(value: Any, levels: int) -> bool:
    """Whether JSON has no number that is not finite and is nested so many levels at most."""
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_is_plain(item, levels - 1) for item in inner)


def _unexpected(name: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"field {name} is {brief(value)}, expected {expected}")


def _same_network(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    return "sha256" in stored and stored["sha256"] == asked.get("sha256")


def _not_a_store(store: str) -> str:
    if is_url(store):
        return f"{store}: there is no bit store (no {METADATA}); give the URL of one that grn copy has put there."
    if not os.path.exists(store):
        return f"{store} does not exist; give the path of a store made by grn tokenize or grn sample."
    if not os.path.isdir(store):
        return f"{store} is a file, not a bit store; give the path of a store directory."
    return f"{store} is not a bit store: it has no {METADATA}; give a store made by grn tokenize or grn sample."


def _shown(difference: Difference) -> tuple[str, str, str]:
    """Name and both values of a field, as a sentence shows them."""
    name, stored, asked = difference
    if name == "labels":
        # The first name that differs: a thousand class names do not fit one sentence.
        if len(stored) != len(asked):
            return name, f"{len(stored)} names", f"{len(asked)} names"
        first = next(i for i, (a, b) in enumerate(zip(stored, asked, strict=True)) if a != b)
        name, stored, asked = f"labels[{first}]", stored[first], asked[first]
    return name, _short(name, stored), _short(name, asked)


def _short(name: str, value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    most = 9 if name.endswith("sha256") else _SHOWN_CHARACTERS
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text if text.isprintable() else repr(text)[1:-1]
