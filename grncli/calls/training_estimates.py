"""What ``grncli.train_tokenizer`` and ``grncli.train_generator`` would take."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from grncli.calls.option_forms import Place, Progress, device_name, following, source_arguments
from grncli.calls.training_calls import Overrides, override_texts, plan_generator, plan_sheet
from grncli.costs.run_costs import RunCosts
from grncli.costs.training_costs import generator_costs, tokenizer_costs
from grncli.runs.generators import build_generator
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.training.captioned_plan import CaptionedPlan
from grncli.training.estimate import estimate, estimate_packed
from grncli.training.loop import TrainingContext
from grncli.training.run_setup import PresentRun, read_training_recipe, settle_dtype
from grncli.training.training_run import spread_state


def estimate_train_tokenizer(
    recipe: Place,
    data: Place | Sequence[Place],
    out: Place,
    *,
    overrides: Overrides = (),
    device: object = "auto",
    dtype: str | None = None,
    overwrite: bool = False,
    report: object = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> RunCosts:
    """Costs of ``grncli.train_tokenizer`` with these arguments."""
    resolved = read_training_recipe(Path(recipe), TokenizerRecipe, override_texts(overrides, dtype))
    context = _context(device, processes, following(progress, max_time))
    return tokenizer_costs(resolved, source_arguments(data), Path(out), context, overwrite=overwrite)


def estimate_train_generator(
    recipe: Place,
    stores: Place | Sequence[Place],
    out: Place | None = None,
    *,
    overrides: Overrides = (),
    tokenizer: Place | None = None,
    text: Place | None = None,
    text_encoder: Place | None = None,
    start: Place | None = None,
    ema: str = "restart",
    allow_incomplete: bool = False,
    device: object = "auto",
    dtype: str | None = None,
    overwrite: bool = False,
    report: object = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> RunCosts:
    """Costs of ``grncli.train_generator`` with these arguments."""
    context = _context(device, processes, following(progress, max_time))
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
        device=context.device,
        out=out,
        monitor=context.monitor,
    )
    plan_sheet(begin.plan, tokenizer, context.device, context.monitor)  # refuses what the call would
    run = None if out is None else Path(out)
    present = None if run is None or overwrite else PresentRun(run)
    plan = replace(begin.plan, recipe=settle_dtype(begin.plan.recipe, present, context.device, processes))
    context = spread_state(plan.recipe, lambda: build_generator(plan.recipe.network), context, check=False)
    if isinstance(plan, CaptionedPlan):
        counted = estimate_packed(plan, context.sharding)
    else:
        counted = estimate(plan.recipe, processes.count, context.sharding)
    return generator_costs(plan, run, context, counted=counted, overwrite=overwrite)


def _context(device: object, processes: Processes, monitor: Monitor) -> TrainingContext:
    return TrainingContext(device=torch.device(device_name(device)), processes=processes, monitor=monitor)
