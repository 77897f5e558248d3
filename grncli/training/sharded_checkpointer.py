"""Checkpoints of sharded tensors: every process writes its own, in a thread, while the training goes on.

RUN/checkpoints/.step-00001000.partial/ema/rank-00000.safetensors ...     until all processes have written theirs

The files are those of ``torch.distributed.checkpoint`` in safetensors, and its ``HuggingFaceStorageReader`` reads a
folder of them. Its writer is not used: it makes a second copy of all that a process writes in memory, its processes
exchange pickles, and its headers have no room for the sizes of the network, which the hash of the weights covers.
"""

import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from grncli.runs.checkpoint import (
    CHECKPOINTS,
    begin_checkpoint,
    drop_checkpoint,
    finish_checkpoint,
    header_of,
    list_checkpoints,
    partial_checkpoint,
    prune_checkpoints,
    write_shard,
)
from grncli.runs.stored_tensors import check_checkpoint
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.processes import Processes
from grncli.runtime.text import one_line
from grncli.training.checkpointer import RunCheckpoints
from grncli.training.restoring import Position, own_region, restore_newest
from grncli.training.training_state import TrainingState

Pieces = Mapping[str, tuple[Sequence[int], Tensor]]
"""Of each tensor the offset of a part in the whole, and the part."""

SHARED_SECONDS = 90.0  # for which a machine may take a new folder of a network file system for absent
LEAVE_SECONDS = 30.0  # that an error waits for a save that is under way


