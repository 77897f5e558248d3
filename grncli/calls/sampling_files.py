"""``grncli.sample``: token maps of a generator, or with ``out`` the files that ``grn sample`` makes."""

from collections.abc import Sequence
from inspect import Signature, signature
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from grncli.calls.option_forms import Place, Progress, Several, following, settled, takes_options
from grncli.models.generator import Generator
from grncli.models.transformer import Grid
from grncli.runs.generators import load_generator
from grncli.runtime.errors import UsageError
from grncli.runtime.urls import reads_urls
from grncli.sampling import sampling_call, stage
from grncli.sampling.sampling_call import Refining
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import SamplingSummary
from grncli.schedules import Schedule


class SearchedOptions(TypedDict, total=False):
    """The options of ``grn sample`` that a search has too; None is the paper's value, or what the run records."""

    classes: Several | None  # "all", or numbers and names
    prompts: Place | None  # a file: GenEval's or VBench's JSON, or plain lines
    per_class: int | None  # samples of each class or prompt, or in all
    text_encoder: Place | None  # folder of it, or minilm
    text: Place | None  # store of text features, instead of an encoder
    negative_prompt: str | None  # or @FILE
    budget: Several | None  # pixels of a frame: "0.06M", ... or (W, H)
    ratio: Several | None  # "W:H" or (W, H), which fills the budget
    frames: int | None  # of a clip, 1 + n times the tokenizer's stride in time
    steps: int | None  # refinement steps, 50 by default; with complexity, the pace of the warm-up
    # How the selection ratio grows; complexity gives each sample steps by its entropy.
    schedule: Literal["linear", "cosine", "complexity"] | None
    cosine_end: float | None  # where the cosine ends, 1 by default
    shift: float | None  # of the cosine towards noise, 1 for none
    k: float | None  # steps per unit of entropy; None: fitted before, or 600
    b: float | None  # steps at entropy 0; None: fitted before, or -547
    min_steps: int | None  # fewest steps of a sample; None: 20, of pictures from text 10
    max_steps: int | None  # most steps of a sample; None: 50
    warmup_steps: int | None  # steps before the entropy decides; None: 5
    target_steps: float | None  # fit b (and k, unless given) so that samples take this many steps on average
    guidance: float | None  # scale of classifier-free guidance, 1 for none; None: 2.35, or the run's for text
    guidance_interval: Several | None  # "LOW:HIGH" or (low, high), selection ratios with guidance
    temperature: float | None  # divides the logits; None: 1.31, or the run's for text
    adapt_temperature: bool  # lower it for samples of few steps, as the release does
    # Random (the paper), confidence (Appendix E.2), mask: accepted tokens stay fixed.
    select: Literal["random", "confidence", "mask"]
    weights: str | None  # "ema", the default, "ema2" or "weights"
    seed: int | None  # samples depend on it and on their number only
    batch: int | None  # samples refined at once; None: what fills the device
    device: object  # "auto", "cpu", "cuda", "cuda:1", "mps", or a torch.device
    dtype: str | None  # "auto", "float32" or "bfloat16"
    overwrite: bool  # replace samples made with other settings


class SampleCallOptions(SearchedOptions, total=False):
    """The options of ``grn sample``; None is the paper's value, or what the run records."""

    prompt: str | None  # one prompt
    rewrite: str | None  # command that rewrites prompts
    size: Several | None  # "HxW" or (H, W) in pixels
    grid: Several | None  # "TxHxW" or (T, H, W) in tokens; None: the most frequent of training
    first_frame: Place | None  # picture that clips start from, or a folder of one for each prompt
    init: Place | None  # store of samples to start from
    keep: str | float | None  # what stays of them: a PNG mask, "first-frame", or a share
    part: str | tuple[int, int] | None  # "i/n" or (i, n): part i of n, from 0; "auto": that of this process
    sheet: Place | None  # PNG file for a contact sheet
    film: Place | None  # MP4 file for a film of the refinement
    offload: bool  # let generator and tokenizer take turns on the device


@overload
def sample(
    generator: Generator | Place,
    *,
    out: None = None,
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
) -> Tensor: ...


@overload
def sample(
    generator: Place,
    *,
    out: Place,
    tokenizer: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[SampleCallOptions],
) -> SamplingSummary: ...


def sample(generator: Generator | Place, *, out: Place | None = None, **options: Any) -> Tensor | SamplingSummary:
    """Samples of a generator, refined from noise (Algorithm 3): as token maps, or with ``out`` as files.

    Parameters
    ----------
    generator : run directory; without ``out`` also a network from ``load_generator``, in the number format to compute
        in
    out : ``OUT.zarr`` for a bit store, any other name for a folder of PNG and MP4 files with their bits
    options : without ``out`` those of `grncli.sampling.sampling_call.sample`, among them ``grid`` and ``labels`` or
        ``text``; with it ``tokenizer`` (run directory), ``progress`` (called with samples done, samples in all and a
        note, or a `Monitor`), ``max_time``, and those of the command, which `SampleCallOptions` lists

    Returns
    -------
    Tensor or SamplingSummary
        Without ``out``, uint8 ``[n, channels, T, h, w]`` on the CPU, as the generator takes it. With it, samples made
        now and before, their steps, NFE and entropy; files of the store or folder that are there are left alone, and an
        interrupted call is resumed.

    Raises
    ------
    Stopped
        At ``max_time``; finished samples are committed.
    GrnError
        `UsageError`, `StoreMismatch`, `StoreError` or `CheckpointError`, before any work.
    """
    if out is None:
        return _sample_tokens(load_generator(generator) if isinstance(generator, Place) else generator, **options)
    if not isinstance(generator, Place):
        raise UsageError(
            "out: files record the run that made them, expected the generator's run directory and not its network"
        )
    return sample_files(generator, out, **options)


@takes_options(SampleOptions, dtype="auto")
@reads_urls("init")
def sample_files(
    generator: Place,
    out: Place,
    *,
    tokenizer: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[SampleCallOptions],
) -> SamplingSummary:
    """The samples as files; see `sample`."""
    monitor = following(progress, max_time)
    return stage.sample(Path(generator), Path(out), sample_options({**options, "tokenizer": tokenizer}), monitor)


def sample_options(options: dict[str, Any]) -> SampleOptions:
    """Options, and the tokenizer among them, as the stage takes them; UsageError for invalid ones."""
    values = {"dtype": "auto", **settled(options)}
    values |= {name: str(values[name]) for name in ("tokenizer", "text_encoder", "keep") if name in values}
    return SampleOptions(**values)


_sample_tokens = takes_options()(sampling_call.sample)
_first = list(signature(sample).parameters.values())[:2]
_options = dict(signature(_sample_tokens).parameters) | dict(signature(sample_files).parameters)
sample.__signature__ = Signature(  # type: ignore[attr-defined]
    [*_first, *(each for name, each in _options.items() if name not in ("generator", "out"))]
)
