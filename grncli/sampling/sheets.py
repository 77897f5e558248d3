"""Samples as pictures on one sheet, a row for each class or prompt."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grncli.conditions import ClassCondition, Condition, TextCondition
from grncli.decoding.store_decoding import decode_index
from grncli.media.selection import evenly_spread
from grncli.media.writing import Frames, contact_sheet, shown_frames, write_png
from grncli.models.generator import Generator
from grncli.models.tokenizer import Tokenizer
from grncli.runs.generator_recipe import GeneratorRecipe, TextConditioning
from grncli.runtime.errors import RecipeError
from grncli.runtime.monitor import Say
from grncli.sampling.pictures import decode_packed, load_fitting_tokenizer
from grncli.sampling.sample_grid import choose_grid
from grncli.sampling.sample_store import StoredSamples
from grncli.sampling.sampler import Request, Sampler, SamplingSettings
from grncli.schedules import Fixed
from grncli.store import Grid, grid_name
from grncli.text.prompt_features import PromptFeatures
from grncli.text.templates import final_prompt

COLUMNS = 8
ROWS = 12
CAPTION = 200  # characters


def class_sheet(rows: Iterable[tuple[str, Sequence[Frames]]]) -> Frames:
    """A contact sheet of samples, uint8 ``[T, H, W, 3]`` each, a row for each name."""
    pictures, captions = [], []
    for name, samples in rows:
        shown = [frame for clip in samples for frame in shown_frames(clip)]
        pictures.append(shown)
        captions += [name, *[""] * (len(shown) - 1)]
    return contact_sheet(pictures, captions, cell=96)


def stored_sheet(samples: StoredSamples, tokenizer: Tokenizer) -> Frames:
    """A sheet of the first samples of each class or prompt that a store has; prompts in their order."""
    store, labels = samples.store, samples.store.labels
    rows: dict[str, list[Frames]] = {}
    for sample in samples.entries:
        name = _row_of(sample.record)
        row = rows.setdefault(name, [])
        if len(rows) > ROWS:
            del rows[name]
        elif len(row) < COLUMNS * (1 if name or labels else ROWS):
            row.append(decode_packed(tokenizer, store[sample.place].bits, store.rounds))
    place = {name: number for number, name in enumerate(labels)}
    return class_sheet(
        (name if start == 0 else "", frames[start : start + COLUMNS])
        for name, frames in sorted(rows.items(), key=lambda item: place.get(item[0], len(labels)))
        for start in range(0, len(frames), COLUMNS)
    )


def _row_of(record: Mapping[str, Any]) -> str:
    """Class of a sample, or its prompt, "" where it has neither."""
    prompt = record.get("prompt") or ""
    return record.get("class") or (prompt if len(prompt) <= CAPTION else f"{prompt[:CAPTION]}...")


def preview_sheet(
    recipe: GeneratorRecipe,
    run: str,
    device: torch.device,
    *,
    features: PromptFeatures | None = None,
    say: Say = lambda text: None,
) -> Callable[[nn.Module, Path | None, int], None]:
    """What writes the sheets of samples of a training run into a folder; without one it only computes them.

    Parameters
    ----------
    run : of the tokenizer
    features : those of the recipe's ``preview.prompts``, for a network that is conditioned on text
    say : called with one sentence where the tokenizer is not fully trained

    Raises
    ------
    RecipeError, UsageError
        If there is no prompt, or no features of one.
    """
    bits, config, preview = recipe.bits, recipe.network, recipe.preview
    tokenizer = load_fitting_tokenizer(run, bits, config, say=say).network.to(device)
    grid = choose_grid(None, bits.grids)
    rows, every = _preview_rows(recipe, grid, features)
    settings = SamplingSettings(
        schedule=Fixed(preview.steps),
        guidance=preview.guidance,
        temperature=preview.temperature,
        relative=recipe.refinement.target == "relative",
    )

    def write(module: nn.Module, folder: Path | None, step: int) -> None:
        assert isinstance(module, Generator)
        numbers = [[n * every + first for n in range(preview.per_class)] for _, first, _ in rows]
        requests = [
            Request(number, condition) for (_, _, condition), row in zip(rows, numbers, strict=True) for number in row
        ]
        training = module.training
        samples = list(Sampler(module.eval(), grid, settings).run(requests))
        module.train(training)
        if folder is None:
            return
        index = config.codec.to_index(torch.stack([sample.drawing for sample in samples])).to(device)
        frames = decode_index(tokenizer, index, config.codec.rounds)
        pictures = {sample.request.number: picture for sample, picture in zip(samples, frames, strict=True)}
        sheet = [(name, [pictures[n] for n in row]) for (name, _, _), row in zip(rows, numbers, strict=True)]
        write_png(folder / f"samples-{step:08d}.png", class_sheet(sheet))

    return write


def _preview_rows(
    recipe: GeneratorRecipe, grid: Grid, features: PromptFeatures | None
) -> tuple[list[tuple[str, int, Condition]], int]:
    """Name, first sample and condition of each row of a preview, and how many there would be of all samples."""
    labels, preview = recipe.bits.labels, recipe.preview
    if features is None:
        count = max(1, len(labels))
        names = labels or (grid_name(grid),)
        null = recipe.network.null_class
        chosen = evenly_spread(preview.classes, count)
        return [(names[c], c, ClassCondition(torch.tensor([c]), null)) for c in chosen], count
    if not preview.prompts:
        raise RecipeError("preview.prompts is empty, expected prompts to draw with --tokenizer; add some to the recipe")
    text = recipe.text or TextConditioning()
    task = text.image if grid[0] == 1 else text.clip
    finals = [final_prompt(prompt, task.prefix, task.suffix) for prompt in preview.prompts]
    *told, empty = features.of([*finals, final_prompt("")])
    conditions = [TextCondition.of([each], empty) for each in told]
    return list(zip(preview.prompts, range(len(told)), conditions, strict=True)), len(told)
