"""``grn train-gen``: train the network that refines bits."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import print_json
from grncli.cli.cost_report import say_warnings, show_costs
from grncli.cli.help_pages import examples
from grncli.cli.session import guarded_together, open_session
from grncli.cli.terminal import Field, field
from grncli.cli.training_session import conclude
from grncli.runtime.errors import UsageError
from grncli.runtime.urls import reads_urls

if TYPE_CHECKING:
    from grncli.runtime.processes import Processes


@examples(
    "grn train-gen c2i-small-ind photos.zarr --out runs/gen --tokenizer runs/tok",
    "# What it would cost",
    "grn train-gen c2i-l-ind photos.zarr --dry-run training.steps=1000 --json",
)
@guarded_together
@reads_urls("stores", "text")
def train_gen(
    recipe: Annotated[
        Path,
        Argument(
            metavar="RECIPE",
            help="YAML file, or a shipped recipe such as c2i-small-ind.",
            show_default=False,
            autocompletion=options.recipe_names("generator"),
        ),
    ],
    stores: Annotated[
        list[str],
        Argument(
            metavar="STORE... [FIELD=VALUE]...",
            help="Bit stores, folders or URLs, and fields of the recipe to change: training.steps=500",
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
        Option(
            **options.one_of("restart", "keep"),
            help="With --from: average the weights anew, or go on with RUN0's average.",
        ),
    ] = "restart",
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print parameters, operations, time and memory; train nothing.")
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

    It resumes an interrupted run. Several processes that srun or torchrun starts train together.
    """
    paths = [Path(text) for text in stores if not _is_override(text)]
    overrides = [text for text in stores if _is_override(text)]
    if not paths:
        raise UsageError("there is no STORE, expected the path of at least one bit store")
    if out is None and not dry_run:
        raise UsageError("--out RUN is missing, expected the run directory to train into")
    with open_session("train-gen", "steps", device, max_time) as session:
        from grncli.calls.training_calls import train_generator

        chosen: dict[str, Any] = {
            "overrides": overrides,
            "dtype": dtype,
            "tokenizer": tokenizer,
            "text": text,
            "text_encoder": text_encoder,
            "overwrite": overwrite,
            "start": start,
            "ema": ema,
            "allow_incomplete": allow_incomplete,
        }
        chosen |= {"device": session.device, "processes": session.processes, "progress": session.monitor}
        if out is None or dry_run:
            _show_costs(recipe, paths, out, session.processes, chosen, json=json)
            return
        summary = train_generator(recipe, paths, out, **chosen)
        conclude(session, out, summary.step, summary.added, summary.numbers, json=json)


def _is_override(text: str) -> bool:
    """Whether an argument is ``dotted.field=value`` and no path, even if it is no good one."""
    field, equals, _ = text.partition("=")
    return bool(equals) and os.sep not in field and not os.path.exists(text)


def _show_costs(
    recipe: Path, paths: list[Path], out: Path | None, processes: "Processes", chosen: dict[str, Any], *, json: bool
) -> None:
    from grncli.calls.costs_call import estimate_costs
    from grncli.calls.training_calls import train_generator

    costs = estimate_costs(train_generator, recipe, paths, out, **chosen)
    if not processes.is_main:
        return
    counted = costs.details["counted"]
    if json:
        print_json({**counted, "costs": costs.to_json()})
        say_warnings(costs)
    else:
        show_costs(costs, json=False, more=_counted_fields(counted))


def _counted_fields(counted: dict[str, Any]) -> list[Field]:
    """What is known without computing anything."""
    return [
        field(
            "samples",
            f"{counted['samples']} of {counted['largest_grid']} tokens and less, "
            f"{counted['steps_per_epoch']:.1f} steps an epoch, {counted['epochs']:.1f} epochs",
        ),
        field("tokens a step", f"{counted['tokens_per_step']} ({counted['elements_per_step']} channels)"),
        field(
            "operations",
            f"{counted['flops_per_step'] / 1e12:.3g} TFLOP a step, {counted['flops'] / 1e18:.3g} EFLOP in all",
        ),
    ]
