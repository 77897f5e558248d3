"""Sampling as one call from Python: a generator and what it is asked for in, token maps out."""

from collections.abc import Sequence
from math import inf
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from grncli.conditions import ClassCondition, Condition, TextCondition
from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformer
from grncli.models.transformer import Grid
from grncli.runs.text_releases import RELEASES
from grncli.runtime.errors import UsageError
from grncli.sampling.sampler import Request, Sampler, SamplingSettings, Selection
from grncli.schedules import Cosine, Fixed, Schedule


class Refining(TypedDict, total=False):
    """How samples are refined, as `SamplingSettings` has it.

    The defaults of class generators are the paper's for GRN_ind-B, those of text generators are the releases': guided
    by 3 at a temperature of 1.1 for single frames, by 4 at 1.0 for clips, at every step.
    """

    guidance: float
    guidance_interval: tuple[float, float]  # selection ratios between which samples are guided
    temperature: float
    adapt_temperature: bool
    selection: Selection
    relative: bool


def sample(
    generator: Generator,
    *,
    grid: Grid,
    labels: Sequence[int] | Tensor | None = None,
    text: Sequence[Tensor] | None = None,
    negative: Tensor | None = None,
    seed: int = 0,
    first_number: int = 0,
    steps: int | Schedule = 50,
    known_tokens: Tensor | None = None,
    known: Tensor | None = None,
    clean_first: bool = False,
    batch: int | None = None,
    device: torch.device | str | None = None,
    **settings: Unpack[Refining],
) -> Tensor:
    """Samples of a generator, refined from noise (Algorithm 3).

    Parameters
    ----------
    generator : from ``load_generator``, in the number format to compute in
    grid : latent frames, rows and columns of every sample
    labels : for a class generator, the class of each sample, -1 for none
    text : for a text generator, the encoder's features ``[length, width]`` for each sample; a tensor that several
        samples share is read once
    negative : features of the prompt that guidance leads away from, most often those of the empty one
    seed, first_number : sample n of the list depends on the seed, the number ``first_number + n`` and what it is asked
        for, not on the others
    steps : number of equal steps, with text along the cosine of the release whose attention the generator has; or a
        schedule of ``grncli.schedules``
    known_tokens, known : token maps ``[n, channels, T, h, w]``, and a mask that spreads over them of what stays
    clean_first : the first frame is known, and clean: a text generator starts the clip from it
    batch : samples refined at once; None takes what fills the device
    device : where to move the generator first; None leaves it where it is
    settings : guidance, temperature and more, see `Refining`

    Returns
    -------
    Tensor
        uint8 ``[n, channels, T, h, w]`` on the CPU, as the generator takes it. Pixels in [-1, 1] are
        ``tokenizer.decode(dequantize(codec.to_index(tokens), codec.rounds))`` with ``codec = generator.config.codec``
        and ``grncli.hbq.dequantize``.

    Raises
    ------
    UsageError
        If what is asked for does not fit the generator.
    """
    condition = _condition(generator, labels, text, negative, clean_first)
    requests = _requests(condition, (generator.config.codec.token_channels, *grid), first_number, known_tokens, known)
    first_frames = [request.known is not None and bool(request.known[:, 0].all()) for request in requests]
    if clean_first and (grid[0] == 1 or not all(first_frames)):
        raise UsageError("clean_first: expected clips of more than one frame, and all of the first one in known")
    refining = _settings(generator, steps, seed, condition, grid, settings)
    beside = 0 if text is None else 1 + sum(map(len, text)) // len(text)
    sampler = Sampler(generator.to(device), grid, refining, batch=batch, condition_tokens=beside)
    drawings = {finished.request.number: finished.drawing for finished in sampler.run(requests)}
    return torch.stack([drawings[request.number] for request in requests])


def _condition(
    generator: Generator,
    labels: Sequence[int] | Tensor | None,
    text: Sequence[Tensor] | None,
    negative: Tensor | None,
    clean_first: bool,
) -> Condition:
    if isinstance(generator, TextTransformer):
        if not text or negative is None or labels is not None:
            raise UsageError("text: a text generator takes text and negative, expected both and no labels")
        width = generator.config.text_width
        for name, features in (("negative", negative), *((f"text[{n}]", each) for n, each in enumerate(text))):
            if features.dim() != 2 or not len(features) or features.shape[1] != width:
                found = list(features.shape)
                raise UsageError(f"{name}: has the shape {found}, expected [length, {width}], an encoder's features")
        return TextCondition.of(text, negative, clean_first=clean_first)
    if labels is None or not len(labels) or text is not None or negative is not None or clean_first:
        raise UsageError("labels: a class generator takes labels (-1 for no class), expected them and nothing of text")
    classes, numbers = generator.config.classes, torch.as_tensor(labels, dtype=torch.int64)
    if bool((numbers >= classes).any()):
        raise UsageError(f"labels: has {int(numbers.max())}, expected -1 to {classes - 1}")
    return ClassCondition.of(numbers, generator.config.null_class)


def _settings(
    generator: Generator, steps: int | Schedule, seed: int, condition: Condition, grid: Grid, settings: Refining
) -> SamplingSettings:
    if "guidance" in settings and not condition.guides:
        raise UsageError("guidance: the generator was trained without classes, leave it out")
    if not 0 < settings.get("temperature", 1.0) < inf:
        raise UsageError(f"temperature: is {settings['temperature']}, expected a finite number above 0")
    if not isinstance(generator, TextTransformer):
        return SamplingSettings(schedule=Fixed(steps) if isinstance(steps, int) else steps, seed=seed, **settings)
    release = RELEASES[generator.config.attention]
    task = release.image if grid[0] == 1 else release.clip
    released: Refining = {"guidance": task.guidance, "guidance_interval": (0.0, 1.0), "temperature": task.temperature}
    refining: Refining = {**released, **settings}
    schedule = Cosine(steps, release.cosine_end) if isinstance(steps, int) else steps
    return SamplingSettings(schedule=schedule, seed=seed, **refining)


def _requests(
    condition: Condition, shape: tuple[int, ...], first_number: int, tokens: Tensor | None, known: Tensor | None
) -> list[Request]:
    """A request for each row of the condition."""
    if min(shape) < 1:
        raise UsageError(f"grid: is {shape[1:]}, expected 1 or more frames, rows and columns")
    rows = [condition[n : n + 1] for n in range(len(condition))]
    if tokens is None or known is None:
        if tokens is not known:
            raise UsageError("known_tokens: says nothing without known, and known without it; expected both or none")
        return [Request(first_number + n, row) for n, row in enumerate(rows)]
    expected = (len(rows), *shape)
    try:
        masks = known.bool().expand(expected)
    except RuntimeError:
        found = list(known.shape)
        raise UsageError(f"known: has the shape {found}, expected one that spreads over {list(expected)}") from None
    if tokens.shape != expected:
        raise UsageError(f"known_tokens: has the shape {list(tokens.shape)}, expected {list(expected)}")
    return [Request(first_number + n, row, tokens[n], masks[n]) for n, row in enumerate(rows)]
