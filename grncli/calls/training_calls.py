"""``grncli.train_tokenizer`` and ``grncli.train_generator``: from a recipe and data to a run directory."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from grncli.calls.option_forms import Place, Progress, device_name, following, source_arguments, takes_options
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.runtime.urls import located, reads_urls
from grncli.sampling.sheets import preview_sheet
from grncli.text.encoders import load_text_encoder
from grncli.training import generator_training, tokenizer_training
from grncli.training.captioned_plan import CaptionedPlan
from grncli.training.generator_training import GeneratorPlan, make_plan
from grncli.training.logs import LogLine
from grncli.training.refinement_objective import Preview
from grncli.training.run_setup import PresentRun, read_training_recipe, settle_dtype
from grncli.training.starting_run import FirstWeights, begin_from

Overrides = Sequence[str] | Mapping[str, Any]
"""Fields of a recipe to change: ``["training.steps=500"]`` or ``{"training.steps": 500}``."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a training added to its run."""

    out: Path  # the run directory
    step: int  # that it is trained to
    added: int  # steps of this call; 0 where the run was finished before
    numbers: Mapping[str, float]  # of the last line that this call logged, and its ``step``


@takes_options()
def train_tokenizer(
    recipe: Place,
    data: Place | Sequence[Place],
    out: Place,
    *,
    overrides: Overrides = (),
    device: object = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    overwrite: bool = False,
    report: Callable[[LogLine], object] | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainingSummary:
    """Train a tokenizer on images and clips, as ``grn train-tokenizer`` does.

    Parameters
    ----------
    recipe : YAML file, or the name of a shipped recipe
    data : images and clips, one SRC or several, as `grncli.tokenize` takes them
    out : run directory; an interrupted run is resumed, a finished one left alone
    overrides : fields of the recipe to change, such as ``{"training.steps": 500}``
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a ``torch.device``
    dtype : number format, short for the override ``training.dtype``
    overwrite : replace a run made with another recipe
    report : called with each line of the log: its ``step`` and ``numbers``
    progress : called with (steps done, steps in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved
    processes : those that train together, each its share of every batch

    Raises
    ------
    Stopped
        At ``max_time``, after a checkpoint; the same call resumes.
    GrnError
        `RecipeError`, `UsageError` or `CheckpointError`.
    """
    resolved = read_training_recipe(Path(recipe), TokenizerRecipe, override_texts(overrides, dtype))
    where = torch.device(device_name(device))
    check_alike(processes, where, resolved, out, data)
    log = _Log(report)
    added = tokenizer_training.train_tokenizer(
        resolved,
        source_arguments(data),
        Path(out),
        device=where,
        overwrite=overwrite,
        processes=processes,
        monitor=following(progress, max_time),
        report=log,
    )
    return TrainingSummary(Path(out), resolved.training.steps, added, log.last)


@takes_options()
@reads_urls("stores", "text")
def train_generator(
    recipe: Place,
    stores: Place | Sequence[Place],
    out: Place,
    *,
    overrides: Overrides = (),
    tokenizer: Place | None = None,
    text: Place | None = None,
    text_encoder: Place | None = None,
    start: Place | None = None,
    ema: Literal["restart", "keep"] = "restart",
    allow_incomplete: bool = False,
    device: object = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] | None = None,
    overwrite: bool = False,
    report: Callable[[LogLine], object] | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainingSummary:
    """Train a generator on the bits of one or more stores, as ``grn train-gen`` does.

    Parameters
    ----------
    recipe : YAML file, or the name of a shipped recipe
    stores : bit store, or several
    out : run directory; an interrupted run is resumed, a finished one left alone
    overrides : fields of the recipe to change, such as ``{"training.steps": 500}``
    tokenizer : run directory of the stores' tokenizer; writes sheets of samples during training
    text : features of the captions, from `grncli.encode_text`, for text recipes
    text_encoder : instead of ``text`` the encoder, which runs beside the training: its folder, or ``minilm``
    start : another run to begin with the weights of, trained or imported (``--from``)
    ema : with ``start``: average the weights anew, or keep that run's average
    allow_incomplete : train on what an unfinished store has so far
    device, dtype, overwrite, report, progress, max_time, processes : as for `grncli.train_tokenizer`

    Raises
    ------
    Stopped
        At ``max_time``, after a checkpoint; the same call resumes.
    GrnError
        `RecipeError`, `UsageError`, `StoreError`, `StoreMismatch` or `CheckpointError`.
    """
    monitor, where = following(progress, max_time), torch.device(device_name(device))
    begin = plan_generator(
        recipe,
        [stores] if isinstance(stores, Place) else stores,
        overrides=overrides,
        dtype=dtype,
        text=text,
        text_encoder=text_encoder,
        start=start,
        ema=ema,
        allow_incomplete=allow_incomplete,
        overwrite=overwrite,
        processes=processes,
        device=where,
        out=out,
        monitor=monitor,
    )
    sheet = plan_sheet(begin.plan, tokenizer, where, monitor)
    log = _Log(report)
    added = generator_training.train_generator(
        begin.plan,
        Path(out),
        device=where,
        first=begin.first,
        overwrite=overwrite,
        processes=processes,
        sheet=sheet,
        monitor=monitor,
        report=log,
    )
    return TrainingSummary(Path(out), begin.plan.recipe.training.steps, added, log.last)


def plan_sheet(
    plan: GeneratorPlan | CaptionedPlan, tokenizer: Place | None, device: torch.device, monitor: Monitor
) -> Preview | None:
    """What draws samples during a training, None without a tokenizer; GrnError where that does not fit."""
    if tokenizer is None:
        return None
    features = plan.features if isinstance(plan, CaptionedPlan) else None
    return preview_sheet(plan.recipe, str(tokenizer), device, features=features, say=monitor.say)


@dataclass(frozen=True)
class GeneratorStart:
    """What a training of a generator begins with."""

    plan: GeneratorPlan | CaptionedPlan
    first: FirstWeights | None  # None draws them


def plan_generator(
    recipe: Place,
    stores: Sequence[Place],
    *,
    overrides: Overrides,
    dtype: str | None,
    text: Place | None,
    text_encoder: Place | None,
    start: Place | None,
    ema: str,
    allow_incomplete: bool,
    overwrite: bool,
    processes: Processes,
    device: torch.device,
    out: Place | None,
    monitor: Monitor,
) -> GeneratorStart:
    """Read the recipe, open the stores and the run to start from; nothing is written.

    Of several processes all must have the same recipe, data and ``out``.
    """
    if ema not in ("restart", "keep"):
        raise UsageError(f"--ema {ema}: expected restart or keep")
    if text is not None and text_encoder is not None:
        raise UsageError(f"--text {text}: holds features, expected it without --text-encoder {text_encoder}")
    paths = [located(store) for store in stores]
    if not paths:
        raise UsageError("there is no STORE, expected the path of at least one bit store")
    asked = read_training_recipe(Path(recipe), AskedGeneratorRecipe, override_texts(overrides, dtype))
    check_alike(processes, device, asked, out, text, text_encoder, start, ema, *paths)
    open_encoder = None
    if text_encoder is not None:  # it computes in the number format of the training
        present = None if out is None or overwrite else PresentRun(Path(out))
        number_format = settle_dtype(asked, present, device, processes).training.dtype
        open_encoder = partial(load_text_encoder, text_encoder, device, DTYPES[number_format])
    plan = make_plan(
        asked,
        paths,
        text=None if text is None else located(text),
        open_encoder=open_encoder,
        place=str(recipe),
        allow_incomplete=allow_incomplete,
        say=monitor.say,
        processes=processes,
    )
    if start is None:
        return GeneratorStart(plan, None)
    begun, first = begin_from(
        plan.recipe, Path(start), paths[0], keep=ema == "keep", reads=processes.is_main, say=monitor.say
    )
    return GeneratorStart(replace(plan, recipe=begun), first)


def check_alike(processes: Processes, device: torch.device, *texts: object) -> None:
    """Raise UsageError unless all processes were given the same texts: they train one network."""
    if not processes.alike(repr(list(map(str, texts))), device):
        raise UsageError(
            f"the {processes.count} processes were started with different recipes, data or --out, and train "
            "one network together; give all the same, or set RANK=0 and WORLD_SIZE=1 to train one each"
        )


def override_texts(overrides: Overrides, dtype: str | None) -> list[str]:
    """Overrides as ``field=value``, with ``dtype``, which is short for ``training.dtype``.

    Raises
    ------
    UsageError
        If it is no number format, or another one than an override asks for.
    """
    if isinstance(overrides, Mapping):
        overrides = [
            f"{field}={value if isinstance(value, str) else json.dumps(value)}" for field, value in overrides.items()
        ]
    if dtype is None:
        return list(overrides)
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: expected auto, {' or '.join(DTYPES)}")
    others = [text for text in overrides if text.startswith("training.dtype=") and text != f"training.dtype={dtype}"]
    if others:
        raise UsageError(f"--dtype {dtype} and {others[-1]} contradict each other, expected one of the two")
    return [*overrides, f"training.dtype={dtype}"]


class _Log:
    """Keeps the last line of a training's log, and passes each on."""

    def __init__(self, report: Callable[[LogLine], object] | None) -> None:
        self._report = report
        self.last: dict[str, float] = {}

    def __call__(self, line: LogLine) -> None:
        self.last.update(line.numbers, step=line.step)
        if self._report is not None:
            self._report(line)
