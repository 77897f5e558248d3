"""Samples as pictures on one sheet, a row for each class."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from grncli.decoding.store_decoding import decode_index
from grncli.media.writing import contact_sheet, write_png
from grncli.models.generator import Generator
from grncli.refinement import Fixed
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.sampling.pictures import load_fitting_tokenizer, to_index
from grncli.sampling.refiner import Job, Refiner, Rules
from grncli.sampling.settings import choose_grid
from grncli.store import grid_name

COLUMNS = 8
ROWS = 12
FRAMES = 4  # of each clip

Frames = NDArray[np.uint8]


def class_sheet(rows: Sequence[tuple[str, Sequence[Frames]]]) -> Frames:
    """A contact sheet of samples, uint8 ``[T, H, W, 3]`` each, a row for each name."""
    pictures, captions = [], []
    for name, samples in rows:
        shown = [frame for frames in samples for frame in _spread(frames)]
        pictures.append(shown)
        captions += [name, *[""] * (len(shown) - 1)]
    return contact_sheet(pictures, captions, cell=96)


def preview_sheet(
    recipe: GeneratorRecipe, run: str, device: torch.device, *, say: Callable[[str], None] = lambda text: None
) -> Callable[[nn.Module, Path, int], None]:
    """What draws the sheets of samples of a training run; ``say`` is told of a tokenizer that is not fully trained."""
    assert recipe.bits is not None
    bits, config, settings = recipe.bits, recipe.network, recipe.preview
    tokenizer = load_fitting_tokenizer(run, bits, config, say=say).network.to(device)
    grid = choose_grid(None, bits.grids)
    classes = np.linspace(0, max(len(bits.labels) - 1, 0), settings.classes).round().astype(int)
    chosen = list(dict.fromkeys(classes.tolist()))
    rules = Rules(
        schedule=Fixed(settings.steps),
        guidance=settings.guidance,
        temperature=settings.temperature,
        relative=recipe.refinement.target == "relative",
    )

    def draw(module: nn.Module, folder: Path, step: int) -> None:
        assert isinstance(module, Generator)
        training = module.training
        jobs = [Job(n * max(1, len(bits.labels)) + c, c) for c in chosen for n in range(settings.per_class)]
        refined = list(Refiner(module.eval(), grid, rules).run(jobs))
        module.train(training)
        index = to_index(torch.stack([sample.drawing for sample in refined]), config).to(device)
        frames = decode_index(tokenizer, index, config.rounds or 0)
        made = {sample.job.number: picture for sample, picture in zip(refined, frames, strict=True)}
        rows = []
        for start in range(0, len(jobs), settings.per_class):
            own = jobs[start : start + settings.per_class]
            name = bits.labels[own[0].label] if bits.labels else grid_name(grid)
            rows.append((name, [made[job.number] for job in own]))
        write_png(folder / f"samples-{step:08d}.png", class_sheet(rows))

    return draw


def _spread(frames: Frames) -> list[Frames]:
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int)
    return list(frames[chosen])
