"""Root attributes of a store that is made of others."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from grncli.editing.opened_store import AnyStore
from grncli.store import BitStore
from grncli.store.bits import BitSchema
from grncli.store.feature_settings import FeatureSchema
from grncli.store.rows.schema import EDITED, Schema


def edited_schema(
    store: AnyStore, command: str, taken: Any, *, parts: int | None = None, labels: Sequence[str] | None = None
) -> Schema:
    """The schema of a new store with the settings of ``store``.

    Parameters
    ----------
    command, taken : what makes it, and of what (JSON data): with others, the same command does not resume it
    parts, labels : number of parts, and class names, where they are others
    """
    digest = hashlib.sha256(json.dumps(taken).encode()).hexdigest()
    mark = {EDITED: f"{command} {digest[:16]}"}
    if isinstance(store, BitStore):
        old = store.fingerprint
        names = old.labels if labels is None else tuple(labels)
        versions = {**old.versions, **mark}
        return BitSchema(replace(old, parts=parts or old.parts, labels=names, versions=versions))
    settings = store.settings
    versions = {**settings.versions, **mark}
    return FeatureSchema(replace(settings, parts=parts or settings.parts, versions=versions))
