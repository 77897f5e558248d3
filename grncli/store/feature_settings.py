"""What a features store was made with, and its schema: a group of rows for each number of tokens."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.differences import describe_differences
from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.runtime.jsonfiles import brief
from grncli.runtime.urls import is_url
from grncli.store.root_kinds import FEATURES_ATTRIBUTE, kind_of_group
from grncli.store.rows.byte_source import ByteSource, root_attributes
from grncli.store.rows.schema import FORMAT, MAX_PARTS, METADATA, TEXT, WHOLE, ArrayLayout, Schema, array_layout

FEATURES = "features"
DIGEST = "digest"
DIGEST_BYTES = 32  # of a SHA-256

_EXPONENT = 0x7F80  # bits of a bfloat16 that are all set in infinities and NaN
_LARGEST = {"width": 1 << 20, "max_tokens": 1 << 16, "parts": MAX_PARTS}
_SHOWN_HASH = 12
_LENGTH = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class FeatureSettings:
    """The settings recorded in the root of a features store.

    Parameters
    ----------
    encoder : name and sha256 of the text encoder
    width : of a token's features
    dtype : number format in which the encoder computed; the features are kept in bfloat16 whatever it was
    max_tokens : of a prompt
    parts : number of parts that the prompts are divided into
    versions : what wrote the store; recorded, never compared
    """

    encoder: Mapping[str, str]
    width: int
    dtype: str
    max_tokens: int
    parts: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_settings(vars(self))

    def to_attributes(self) -> dict[str, Any]:
        """Attributes of the root group."""
        values = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}
        return {FEATURES_ATTRIBUTE: {"format": FORMAT, **values}}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: Path | str) -> "FeatureSettings":
        """Read the attributes of the root group at ``where``; StoreError when they do not make sense."""
        values = attributes.get(FEATURES_ATTRIBUTE)
        if not isinstance(values, dict):
            raise StoreError(
                f"{where} is a {kind_of_group(attributes)} but not a features store; "
                "give a store made by grn encode-text."
            )
        if values.get("format") != FORMAT:
            raise StoreError(
                f"{where} has store format {brief(values.get('format'))}, and this version reads format {FORMAT}; "
                "update grn, or encode the prompts again."
            )
        try:
            return cls(**{each.name: values[each.name] for each in fields(cls)})
        except (KeyError, ValueError) as error:
            reason = f"there is no field {error.args[0]}" if isinstance(error, KeyError) else error
            raise StoreError(
                f"{where}/{METADATA}: the {FEATURES_ATTRIBUTE!r} attributes are damaged ({reason}); "
                "restore the file, or make the store again with --overwrite."
            ) from None

    def require(self, asked: "FeatureSettings", where: Path, remedy: str) -> None:
        """Raise StoreMismatch, one sentence with every differing field, unless ``asked`` fits this stored one."""
        there, wanted = self._compared(), asked._compared()
        if self.encoder["sha256"] == asked.encoder["sha256"]:
            # A folder that was renamed or copied holds the same encoder.
            del there["encoder"], wanted["encoder"]
        if there != wanted:
            raise StoreMismatch(f"{where} was made otherwise: {describe_differences(there, wanted)}. {remedy}")

    def _compared(self) -> dict[str, Any]:
        encoder = {"name": self.encoder["name"], "sha256": self.encoder["sha256"][:_SHOWN_HASH]}
        return {name: value for name, value in vars(self).items() if name != "versions"} | {"encoder": encoder}


def read_feature_settings(source: ByteSource) -> FeatureSettings:
    """Settings of a features store; StoreError when there is none to read."""
    where = source.where("")
    attributes = root_attributes(source)
    if attributes is None:
        state = "is not a store" if is_url(where) or Path(where).exists() else "does not exist"
        raise StoreError(f"{where} {state}; give a features store made by grn encode-text.")
    return FeatureSettings.from_attributes(attributes, where)


@dataclass(frozen=True)
class FeatureSchema(Schema):
    """``features`` uint16 [sample, token, width] (the bits of bfloat16) and ``digest`` uint8 [sample, byte].

    The digest is the SHA-256 of the prompt's UTF-8; the prompt itself stands in the line of its row.
    """

    settings: FeatureSettings

    noun = "features store"
    attribute = FEATURES_ATTRIBUTE
    array_names = (FEATURES, DIGEST)
    group_field = "tokens"
    line_fields: ClassVar = {"row": WHOLE, "tokens": TEXT, "prompt": TEXT}
    required_fields = ("prompt",)

    @property
    def parts(self) -> int:
        """Number of parts that the prompts are divided into."""
        return self.settings.parts

    def attributes(self) -> dict[str, Any]:
        """The settings."""
        return self.settings.to_attributes()

    def require_same(self, attributes: Mapping[str, Any], where: Path, remedy: str) -> None:
        """StoreMismatch, unless the store at ``where`` has the same settings and parts."""
        FeatureSettings.from_attributes(attributes, where).require(self.settings, where, remedy)

    def group_order(self, name: str) -> tuple[int, ...] | None:
        """The number of tokens."""
        return (int(name),) if _LENGTH.fullmatch(name) else None

    def arrays(self, group: str) -> list[ArrayLayout]:
        """Features and digests of prompts of so many tokens."""
        axes = {"token": int(group), "width": self.settings.width}
        return [array_layout(FEATURES, np.uint16, axes), array_layout(DIGEST, np.uint8, {"byte": DIGEST_BYTES})]

    def problems_in(self, layout: ArrayLayout, rows: NDArray[Any], path: Path | str) -> Iterator[str]:
        """Features that are not finite."""
        if layout.name == FEATURES and ((rows & _EXPONENT) == _EXPONENT).any():
            yield f"{path} has features that are not finite; make the store again."


def _check_settings(values: Mapping[str, Any]) -> None:
    """ValueError, with the field's name, for what no writer of ours has put there."""
    for name, most in _LARGEST.items():
        if type(values[name]) is not int or not 1 <= values[name] <= most:
            raise ValueError(f"field {name} is {brief(values[name])}, expected a whole number from 1 to {most}")
    for name in ("encoder", "versions"):
        texts = values[name]
        if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError(f"field {name} is {brief(texts)}, expected an object of texts")
    if not {"name", "sha256"} <= values["encoder"].keys() or not isinstance(values["dtype"], str):
        found = brief({name: values[name] for name in ("encoder", "dtype")})
        raise ValueError(f"encoder and dtype are {found}, expected name and sha256 of one, and a name")
