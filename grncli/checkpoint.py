"""Run directories: the recipe, and checkpoints written whole or not at all.

RUN/recipe.yaml                        what was trained, fully resolved
RUN/metrics.jsonl                      one JSON object a line
RUN/checkpoints/step-00001000/         ema.safetensors, weights.safetensors, optimizer.safetensors, state.json,
                                       and the same of a discriminator
RUN/checkpoints/latest                 link to the newest complete one
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from grncli.errors import CheckpointError

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
PREVIEWS = "previews"
TENSORBOARD = "tensorboard"
SCHEDULE = "schedule.json"  # fitted to a generator by grn sample
EMA = "ema.safetensors"  # what everything downstream uses


def check_run_is_free(run: Path, kind: str | None, *, overwrite: bool) -> None:
    """Refuse to write into a directory, except an empty one and a run of the same kind that the user wants replaced.

    ``kind`` is None where it is not known yet.
    """
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    found = recipe_kind(run)
    if found is None:
        raise CheckpointError(f"{run}: exists and is no run directory; choose another name")
    if kind not in (None, found):
        raise CheckpointError(f"{run}: is the run of a {found}, expected that of a {kind} or a new name")
    if not overwrite:
        raise CheckpointError(f"{run}: is already a run directory; choose another name or add --overwrite")


def is_run(run: Path) -> bool:
    """Whether a directory has a recipe of ours."""
    return recipe_kind(run) is not None


def recipe_kind(run: Path) -> str | None:
    """``tokenizer`` or ``generator``; None without a recipe of ours: a file called recipe.yaml may be anybody's."""
    try:
        recipe = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(recipe, dict) or not {"kind", "network"} <= recipe.keys():
        return None
    return str(recipe["kind"])


def clear_run(run: Path) -> None:
    """Remove what a run directory of ours holds, and nothing else that lies in it."""
    for name in (METRICS, RECIPE, SCHEDULE):
        (run / name).unlink(missing_ok=True)
    for name in (PREVIEWS, TENSORBOARD, CHECKPOINTS):
        shutil.rmtree(run / name, ignore_errors=True)


def write_checkpoint(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Path:
    """Write ``checkpoints/step-XXXXXXXX`` under a temporary name, rename it, and point ``latest`` at it.

    Parameters
    ----------
    tensors : for each file (``ema``, ``weights``, ``optimizer``) its named tensors
    state : what JSON can hold (step, counters)
    config : sizes of the network; kept in the header of each file, so that the file's hash covers them
    """
    folder = run / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        header = {"config": json.dumps(config, sort_keys=True)}
        for name, named in tensors.items():
            contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in named.items()}
            save_file(contiguous, partial / f"{name}.safetensors", metadata=header)
        (partial / "state.json").write_text(json.dumps(state, indent=1) + "\n")
        for file in partial.iterdir():
            _fsync(file)
        _fsync(partial)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _fsync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{final}: cannot be written ({reason}); earlier checkpoints are untouched") from error
    _point_latest(folder, final.name)
    return final


def prune_checkpoints(run: Path, keep: int, keep_every: int | None = None) -> None:
    """Remove all but the newest ``keep`` checkpoints, and those whose step is a multiple of ``keep_every``."""
    for old in list_checkpoints(run)[:-keep]:
        if keep_every is None or int(old.name.removeprefix("step-")) % keep_every:
            shutil.rmtree(old, ignore_errors=True)


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step-*") if (path / "state.json").is_file())


def find_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run directory, or ``run`` itself if it is a checkpoint.

    Raises
    ------
    CheckpointError
        If ``run`` is no run directory or has no checkpoint yet.
    """
    if (run / EMA).is_file() and (run / "state.json").is_file():
        return run
    if not (run / RECIPE).is_file():
        found = "is not there" if not run.exists() else "holds no recipe.yaml"
        raise CheckpointError(
            f"{run}: {found}, expected a run directory made by grn train-tokenizer, train-gen or import"
        )
    complete = list_checkpoints(run)
    if not complete:
        raise CheckpointError(f"{run}: has no complete checkpoint yet; train it further")
    return complete[-1]


def run_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint lies in."""
    return checkpoint.resolve().parent.parent


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Named tensors of one safetensors file, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({' '.join(str(error).split())})") from None


def read_config(file: Path) -> dict[str, Any] | None:
    """Sizes of the network in the header of a safetensors file, None where it has none."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
        return dict(json.loads(header["config"])) if "config" in header else None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{file}: has no readable header ({' '.join(str(error).split())})") from None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    try:
        state = json.loads((checkpoint / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint / 'state.json'}: cannot be read ({error})") from None
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{checkpoint / 'state.json'}: cannot be read (it holds no step)")
    return state


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_released(file: Path) -> dict[str, Any]:
    """Load a released, pickled checkpoint with nothing but tensors and plain containers allowed.

    This is the only place where a pickle is opened, and PyTorch's restricted unpickler does it: whatever else
    the file wants to build or call is refused before it happens. The one class it may build is argparse's Namespace,
    a bag of names and values without behaviour, in which released generators keep their training arguments.

    Raises
    ------
    CheckpointError
        If the file is not there, is no PyTorch checkpoint, or asks for more than data.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: is not a file, expected a released checkpoint (.ckpt or .pth)")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # of the pickle's protocol, which is not the user's business
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        found = f"asks to build or call {wanted[1]}" if wanted else "is no PyTorch checkpoint, or a damaged one"
        raise CheckpointError(
            f"{file}: {found}; refused, expected a checkpoint that holds only tensors and plain values"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds a {type(loaded).__name__}, expected a dictionary of weights")
    return loaded


def _point_latest(folder: Path, name: str) -> None:
    link = folder / ".latest.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, folder / "latest")
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
