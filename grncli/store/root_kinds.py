"""Which kind of store a Zarr group is, by the root attribute that holds its settings."""

from collections.abc import Mapping
from typing import Any

BITS_ATTRIBUTE = "grn"
FEATURES_ATTRIBUTE = "grn_text_features"

_NOUNS = {BITS_ATTRIBUTE: "bit store", FEATURES_ATTRIBUTE: "features store"}


def names_store(attributes: Mapping[str, Any]) -> bool:
    """Whether these attributes say that a Zarr group is a store."""
    return not _NOUNS.keys().isdisjoint(attributes)


def kind_of_group(attributes: Mapping[str, Any]) -> str:
    """What messages call a Zarr group with these attributes."""
    return next((noun for attribute, noun in _NOUNS.items() if attribute in attributes), "Zarr group")
