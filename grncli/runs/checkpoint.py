"""Checkpoints of a run: written whole or not at all, and read with everything in them checked.

RUN/checkpoints/step-00001000/         ema.safetensors, weights.safetensors, optimizer.safetensors, state.json,
                                       and the same of a discriminator
                                       in a sharded checkpoint, folders ema, weights, ... with a file of each process
RUN/checkpoints/latest                 link to the newest complete one

Whatever else lies beside them, such as a copy called ``step-00001000.bak``, is the user's: never read, never removed.
"""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, Strict
from torch import Tensor

from grncli.runtime.checking import Count, Text, read_json_as
from grncli.runtime.errors import CheckpointError
from grncli.runtime.files import sync_directory
from grncli.runtime.folders import remove, remove_now
from grncli.runtime.jsonfiles import brief
from grncli.runtime.tensor_files import LazyTensor, TensorSize, write_tensors
from grncli.runtime.text import one_line

RECIPE = "recipe.yaml"
RECORD = "run.json"
CHECKPOINTS = "checkpoints"
PREVIEWS = "previews"
TENSORBOARD = "tensorboard"
SCHEDULE = "schedule.json"  # fitted to a generator by grn sample
COMPLETE = "COMPLETE"
LOCK = ".lock"
EMA = "ema.safetensors"  # what everything downstream uses
STATE = "state.json"
LATEST = "latest"
EXPORT = "export.json"  # marks what grn export made
OFFSETS = "DCP_SHARDING_INFO"  # of each part in its tensor, where torch.distributed.checkpoint looks for them

SHOWN_DIMENSIONS = 6  # of a tensor, in a message
REASON = 200  # characters of another library's error in a message

_STEP = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,})")
_LEFT = re.compile(r"\.step-[0-9]{8,}\.(partial|old)|\.latest\.partial")

Number = Annotated[float, Strict()]
Sums = dict[Text, Annotated[list[Number], Field(min_length=2, max_length=3)]]
"""Of each number of the log, what is added up since its last line, and over how many steps."""


FileName = Annotated[str, Strict(), Field(pattern=r"^[a-z0-9_]{1,64}$")]
ShardName = Annotated[str, Strict(), Field(pattern=r"^rank-[0-9]{5,}\.safetensors$")]


@dataclass(frozen=True)
class ShardRecord:
    """What a process wrote of a file of a sharded checkpoint: bytes on disk, and how many tensors it has parts of."""

    bytes: Count
    tensors: Count


@dataclass(frozen=True)
class CheckpointState:
    """What ``state.json`` holds: everything of a run that changes and is no tensor.

    Parameters
    ----------
    averaged : steps that the moving averages have seen
    sums : of each process that trained, in their order
    tensors : how many each file of the checkpoint holds
    shards : of each file that several processes wrote, what lies in the folder of its name
    """

    step: Count
    averaged: Count = 0
    sums: list[Sums] = field(default_factory=list)
    tensors: dict[FileName, Count] = field(default_factory=dict)
    shards: dict[FileName, dict[ShardName, ShardRecord]] = field(default_factory=dict)


def write_checkpoint(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor | LazyTensor]],
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
    try:
        partial = begin_checkpoint(run, step)
        for name, named in tensors.items():
            write_tensors(partial / f"{name}.safetensors", named, header_of(config))
            _fsync(partial / f"{name}.safetensors")
        counts = {name: len(named) for name, named in tensors.items()}
        return finish_checkpoint(partial, {**state, "tensors": counts})
    except OSError as error:
        raise drop_checkpoint(run, step, one_line(error)) from error


def header_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What the header of a weights file has beside its tensors."""
    return {"config": json.dumps(config, sort_keys=True)}


def begin_checkpoint(run: Path, step: int) -> Path:
    """Make the folder of a checkpoint under its temporary name; what killed saves left is removed."""
    partial = partial_checkpoint(run, step)
    partial.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run)
    partial.mkdir()
    return partial


def partial_checkpoint(run: Path, step: int) -> Path:
    """Where a checkpoint lies while it is written."""
    return run / CHECKPOINTS / f".step-{step:08d}.partial"


def write_shard(
    folder: Path,
    rank: int,
    pieces: Mapping[str, tuple[Sequence[int], Tensor]],
    header: Mapping[str, str],
) -> dict[ShardName, ShardRecord]:
    """Write the parts of tensors that a process has into ``folder``, and wait until they are on disk.

    Parameters
    ----------
    pieces : of each tensor the offset of a part in the whole, and the part; without any no file is written
    header : what the header has beside them

    Returns
    -------
    The file by its name; empty where there is none.
    """
    if not pieces:
        return {}
    folder.mkdir(exist_ok=True)
    file = folder / f"rank-{rank:05d}.safetensors"
    offsets = {name: {"saved_offsets": list(offset)} for name, (offset, _) in pieces.items()}
    write_tensors(file, {name: piece for name, (_, piece) in pieces.items()}, {**header, OFFSETS: json.dumps(offsets)})
    _fsync(file)
    _fsync(folder)
    return {file.name: ShardRecord(file.stat().st_size, len(pieces))}


def finish_checkpoint(partial: Path, state: Mapping[str, Any]) -> Path:
    """Write ``state.json`` beside files that are on disk, give the folder its name, and point ``latest`` at it."""
    final = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
    (partial / STATE).write_text(json.dumps(state, indent=1) + "\n")
    _fsync(partial / STATE)
    _fsync(partial)
    _put_in_place(partial, final)
    _point_latest(final.parent, final.name)
    return final


def drop_checkpoint(run: Path, step: int, reason: str) -> CheckpointError:
    """The error of a checkpoint that cannot be written, whose temporary folder is removed."""
    partial = partial_checkpoint(run, step)
    with suppress(OSError):
        remove_now(partial)
    final = partial.with_name(f"step-{step:08d}")
    return CheckpointError(f"{final}: cannot be written ({reason[:REASON]}); earlier checkpoints are untouched")


def take_checkpoint(checkpoint: Path, run: Path) -> Path:
    """Move a checkpoint that was written elsewhere on the same file system into a run; returns where it is now."""
    folder = run / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    _put_in_place(checkpoint, folder / checkpoint.name)
    _point_latest(folder, checkpoint.name)
    return folder / checkpoint.name


def prune_checkpoints(run: Path, keep: int, keep_every: int | None = None) -> None:
    """Remove all but the newest ``keep`` checkpoints, and those whose step is a multiple of ``keep_every``."""
    for old in list_checkpoints(run)[:-keep]:
        if not old.is_symlink() and (keep_every is None or step_of(old) % keep_every):
            with suppress(OSError):
                remove(old)


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it is not taken for the newest; returns its new path."""
    number = 1
    while True:
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged{f'-{number}' if number > 1 else ''}")
        if not os.path.lexists(aside):
            checkpoint.rename(aside)
            return aside
        number += 1