class ShardedCheckpointer(RunCheckpoints):
    """Checkpoints whose tensors lie in shards, one of each process, written while the training goes on.

    A save copies what this process has of the state, and returns; a thread writes the copy, of which there is one. The
    checkpoint gets its name once every process has its shards on disk.
    """

    def __init__(
        self,
        run: Path,
        config: Mapping[str, Any],
        processes: Processes,
        *,
        keep: int,
        keep_every: int | None,
        say: Say,
    ) -> None:
        super().__init__(run, config, processes, keep=keep, keep_every=keep_every, say=say)
        self._aside = processes.aside()  # the training's own exchange is busy while the thread writes
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def restore(self, states: Sequence[TrainingState]) -> Position:
        """As in ``Checkpointer``; CheckpointError too where the processes do not share the run directory."""
        self._check_shared()
        return restore_newest(self.run, states, self.processes, self.say)

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        """As in ``Checkpointer``; a thread writes, once the save before it has ended."""
        self.finish()
        fault = self._begin(position.step)
        shares = self.processes.gather_json({"sums": position.sums, "fault": fault})
        if shares[0]["fault"] is not None:
            raise CheckpointError(shares[0]["fault"])
        tensors = {file: named for state in states for file, named in state.tensors().items()}
        pieces = {file: self._copy(file, own_pieces(named, self.processes.rank)) for file, named in tensors.items()}
        if any(tensor.is_cuda for named in tensors.values() for tensor in named.values()):
            torch.cuda.synchronize()
        state = {
            "step": position.step,
            "averaged": states[0].averaged,
            "sums": [share["sums"] for share in shares],
            "tensors": {file: len(named) for file, named in tensors.items()},
        }
        self._thread = threading.Thread(target=self._write, args=(pieces, state), name="grn-save", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """As in ``Checkpointer``."""
        return self._error is not None

    def finish(self) -> None:
        """As in ``Checkpointer``."""
        self._join(None)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def leave(self) -> None:
        """As in ``Checkpointer``."""
        self._join(LEAVE_SECONDS)

    def newest(self) -> Path | None:
        """As in ``Checkpointer``; a save that is under way is waited for."""
        self._join(LEAVE_SECONDS)
        return next(reversed(list_checkpoints(self.run)), None)

    def _check_shared(self) -> None:
        """CheckpointError, of all processes alike, unless each sees what the first one makes in the run directory."""
        # It has the name of a save that was killed, and what is left of it goes with the next.
        probe = self.run / CHECKPOINTS / f".step-{time.time_ns()}.partial"
        if self.processes.is_main:
            probe.mkdir(parents=True)
        probe = probe.with_name(self.processes.gather_json(probe.name)[0])
        end = time.monotonic() + SHARED_SECONDS
        while not (seen := probe.is_dir()) and time.monotonic() < end:
            time.sleep(0.1)
        blind = [rank for rank, sees in enumerate(self.processes.gather_json(seen)) if not sees]
        if self.processes.is_main:
            probe.rmdir()
        if blind:
            raise CheckpointError(
                f"{self.run}: is not the same directory for process {blind[0]} as for process 0, and each writes its "
                "shards there; put it on a file system that all share, or say training.parallel=ddp"
            )

    def _begin(self, step: int) -> str | None:
        """Make the folder of a checkpoint, by the first process; a sentence where this fails."""
        if self._place is None:
            return None
        try:
            self._place.check()
            begin_checkpoint(self.run, step)
        except CheckpointError as error:
            return str(error)
        except OSError as error:
            return str(drop_checkpoint(self.run, step, one_line(error)))
        return None

    def _copy(self, file: str, pieces: Pieces) -> Pieces:
        """The same parts in memory that the training does not touch, which the next save uses again."""
        copies = {}
        for name, (offset, part) in pieces.items():
            copy = self._copies.get((file, name))
            if copy is None:
                copy = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
                self._copies[file, name] = copy
            copies[name] = (offset, copy.copy_(part.detach(), non_blocking=True))
        return copies

    def _join(self, seconds: float | None) -> None:
        if self._thread is not None:
            self._thread.join(seconds)
            if not self._thread.is_alive():
                self._thread = None

    def _write(self, pieces: Mapping[str, Pieces], state: Mapping[str, Any]) -> None:
        """In the thread: write, learn how the others fared, and let the first process complete the checkpoint."""
        try:
            self._write_together(pieces, state)
        except BaseException as error:
            self._error = error

    def _write_together(self, pieces: Mapping[str, Pieces], state: Mapping[str, Any]) -> None:
        step, fault, records = state["step"], None, {}
        folder = partial_checkpoint(self.run, step)
        header = {**header_of(self.config), "step": str(step)}
        try:
            for file, named in pieces.items():
                written = write_shard(folder / file, self.processes.rank, named, header)
                records[file] = {name: asdict(record) for name, record in written.items()}
        except Exception as error:  # of whatever kind: the others wait to hear of it
            fault = f"process {self.processes.rank} on {socket.gethostname()}: {one_line(error)}"
        shares = self._aside.gather_json({"fault": fault, "records": records})
        fault = next((share["fault"] for share in shares if share["fault"] is not None), None)
        if self.processes.is_main:
            records = {file: _merged([share["records"][file] for share in shares]) for file in pieces if fault is None}
            fault = self._complete(step, fault, {**state, "shards": records})
        fault = self._aside.gather_json(fault)[0]
        if fault is not None:
            raise CheckpointError(fault)

    def _complete(self, step: int, fault: str | None, state: Mapping[str, Any]) -> str | None:
        """Give a checkpoint its name unless a process has a fault; the sentence where there is one."""
        assert self._place is not None
        try:
            self._place.check()
            if fault is not None:
                return str(drop_checkpoint(self.run, step, fault))
            checkpoint = finish_checkpoint(partial_checkpoint(self.run, step), state)
            prune_checkpoints(self.run, self.keep, self.keep_every)
            self._place.check()
            check_checkpoint(checkpoint)
        except CheckpointError as error:
            return str(error)
        except Exception as error:  # of whatever kind: the others wait to hear of it
            return str(drop_checkpoint(self.run, step, one_line(error)))
        return None


def own_pieces(tensors: Mapping[str, Tensor], rank: int) -> Pieces:
    """What a process writes: of each sharded tensor its shard, and the first process what all have alike."""
    pieces: dict[str, tuple[Sequence[int], Tensor]] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            if rank == 0:
                pieces[name] = ((0,) * tensor.dim(), tensor)
            continue
        axes = zip(tensor.device_mesh.get_coordinate() or (), tensor.placements, strict=True)
        is_copy = any(place and placement.is_replicate() for place, placement in axes)
        shard = tensor.to_local()
        # There may be more processes than rows; and a tensor may have no elements at all.
        if not is_copy and (shard.numel() or not tensor.numel()):
            pieces[name] = (own_region(tensor)[0], shard)
    return pieces


def _merged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: record for each in records for name, record in each.items()}
