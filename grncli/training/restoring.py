"""Taking the state of a training back from its newest sound checkpoint, whichever number of processes wrote it.

Each process reads its own share: whole tensors, or of a sharded tensor its shard, from one file or from the shards of
other processes that overlap it.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.distributed.tensor import DTensor

from grncli.runs.checkpoint import (
    CHECKPOINTS,
    CheckpointState,
    check_tensors,
    list_checkpoints,
    read_state,
    set_aside,
)
from grncli.runs.stored_tensors import StoredTensors, check_checkpoint, open_stored
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.processes import Processes
from grncli.training.logs import own_sums
from grncli.training.training_state import TrainingState


@dataclass(frozen=True)
class Position:
    """Where a training is.

    Parameters
    ----------
    step : steps done
    sums : what this process has added up for the next line of the log
    """

    step: int = 0
    sums: Mapping[str, Sequence[float]] = field(default_factory=dict)


def restore_newest(run: Path, states: Sequence[TrainingState], processes: Processes, say: Say) -> Position:
    """Load the newest checkpoint that is sound for every process into ``states``; step 0 where there is none.

    Damaged ones that are newer are told in a sentence each, and set aside by the first process.

    Raises
    ------
    CheckpointError
        If there are checkpoints and none is sound: the same on every process.
    """
    # Another machine may see an older list.
    names = processes.gather_json([path.name for path in list_checkpoints(run)])[0]
    damaged = []
    for name in reversed(names):
        checkpoint = run / CHECKPOINTS / name
        saved, fault = None, None
        try:
            saved = _load(checkpoint, states, processes)
        except CheckpointError as error:
            fault = str(error)
        # Once all have sent theirs, all have read what is damaged.
        faults = [each for each in processes.gather_json(fault) if each is not None]
        if saved is not None and not faults:
            break
        if name == names[0]:
            raise CheckpointError(faults[0])
        say(f"{faults[0]}; resuming from the checkpoint before it")
        damaged.append(checkpoint)
    else:
        return Position()
    if processes.is_main:
        for checkpoint in damaged:
            set_aside(checkpoint)
    return Position(saved.step, own_sums(saved.sums, processes.rank, processes.count))


def _load(checkpoint: Path, states: Sequence[TrainingState], processes: Processes) -> CheckpointState:
    """Fill ``states``, once all sizes are known to fit them."""
    saved = check_checkpoint(checkpoint) if processes.is_main else read_state(checkpoint)
    with contextlib.ExitStack() as stack:
        files = {}
        for state in states:
            for name, wanted in state.tensors().items():
                stored = stack.enter_context(open_stored(checkpoint, name))
                moments = name == state.called("optimizer")
                likes = state.expected_moments(stored.sizes) if moments else wanted
                check_tensors(stored.sizes, likes, stored.place)
                files[name] = (stored, likes)
        for state in states:
            state.load(_StoredFiles(files), saved.averaged)
    return saved


class _StoredFiles(Mapping[str, Mapping[str, Tensor]]):
    """Named tensors of each file of a checkpoint, which are read when they are asked for: one file is in memory."""

    def __init__(self, files: Mapping[str, tuple[StoredTensors, Mapping[str, Tensor]]]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        stored, likes = self._files[name]
        return {key: read_like(stored, key, like) for key, like in likes.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_like(stored: StoredTensors, name: str, like: Tensor) -> Tensor:
    """A stored tensor, sharded as ``like`` is: each process reads its own shard only."""
    if not isinstance(like, DTensor):
        return stored.read(name)
    local = stored.read(name, *own_region(like)).to(like.device)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def own_region(tensor: DTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the shard of this process begins in a sharded tensor, and its shape."""
    (region,) = tensor.__create_chunk_list__()  # type: ignore[no-untyped-call]
    return tuple(region.offsets), tuple(region.sizes)
