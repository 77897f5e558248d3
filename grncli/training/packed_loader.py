"""Packed batches: the sequences of a step, read ahead of the network."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from grncli.runs.generator_recipe import GeneratorRecipe, PackedData
from grncli.runtime.overlap import Prefetcher
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.training.captioned_samples import CaptionedSample, CaptionedSamples
from grncli.training.packing import Entries, Numbers, PackingPlan, first_fit_decreasing

EXPECTED_STEPS = 8  # whose samples are fetched from a remote store before they are read


@dataclass(frozen=True)
class PackedBatch:
    """Sequences of samples of any grids."""

    sequences: Sequence[Sequence[CaptionedSample]]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of all samples."""
        return tuple(sample.key for sequence in self.sequences for sample in sequence)

    def pieces(self, count: int) -> "list[PackedBatch]":
        """The batch in ``count`` pieces of equally many sequences."""
        size = len(self.sequences) // count
        return [PackedBatch(self.sequences[start : start + size]) for start in range(0, len(self.sequences), size)]


class PackedLoader:
    """Reads the sequences of steps; of several processes each its share.

    Parameters
    ----------
    rows : numbers of the samples to train on or to hold out, ascending
    """

    def __init__(
        self,
        samples: CaptionedSamples,
        rows: Numbers,
        recipe: GeneratorRecipe,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        assert isinstance(recipe.data, PackedData)
        self.samples, self.data, self.processes = samples, recipe.data, processes
        rows, self._held_out = hold_out(rows, recipe.data.validation, recipe.training.seed)
        self.plan = PackingPlan(
            samples.counts,
            rows,
            recipe.data,
            seed=recipe.training.seed,
            dropout=recipe.refinement.condition_dropout,
            first_frame=recipe.refinement.first_frame,
        )

    def batches(self, first_step: int) -> Generator[PackedBatch]:
        """Batches from ``first_step`` on; a thread reads ahead of the network."""
        with Prefetcher(self._read(first_step), depth=4) as ahead:
            yield from ahead

    def held_out(self) -> Iterator[PackedBatch]:
        """What is held out, a sequence at a time, each sample with the caption of the first epoch and never without."""
        if not len(self._held_out):
            return
        plan = PackingPlan(self.samples.counts, self._held_out, self.data, seed=self.plan.seed)
        entries = plan.drawn(0, self._held_out)
        bins = first_fit_decreasing(entries["tokens"], self.data.tokens, self.data.tokens)
        for place in range(int(bins.max()) + 1):
            yield PackedBatch([self.samples.read(entries[bins == place])])

    def _read(self, first_step: int) -> Iterator[PackedBatch]:
        steps = (step[self.processes.rank :: self.processes.count] for step in self.plan.steps(first_step))
        for mine in self._expected(steps) if self.samples.is_remote else steps:
            yield PackedBatch([self.samples.read(sequence) for sequence in mine])

    def _expected(self, steps: Iterator[list[Entries]]) -> Iterator[list[Entries]]:
        """The steps, of which some more are looked at than are read so far."""
        waiting = deque[list[Entries]]()
        for step in steps:
            self.samples.expect(np.concatenate(step))
            waiting.append(step)
            if len(waiting) > EXPECTED_STEPS:
                yield waiting.popleft()


def hold_out(rows: Numbers, count: int, seed: int) -> tuple[Numbers, Numbers]:
    """The rows without so many of them, and these, both ascending."""
    drawn = np.random.default_rng([seed, len(rows)]).permutation(rows)
    return np.sort(drawn[count:]), np.sort(drawn[:count])
