"""Where the state of a training is kept: one interface that every process calls, and checkpoints of whole tensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from grncli.runs.checkpoint import list_checkpoints, prune_checkpoints, write_checkpoint
from grncli.runs.rundir import Place
from grncli.runs.stored_tensors import check_checkpoint
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say
from grncli.runtime.processes import Processes
from grncli.training.restoring import Position, restore_newest
from grncli.training.training_state import TrainingState


class Checkpointer(Protocol):
    """Keeps the state of a training. Every process calls each method at the same step, whoever of them writes."""

    def restore(self, states: Sequence[TrainingState]) -> Position:
        """Load the newest sound checkpoint into ``states``; step 0 where there is none.

        Raises
        ------
        CheckpointError
            If there are checkpoints and none is sound.
        """

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        """Write a checkpoint of what ``states`` are now, and remove those that are not to be kept.

        It may be written while the training goes on; a save before it has ended then.

        Raises
        ------
        CheckpointError
            If it, or the one before, cannot be written, or the run was moved away: the same on every process.
        """

    @property
    def failed(self) -> bool:
        """Whether a save that was under way failed: `finish` raises its error once every process knows."""

    def finish(self) -> None:
        """Return once everything that was saved is on disk; raises as ``save``."""

    def leave(self) -> None:
        """Give a save that is under way some time to end, before an error ends the training."""

    def newest(self) -> Path | None:
        """The newest checkpoint, for messages."""


class RunCheckpoints:
    """What each way to keep checkpoints in a run directory is made of.

    Parameters
    ----------
    config : sizes of the first network, for the header of each file
    keep, keep_every : how many of the newest are kept, and every so many steps one for good
    say : called with one sentence when a damaged checkpoint is passed over
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
        self.run, self.config, self.processes = run, config, processes
        self.keep, self.keep_every = keep, keep_every
        self.say = say
        self._place: Place | None = None  # of the first process
        if processes.is_main:
            run.mkdir(parents=True, exist_ok=True)
            self._place = Place(run)


class WholeFileCheckpointer(RunCheckpoints):
    """Checkpoints of whole tensors in safetensors files, which the first process writes (see ``runs.checkpoint``)."""

    def restore(self, states: Sequence[TrainingState]) -> Position:
        """As in ``Checkpointer``; damaged checkpoints that are newer than the one loaded are set aside."""
        return restore_newest(self.run, states, self.processes, self.say)

    def save(self, position: Position, states: Sequence[TrainingState]) -> None:
        """As in ``Checkpointer``."""
        sums = self.processes.gather_json(position.sums)
        fault = None
        if self._place is not None:
            tensors = {file: named for state in states for file, named in state.tensors().items()}
            try:
                self._place.check()
                state = {"step": position.step, "averaged": states[0].averaged, "sums": sums}
                checkpoint = write_checkpoint(self.run, position.step, tensors, state, self.config)
                prune_checkpoints(self.run, self.keep, self.keep_every)
                self._place.check()
                check_checkpoint(checkpoint)
            except CheckpointError as error:
                fault = str(error)
        fault = self.processes.gather_json(fault)[0]
        if fault is not None:
            raise CheckpointError(fault)

    @property
    def failed(self) -> bool:
        """As in ``Checkpointer``: a save that fails raises at once."""
        return False

    def finish(self) -> None:
        """As in ``Checkpointer``."""

    def leave(self) -> None:
        """As in ``Checkpointer``."""

    def newest(self) -> Path | None:
        """As in ``Checkpointer``."""
        return next(reversed(list_checkpoints(self.run)), None)
