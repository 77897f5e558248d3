"""A generator in two steps: its recipe, by which much can be refused, and later its weights."""

from pathlib import Path

import torch

from grncli.models.generator import Generator
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.generators import GENERATOR, LoadedGenerator, open_generator
from grncli.runs.loading import OpenedRun, load_network, read_newest, read_run
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say

OpenedGenerator = OpenedRun[Generator, GeneratorRecipe]


def open_recipe(run: Path) -> OpenedGenerator:
    """The recipe and the step of a run's newest checkpoint; CheckpointError where it is no generator's."""
    return read_newest(run, lambda checkpoint: read_run(run, checkpoint, [GENERATOR]))


def load_weights(
    opened: OpenedGenerator, weights: str, *, device: torch.device, dtype: torch.dtype, say: Say
) -> LoadedGenerator:
    """The network of an opened run, or of its newest checkpoint where a training has removed that one meanwhile.

    Raises
    ------
    CheckpointError
        If the weights are damaged, do not fit the recipe, or the run has another recipe by now.
    """
    try:
        loaded = load_network(opened, weights, device, dtype)
    except CheckpointError:
        loaded = open_generator(opened.run, weights, device=device, dtype=dtype)
        if loaded.recipe != opened.recipe:
            raise CheckpointError(f"{opened.run}: has another recipe by now; run the command again") from None
    if loaded.unfinished is not None:
        say(loaded.unfinished)
    return loaded
