"""``grn eval search``: which decoding settings give the best samples."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, say, works_alone
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs
from grncli.cli.sample import AreaGroup, RefinementGroup, TextGroup
from grncli.reporting.search_report import search_report

if TYPE_CHECKING:
    from grncli.sampling.settings import SampleOptions


@examples(
    "grn eval search runs/gen --tokenizer runs/tok --reference photos.npz \\",
    "    --grid temperature=1.0,1.3 guidance=1.5:3:0.5",
)
@guarded
@options.grouped
def search(
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory of the generator.", show_default=False)],
    tokenizer: Annotated[
        str, Option(metavar="RUN2", help="Tokenizer that the generator was trained for.", show_default=False)
    ],
    *,
    more: Annotated[
        list[str] | None, Argument(metavar="[NAME=VALUES]...", help="More of the grid.", show_default=False)
    ] = None,
    grid: Annotated[
        list[str] | None,
        Option(
            "--grid",
            metavar="NAME=VALUES",
            help="A list (temperature=1.0,1.2) or from, to and step (guidance=1.5:3:0.5); more may follow.",
        ),
    ] = None,
    reference: Annotated[
        str | None, Option(metavar="REF", help="Real pictures to compare with; statistics are quickest.")
    ] = None,
    text_image: options.TextImageGroup,
    by: Annotated[
        Literal["distance", "text-image"] | None,
        Option(help="What decides, where both are measured; default: the distance."),
    ] = None,
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Samples and results; resumes an interrupted search; default: RUN/search."),
    ] = None,
    classes: options.Classes = "all",
    prompts: Annotated[
        Path | None, Option(metavar="FILE", help="Prompts to sample: GenEval's or VBench's JSON, or plain lines.")
    ] = None,
    per_class: Annotated[
        int | None,
        Option(
            "--per-prompt",
            "--per-class",
            metavar="N",
            min=1,
            help="Samples of each prompt or class (or in all) in the last round; default: 4, of a class 50.",
        ),
    ] = None,
    halvings: Annotated[
        int,
        Option(metavar="H", min=0, help="Rounds before the last, with half the samples each."),
    ] = 2,
    texts: TextGroup,
    sizes: AreaGroup,
    refinement: RefinementGroup,
    weights: options.Weights = "ema",
    seed: options.Seed = 0,
    networks: options.NetworkGroup,
    size: options.EvalSize = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    overwrite: Annotated[bool, options.overwrite("Replace another search in DIR.")] = False,
    plot: options.Plot = None,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Find the decoding settings with the best samples.

    A grid is searched by successive halving for the smallest Fréchet distance, or for the largest text-image score.
    """
    works_alone()
    outputs = Outputs(plot=plot, html=html, json=json)
    outputs.check()
    asked = {
        **vars(texts),
        **vars(sizes),
        **vars(refinement),
        "classes": classes,
        "prompts": prompts,
        "per_class": per_class,
        "weights": weights,
        "seed": seed,
        "batch": batch,
        "device": device,
        "dtype": dtype,
    }
    with monitored("eval search", "trials", max_time) as monitor:
        from grncli.calls.sampling_files import sample_options
        from grncli.calls.search_call import search_settings

        result = search_settings(
            run,
            [*(grid or []), *(more or [])],
            tokenizer=tokenizer,
            reference=reference,
            out=out,
            **asked,
            **vars(text_image),
            by=by,
            halvings=halvings,
            **vars(networks),
            size=size,
            workers=workers,
            overwrite=overwrite,
            progress=monitor,
        )
    outputs.write(search_report(result))
    best = best_command(run, tokenizer, sample_options(asked), result.best.point)
    say(f"best of {len(result.trials)}: {best}")


def best_command(run: Path, tokenizer: str, options: "SampleOptions", point: Mapping[str, Any]) -> str:
    """The ``grn sample`` that repeats a point of the grid."""
    how = ("per_class", "batch", "device")  # what samples do not depend on, or what the search raised step by step
    usual = {field.name: field.default for field in fields(options)} | {"dtype": "auto"}
    given = {name: value for name, value in vars(options).items() if name not in how and value != usual[name]} | dict(
        point
    )
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is True]
    values = [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in given.items()
        if not isinstance(value, bool)
    ]
    return " ".join([f"grn sample {run} OUT --tokenizer {tokenizer}", *values, *flags])
