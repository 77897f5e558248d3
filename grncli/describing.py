"""``grn info``: what a path is, in words and numbers."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from grncli.checkpoint import EMA, RECIPE
from grncli.errors import GrnError
from grncli.store import BitStore, open_store, verify_store
from grncli.store.layout import METADATA


def describe(path: Path) -> dict[str, Any]:
    """A bit store or a run directory as a JSON-ready dictionary; its ``kind`` says which.

    Raises
    ------
    GrnError
        If it is neither, or damaged.
    """
    if _is_run(path):
        # These import torch, which a look at a store does not need.
        from grncli.generators import describe_generator
        from grncli.networks import run_kind
        from grncli.tokenizers import describe_tokenizer

        return describe_generator(path) if run_kind(path) == "generator" else describe_tokenizer(path)
    if not path.exists() or (path / METADATA).is_file():
        return describe_store(open_store(path))
    raise GrnError(f"{path}: is neither a bit store (zarr.json) nor a run directory (recipe.yaml)")


def describe_store(store: BitStore) -> dict[str, Any]:
    """Settings, shapes, counts, labels and failures of a store."""
    fingerprint = store.fingerprint
    bits_per_token = store.rounds * store.channels
    return {
        "kind": "store",
        "complete": store.complete,
        "samples": len(store),
        "grids": {"x".join(map(str, grid)): count for grid, count in store.grids.items()},
        "rounds": store.rounds,
        "channels": store.channels,
        "stride": list(store.stride),
        "bits_per_token": bits_per_token,
        "bits_per_pixel": bits_per_token / (store.stride[0] * store.stride[1] * store.stride[2]),
        "bits_bytes": store.nbytes,
        "disk_bytes": _disk_bytes(store.path),
        "tokenizer": dict(fingerprint.tokenizer),
        "preprocessing": dict(fingerprint.preprocessing),
        "labels": _label_counts(store),
        "parts": [
            {
                "part": part.part,
                "samples": part.samples,
                "done": part.position,
                "sources": part.sources,
                "failed": part.failed,
                "complete": part.complete,
            }
            for part in store.parts
        ],
        "failures": list(store.failures()),
        "versions": dict(fingerprint.versions),
    }


def verify(path: Path) -> list[str]:
    """Problems of a bit store or a run directory, one sentence each.

    None if every byte of the store is as it was committed, or the weights of the run load and are finite.
    """
    if _is_run(path):
        from grncli.generators import verify_generator
        from grncli.networks import run_kind
        from grncli.tokenizers import verify_tokenizer

        return verify_generator(path) if run_kind(path) == "generator" else verify_tokenizer(path)
    return verify_store(path)


def _is_run(path: Path) -> bool:
    return (path / RECIPE).is_file() or (path / EMA).is_file()


def _label_counts(store: BitStore) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for grid in store.grids:
        counts.update(store.grid(grid).labels().tolist())
    return {name: counts[i] for i, name in enumerate(store.labels)}


def _disk_bytes(path: Path) -> int:
    return sum(os.lstat(Path(folder) / name).st_size for folder, _, files in os.walk(path) for name in files)