def remove_leftovers(run: Path) -> None:
    """Remove what killed saves left in a run's checkpoints."""
    for path in entries(run / CHECKPOINTS):
        if _LEFT.fullmatch(path.name):
            remove_now(path)


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    ours = [path for path in entries(run / CHECKPOINTS) if is_step(path) and (path / STATE).is_file()]
    return sorted(ours, key=step_of)


def is_step(path: Path) -> bool:
    """Whether a name is that of a checkpoint, complete or not."""
    return _STEP.fullmatch(path.name) is not None


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def find_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run directory, or ``run`` itself if it is a checkpoint.

    Raises
    ------
    CheckpointError
        If ``run`` is no run directory or has no checkpoint yet.
    """
    if holds_weights(run) and (run / STATE).is_file():
        return run
    if not (run / RECIPE).is_file():
        fault = "holds no recipe.yaml" if run.exists() else "is not there"
        raise CheckpointError(
            f"{run}: {fault}, expected a run directory made by grn train-tokenizer, train-gen or import"
        )
    complete = list_checkpoints(run)
    if not complete:
        raise CheckpointError(f"{run}: has no complete checkpoint yet; train it further")
    return complete[-1]


def holds_weights(path: Path) -> bool:
    """Whether a path is that of a checkpoint, rather than of a run."""
    return (path / EMA).is_file() or ((path / STATE).is_file() and (path / EMA).with_suffix("").is_dir())


def run_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint lies in, which may do so through links; an exported run lies in itself."""
    place = Path(os.path.abspath(checkpoint))
    run = place if (place / RECIPE).is_file() else place.parent.parent
    if not (run / RECIPE).is_file():
        run = checkpoint.resolve().parent.parent
    return run.resolve()


def check_tensors(
    present: Mapping[str, TensorSize],
    wanted: Mapping[str, TensorSize],
    name: Path | str,
    *,
    formats: Collection[torch.dtype] = (),
) -> None:
    """Raise CheckpointError, one short sentence about ``name``, unless names, shapes and types are those wanted.

    ``formats`` are types that any tensor may have instead.
    """
    wrong = [f"{key} is missing" for key in wanted if key not in present]
    wrong += [f"there is no {brief(key)} in it" for key in present if key not in wanted]
    for key, tensor in wanted.items():
        there = present.get(key, tensor)
        if tuple(there.shape) != tuple(tensor.shape):
            wrong.append(f"{key} has the shape {_shown(there.shape)}, expected {_shown(tensor.shape)}")
        elif there.dtype != tensor.dtype and there.dtype not in formats:
            wrong.append(f"{key} is {_dtype(there.dtype)}, expected {_dtype(tensor.dtype)}")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{name}: the weights do not fit the network of the recipe ({wrong[0]}{more}); "
            f"use another checkpoint, or restore {RECIPE}"
        )


def _shown(shape: Sequence[int]) -> str:
    text = str(list(shape[:SHOWN_DIMENSIONS]))
    return text if len(shape) <= SHOWN_DIMENSIONS else f"{text[:-1]}, ...]"


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def read_state(checkpoint: Path) -> CheckpointState:
    """The JSON part of a checkpoint; CheckpointError where it is missing, damaged or of another step."""
    file, remedy = checkpoint / STATE, "use another checkpoint"
    try:
        state = read_json_as(file, CheckpointState, error=CheckpointError, remedy=remedy)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is not there, expected a checkpoint; {remedy}") from None
    if is_step(checkpoint) and state.step != step_of(checkpoint):
        raise CheckpointError(f"{file}: field step is {state.step}, expected {step_of(checkpoint)}; {remedy}")
    return state


def entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _put_in_place(checkpoint: Path, final: Path) -> None:
    """Rename a checkpoint into its place; one of the same step that lies there is removed only after that."""
    old = final.with_name(f".{final.name}.old")
    if os.path.lexists(final):
        final.rename(old)
    checkpoint.rename(final)
    _fsync(final.parent)
    remove_now(old)


def _point_latest(folder: Path, name: str) -> None:
    link = folder / f".{LATEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, folder / LATEST)
    _fsync(folder)


def _fsync(path: Path) -> None:
    if path.is_dir():
        sync_directory(path)
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
