"""Samples as pictures on one sheet, a row for each class."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from grncli.conditions import ClassCondition
from grncli.decoding.store_decoding import decode_index
from grncli.media.selection import evenly_spread
from grncli.media.writing import Frames, contact_sheet, shown_frames, write_png
from grncli.models.generator import Generator
from grncli.models.tokenizer import Tokenizer
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runtime.monitor import Say
from grncli.sampling.pictures import decode_packed, load_fitting_tokenizer
from grncli.sampling.sample_store import StoredSamples
from grncli.sampling.sampler import Request, Sampler, SamplingSettings
from grncli.sampling.settings import choose_grid
from grncli.schedules import Fixed
from grncli.store import grid_name

COLUMNS = 8
ROWS = 12


def class_sheet(rows: Iterable[tuple[str, Sequence[Frames]]]) -> Frames:
    """A contact sheet of samples, uint8 ``[T, H, W, 3]`` each, a row for each name."""
    pictures, captions = [], []
    for name, samples in rows:
        shown = [frame for clip in samples for frame in shown_frames(clip)]
        pictures.append(shown)
        captions += [name, *[""] * (len(shown) - 1)]
    return contact_sheet(pictures, captions, cell=96)


def stored_sheet(samples: StoredSamples, tokenizer: Tokenizer) -> Frames:
    """A sheet of the first samples of each class that a store has."""
    store, labels = samples.store, samples.store.labels
    by_class: dict[str, list[Frames]] = {}
    for sample in samples.entries:
        name = sample.record.get("class") or ""
        row = by_class.setdefault(name, [])
        if len(by_class) > ROWS:
            del by_class[name]
        elif len(row) < COLUMNS * (1 if labels else ROWS):
            row.append(decode_packed(tokenizer, store[sample.place].bits, store.rounds))
    place = {name: number for number, name in enumerate(labels)}
    rows = [
        (name if start == 0 else "", frames[start : start + COLUMNS])
        for name, frames in sorted(by_class.items(), key=lambda item: place.get(item[0], len(labels)))
        for start in range(0, len(frames), COLUMNS)
    ]
    return class_sheet(rows)


def preview_sheet(
    recipe: GeneratorRecipe, run: str, device: torch.device, *, say: Say = lambda text: None
) -> Callable[[nn.Module, Path, int], None]:
    """What writes the sheets of samples of a training run; ``say`` names a tokenizer that is not fully trained."""
    bits, config, preview = recipe.bits, recipe.network, recipe.preview
    tokenizer = load_fitting_tokenizer(run, bits, config, say=say).network.to(device)
    grid = choose_grid(None, bits.grids)
    chosen = evenly_spread(preview.classes, max(1, len(bits.labels)))
    settings = SamplingSettings(
        schedule=Fixed(preview.steps),
        guidance=preview.guidance,
        temperature=preview.temperature,
        relative=recipe.refinement.target == "relative",
    )

    def write(module: nn.Module, folder: Path, step: int) -> None:
        assert isinstance(module, Generator)
        numbers = [[n * max(1, len(bits.labels)) + c for n in range(preview.per_class)] for c in chosen]
        requests = [
            Request(number, ClassCondition(torch.tensor([label]), config.null_class))
            for label, row in zip(chosen, numbers, strict=True)
            for number in row
        ]
        training = module.training
        samples = list(Sampler(module.eval(), grid, settings).run(requests))
        module.train(training)
        index = config.codec.to_index(torch.stack([sample.drawing for sample in samples])).to(device)
        frames = decode_index(tokenizer, index, config.codec.rounds)
        pictures = {sample.request.number: picture for sample, picture in zip(samples, frames, strict=True)}
        names = [bits.labels[label] for label in chosen] if bits.labels else [grid_name(grid)]
        rows = [[pictures[number] for number in row] for row in numbers]
        write_png(folder / f"samples-{step:08d}.png", class_sheet(zip(names, rows, strict=True)))

    return write
