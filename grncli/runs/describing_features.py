"""``grn info`` of a features store."""

import os
from itertools import islice
from pathlib import Path
from typing import Any

from grncli.store.text_features import FeatureStore

EXAMPLES = 3


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
        "disk_bytes": disk_bytes(store.path),
        "encoder": store.encoder,
        "examples": list(islice(filter(None, longest), EXAMPLES)),
        "parts": [
            {"part": part.part, "prompts": part.samples, "asked": part.sources, "complete": part.complete}
            for part in store.parts
        ],
        "versions": dict(store.settings.versions),
    }


def disk_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(os.lstat(Path(folder) / name).st_size for folder, _, files in os.walk(path) for name in files)
