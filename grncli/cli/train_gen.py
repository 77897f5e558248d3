"""``grn train-gen``: train the network that refines bits."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import format_bytes, guarded, print_json, say
from grncli.cli.session import open_session
from grncli.cli.terminal import screen_width, wrap
from grncli.cli.training_session import check_alike, conclude, with_dtype
from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    from grncli.training.captioned_plan import CaptionedPlan
    from grncli.training.generator_training import GeneratorPlan


@guarded
def train_gen(
    recipe: Annotated[
        Path, Argument(metavar="RECIPE", help="YAML file, such as recipes/c2i-small-ind.yaml.", show_default=False)
    ],
    stores: Annotated[
        list[str],
        Argument(
            metavar="STORE... [FIELD=VALUE]...",
            help="Bit stores, and fields of the recipe to change: training.steps=500",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, Option("--out", metavar="RUN", help="Run directory; resumes an interrupted run.")
    ] = None,
    tokenizer: Annotated[
        str | None, Option(metavar="RUN", help="Tokenizer of the stores; writes sheets of samples during training.")
    ] = None,
    text: Annotated[
        str | None,
        Option(metavar="FEATURES", help="Features of the captions, from grn encode-text; for text recipes."),
    ] = None,
    text_encoder: Annotated[
        str | None,
        Option(
            metavar="DIR|minilm",
            help="Instead of --text: the encoder, which runs beside the training (more than a million captions).",
        ),
    ] = None,
    start: Annotated[
        str | None,
        Option("--from", metavar="RUN0", help="Begin with the weights of another run, trained or imported."),
    ] = None,
    ema: Annotated[
        str,
        Option(metavar="restart|keep", help="With --from: average the weights anew, or go on with RUN0's average."),
    ] = "restart",
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print parameters, memory and operations; train nothing.")
    ] = False,
    allow_incomplete: Annotated[
        bool, Option("--allow-incomplete", help="Train on what an unfinished store has so far.")
    ] = False,
    device: options.Device = "auto",
    dtype: options.TrainingDtype = None,
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace a run made with another recipe.")] = False,
    json: options.LogJson = False,
) -> None:
    """Train a generator on the bits of one or more stores.

    In several processes with srun or torchrun.
    """
    paths = [Path(text) for text in stores if not _is_override(text)]
    overrides = [text for text in stores if _is_override(text)]
    if not paths:
        raise UsageError("there is no STORE, expected the path of at least one bit store")
    if out is None and not dry_run:
        raise UsageError("--out RUN is missing, expected the run directory to train into")
    if ema not in ("restart", "keep"):
        raise UsageError(f"--ema {ema}: expected restart or keep")
    if text is not None and text_encoder is not None:
        raise UsageError(f"--text {text}: holds features, expected it without --text-encoder {text_encoder}")
    with open_session("train-gen", "steps", device, max_time) as session:
        from grncli.runs.generator_recipe import AskedGeneratorRecipe
        from grncli.runtime.devices import DTYPES
        from grncli.training.captioned_plan import CaptionedPlan
        from grncli.training.generator_training import make_plan, train_generator
        from grncli.training.run_setup import PresentRun, read_training_recipe, settle_dtype

        asked = read_training_recipe(recipe, AskedGeneratorRecipe, with_dtype(overrides, dtype))
        check_alike(session, asked, out, text, text_encoder, start, ema, *paths)
        present = None if out is None or overwrite else PresentRun(out)
        settled_dtype = settle_dtype(asked, present, session.device, session.processes).training.dtype
        open_encoder = None
        if text_encoder is not None:
            from grncli.text.encoders import load_text_encoder

            open_encoder = partial(load_text_encoder, text_encoder, session.device, DTYPES[settled_dtype])
        plan = make_plan(
            asked,
            paths,
            text=None if text is None else Path(text),
            open_encoder=open_encoder,
            place=str(recipe),
            allow_incomplete=allow_incomplete,
            say=session.monitor.say,
        )
        first = None
        if start is not None:
            from grncli.training.starting_run import begin_from

            begun, first = begin_from(plan.recipe, Path(start), paths[0], keep=ema == "keep", say=session.monitor.say)
            plan = replace(plan, recipe=begun)
        if out is None or dry_run:
            training = replace(plan.recipe.training, dtype=settled_dtype)
            _show_costs(replace(plan, recipe=replace(plan.recipe, training=training)), json=json)
            return
        sheet = None
        if tokenizer is not None:
            from grncli.sampling.sheets import preview_sheet

            sheet = preview_sheet(
                plan.recipe,
                tokenizer,
                session.device,
                features=plan.features if isinstance(plan, CaptionedPlan) else None,
                say=session.monitor.say,
            )
        last: dict[str, float] = {}
        added = train_generator(
            plan,
            out,
            device=session.device,
            first=first,
            overwrite=overwrite,
            processes=session.processes,
            sheet=sheet,
            monitor=session.monitor,
            report=lambda line: last.update(line.numbers, step=line.step),
        )
        conclude(session, out, asked.training.steps, added, last, json=json)


def _is_override(text: str) -> bool:
    """Whether an argument is ``dotted.field=value`` and no path, even if it is no good one."""
    field, equals, _ = text.partition("=")
    return bool(equals) and os.sep not in field and not os.path.exists(text)


def _show_costs(plan: "GeneratorPlan | CaptionedPlan", *, json: bool) -> None:
    from grncli.training.captioned_plan import CaptionedPlan
    from grncli.training.estimate import estimate, estimate_packed

    costs = estimate_packed(plan) if isinstance(plan, CaptionedPlan) else estimate(plan.recipe)
    if json:
        print_json(costs)
        return
    for name, text in _cost_lines(costs):
        for line in wrap(text, screen_width(), f"{name:<17}"):
            say(line)


def _cost_lines(costs: dict[str, Any]) -> list[tuple[str, str]]:
    memory = costs["memory"]
    return [
        ("parameters", f"{costs['parameters'] / 1e6:.2f} M"),
        (
            "samples",
            f"{costs['samples']} of {costs['largest_grid']} tokens and less, "
            f"{costs['steps_per_epoch']:.1f} steps an epoch, {costs['epochs']:.1f} epochs",
        ),
        ("tokens a step", f"{costs['tokens_per_step']} ({costs['elements_per_step']} channels)"),
        (
            "operations",
            f"{costs['flops_per_step'] / 1e12:.3g} TFLOP a step, {costs['flops'] / 1e18:.3g} EFLOP in all",
        ),
        (
            "memory",
            f"{format_bytes(memory['total'])}: {format_bytes(memory['weights'])} weights, gradients, optimizer and "
            f"moving averages, {format_bytes(memory['activations'])} activations ({costs['dtype']})",
        ),
    ]
