"""``grn info``: what a path is, in words and numbers."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from grncli.models.unfilled import made_on_meta
from grncli.runs.checkpoint import CHECKPOINTS, RECIPE, holds_weights, run_of
from grncli.runs.describing_captions import describe_captions
from grncli.runs.describing_features import describe_features, disk_bytes
from grncli.runs.loading import OpenedRun, load_network, read_newest, read_run
from grncli.runs.networks import check_config
from grncli.runs.registry import KINDS
from grncli.runs.rundir import is_run
from grncli.runs.stored_tensors import open_stored
from grncli.runtime.errors import GrnError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import UrlPath, located
from grncli.store import METADATA, BitStore, open_store, verify_store
from grncli.store.part_faults import doubled_samples, part_faults
from grncli.store.root_kinds import names_store
from grncli.store.rows.byte_source import LocalFiles, root_attributes
from grncli.store.text_features import is_features_store, open_features, verify_features


def describe(path: Path, *, verify: bool = False, monitor: Monitor | None = None) -> dict[str, Any]:
    """A bit store, a features store or a run directory as a JSON-ready dictionary; its ``kind`` says which.

    Parameters
    ----------
    verify : compare every byte of a store with its checksums, or load the weights of a run, and list under
        ``problems`` what is wrong, one sentence each; there is nothing else where the damage hides the rest
    monitor : gets the bytes of a store that are checked, and those in all

    Raises
    ------
    GrnError
        If it is neither, or damaged and not to be verified.
    """
    path = located(path)
    if isinstance(path, UrlPath):
        return _store(path, verify=verify, monitor=monitor)
    if not path.exists():
        raise GrnError(f"{path} does not exist, expected a bit store, a features store or a run directory")
    if _is_run(path):
        _check_recipe(path)
        return _verified_run(path) if verify else _newest_run(path)
    if is_features_store(path) or ((path / METADATA).is_file() and not _is_inner_group(path)):
        return _store(path, verify=verify, monitor=monitor)
    raise GrnError(
        f"{path}: {_nature(path)}, neither a bit store nor a features store (zarr.json), nor a run directory "
        f"(recipe.yaml){_belongs_to(path)}"
    )


def _store(path: Path, *, verify: bool, monitor: Monitor | None) -> dict[str, Any]:
    if is_features_store(path):
        problems = verify_features(path, monitor) if verify else None
        return _with_problems(problems, lambda: describe_features(open_features(path)))
    problems = _problems(path, monitor) if verify else None
    return _with_problems(problems, lambda: describe_store(open_store(path)))


def _with_problems(problems: list[str] | None, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A description and the problems, where they were looked for."""
    if problems is None:
        return describe()
    try:
        return {**describe(), "problems": problems}
    except GrnError as error:
        return {"problems": problems if str(error) in problems else [*problems, str(error)]}


def _problems(path: Path, monitor: Monitor | None) -> list[str]:
    """What is wrong with the bytes of a bit store, and with its division into parts."""
    problems = verify_store(path, monitor)
    with suppress(GrnError):  # which is among these
        store = open_store(path)
        problems += [fault for fault in part_faults(store) if fault not in problems]
        problems += doubled_samples(store)
    return problems


def _verified_run(path: Path) -> dict[str, Any]:
    try:
        loaded = read_newest(path, lambda checkpoint: load_network(read_run(path, checkpoint, KINDS)))
    except GrnError as error:
        return _with_problems([str(error)], lambda: _newest_run(path))
    return {**describe_run(loaded, loaded.network, loaded.identity["sha256"]), "problems": []}


def _newest_run(path: Path) -> dict[str, Any]:
    def read(checkpoint: Path) -> dict[str, Any]:
        opened = read_run(path, checkpoint, KINDS)
        with open_stored(checkpoint, "ema") as stored:
            check_config(opened.recipe.network, stored.metadata, stored.place)
            network = made_on_meta(lambda: opened.kind.build(opened.recipe))
            return describe_run(opened, network, stored.sha256())

    return read_newest(path, read)


def describe_run(opened: OpenedRun[Any, Any], network: nn.Module, sha256: str) -> dict[str, Any]:
    """Recipe, sizes, step and identity of a run; ``sha256`` is that of its weights."""
    recipe = opened.recipe
    return {
        "kind": recipe.kind,
        "name": run_of(opened.checkpoint).name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": opened.checkpoint.name,
        "step": opened.step,
        "complete": opened.is_finished,
        "sha256": sha256,
        "recipe": {
            name: section
            for name, section in asdict(recipe).items()
            if not recipe.imported or name in opened.kind.sections(recipe)
        },
        **opened.kind.facts(recipe),
    }


def _nature(path: Path) -> str:
    if path.is_file():
        return "is a file"
    if path.is_dir():
        return "is a folder" if any(path.iterdir()) else "is an empty folder"
    return "is no file and no folder"


def _is_inner_group(path: Path) -> bool:
    """Whether a Zarr group is a part of a store or run, and no store itself."""
    attributes = root_attributes(LocalFiles(path))
    return attributes is not None and not names_store(attributes) and bool(_belongs_to(path))


def _belongs_to(path: Path) -> str:
    """The store or run that a path is a part of, as the end of a sentence."""
    for parent in path.absolute().parents:
        if (parent / RECIPE).is_file():
            return f"; it lies in the run directory {parent}, give that"
        if (parent / METADATA).is_file() and any(parent.glob("part-*")):
            return f"; it lies in the store {parent}, give that"
    return ""


def describe_store(store: BitStore) -> dict[str, Any]:
    """Settings, shapes, counts, labels and failures of a store."""
    fingerprint = store.fingerprint
    bits_per_token = store.rounds * store.channels
    committed = {number for number, part in store.stored_parts().items() if part.committed}
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
        "disk_bytes": disk_bytes(store),
        "tokenizer": dict(fingerprint.tokenizer),
        "preprocessing": dict(fingerprint.preprocessing),
        "labels": _label_counts(store),
        "parts": [
            {
                "part": part.part,
                "samples": part.samples,
                "dropped": part.dropped,
                "done": part.position,
                "sources": part.sources,
                "failed": part.failed,
                "complete": part.complete,
                "missing": part.part not in committed,
            }
            for part in store.parts
        ],
        **({} if (captions := describe_captions(store)) is None else {"captions": captions}),
        "faults": part_faults(store),
        "failures": list(store.failures()),
        "versions": dict(fingerprint.versions),
    }


def _check_recipe(path: Path) -> None:
    """Raise GrnError for a recipe.yaml that is not that of a run: other programs use the name too."""
    if not (path / CHECKPOINTS).exists() and (path / RECIPE).is_file() and not is_run(path):
        raise GrnError(f"{path / RECIPE}: is no recipe of a run, expected one with the fields kind and network")


def _is_run(path: Path) -> bool:
    return (path / RECIPE).is_file() or holds_weights(path)


def _label_counts(store: BitStore) -> dict[str, int]:
    counts = np.zeros(len(store.labels), np.int64)
    for grid in store.grids:
        labels = store.grid(grid).labels()
        counts += np.bincount(labels[(labels >= 0) & (labels < len(counts))], minlength=len(counts))
    return dict(zip(store.labels, counts.tolist(), strict=True))
