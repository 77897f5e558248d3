"""``grn info``: what a path is, in words and numbers."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from grncli.runs.checkpoint import CHECKPOINTS, EMA, RECIPE
from grncli.runtime.errors import GrnError
from grncli.store import METADATA, BitStore, open_store, verify_store


def describe(path: Path) -> dict[str, Any]:
    """A bit store or a run directory as a JSON-ready dictionary; its ``kind`` says which.

    Raises
    ------
    GrnError
        If it is neither, or damaged.
    """
    if _is_run(path):
        _check_recipe(path)
        # These import torch, which a look at a store does not need.
        from grncli.runs.generators import describe_generator
        from grncli.runs.networks import run_kind
        from grncli.runs.tokenizers import describe_tokenizer

        return describe_generator(path) if run_kind(path) == "generator" else describe_tokenizer(path)
    if not path.exists() or (path / METADATA).is_file():
        return describe_store(open_store(path))
    raise GrnError(
        f"{path}: {_nature(path)}, neither a bit store (zarr.json) nor a run directory (recipe.yaml){_belongs_to(path)}"
    )


def _nature(path: Path) -> str:
    if path.is_file():
        return "is a file"
    if path.is_dir():
        return "is a folder" if any(path.iterdir()) else "is an empty folder"
    return "is no file and no folder"


def _belongs_to(path: Path) -> str:
    """The store or run that a path is a part of, as the end of a sentence."""
    for parent in path.absolute().parents:
        if (parent / RECIPE).is_file():
            return f"; it lies in the run directory {parent}, give that"
        if (parent / METADATA).is_file() and any(parent.glob("part-*")):
            return f"; it lies in the bit store {parent}, give that"
    return ""


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
        from grncli.runs.generators import verify_generator
        from grncli.runs.networks import run_kind
        from grncli.runs.tokenizers import verify_tokenizer

        return verify_generator(path) if run_kind(path) == "generator" else verify_tokenizer(path)
    return verify_store(path)


def _check_recipe(path: Path) -> None:
    """Raise GrnError for a recipe.yaml that is none of ours: it may be anybody's."""
    from grncli.runs.rundir import is_run

    if (path / RECIPE).is_file() and not is_run(path) and not (path / CHECKPOINTS).exists():
        raise GrnError(f"{path / RECIPE}: is no recipe of a run, expected one with the fields kind and network")


def _is_run(path: Path) -> bool:
    return (path / RECIPE).is_file() or (path / EMA).is_file()


def _label_counts(store: BitStore) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for grid in store.grids:
        counts.update(store.grid(grid).labels().tolist())
    return {name: counts[i] for i, name in enumerate(store.labels)}


def _disk_bytes(path: Path) -> int:
    return sum(os.lstat(Path(folder) / name).st_size for folder, _, files in os.walk(path) for name in files)
