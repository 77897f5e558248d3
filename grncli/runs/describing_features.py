"""``grn info`` of a features store."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from grncli.runtime.overlap import in_threads
from grncli.store.captions import CAPTIONS
from grncli.store.rows.dropped_rows import DROPPED
from grncli.store.rows.row_reader import RowStore
from grncli.store.rows.schema import COMMIT, FAILURES, METADATA, SAMPLES, group_document, part_name
from grncli.store.rows.stored_part import StoredPart
from grncli.store.text_features import FeatureStore

EXAMPLES = 3

_PART_FILES = (METADATA, COMMIT, SAMPLES, FAILURES, CAPTIONS, DROPPED)


def describe_features(store: FeatureStore) -> dict[str, Any]:
    """Settings, counts and a few prompts of a features store, ready for JSON."""
    lengths = {int(name): count for name, count in store.groups.items()}
    # The empty prompt is among the shortest, which say little.
    longest = (store.record(len(store) - 1 - i)["prompt"] for i in range(len(store)))
    return {
        "kind": "features",
        "complete": store.complete,
        "prompts": len(store),
        "tokens": sum(length * count for length, count in lengths.items()),
        "lengths": lengths,
        "width": store.width,
        "dtype": store.settings.dtype,
        "max_tokens": store.settings.max_tokens,
        "features_bytes": store.nbytes,
        "disk_bytes": disk_bytes(store),
        "encoder": store.encoder,
        "examples": list(islice(filter(None, longest), EXAMPLES)),
        "parts": [
            {"part": part.part, "prompts": part.samples, "asked": part.sources, "complete": part.complete}
            for part in store.parts
        ],
        "versions": dict(store.settings.versions),
    }


def disk_bytes(store: RowStore[Any]) -> int | None:
    """Bytes of a store's files, by what its records count: to look at each of ten million chunk files takes hours.

    What readers do not look at is left out, such as pictures beside a store. None for a remote store, where each look
    is a request.
    """
    if store.source.is_remote:
        return None
    size = store.source.size
    parts = list(store.stored_parts().values())
    return (size(METADATA) or 0) + sum(in_threads(partial(_part_bytes, size), parts))


def _part_bytes(size: Callable[[str], int | None], part: StoredPart) -> int:
    folder = part_name(part.number)
    files = sum(size(f"{folder}/{name}") or 0 for name in _PART_FILES)
    groups = len(part.arrays) * len(group_document())
    return (
        files
        + groups
        + sum(array.disk_bytes(part.record.complete) for group in part.arrays.values() for array in group)
    )
