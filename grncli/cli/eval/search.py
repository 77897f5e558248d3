"""``grn eval search``: which decoding settings give the best samples."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from grncli.calls.option_forms import worker_count
from grncli.cli import options
from grncli.cli.console import guarded, monitored, say, works_alone
from grncli.cli.eval.gen import describe_text_image
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs, Table, TextReport
from grncli.cli.sample import AreaGroup, RefinementGroup, TextGroup
from grncli.cli.terminal import number

if TYPE_CHECKING:
    from grncli.evaluation.halving import Search
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
    with monitored("eval search", "trials", max_time) as monitor:
        from grncli.evaluation.grids import parse_grid
        from grncli.evaluation.halving import search as find
        from grncli.evaluation.measuring import PictureReading
        from grncli.evaluation.trial_judge import SearchSettings
        from grncli.runtime.devices import pick_device
        from grncli.sampling.settings import SampleOptions

        chosen = str(pick_device(device))
        groups = vars(texts) | vars(sizes) | vars(refinement)
        sampling = SampleOptions(
            **groups,
            classes=classes,
            prompts=prompts,
            per_class=per_class,
            weights=weights,
            seed=seed,
            batch=batch,
            device=chosen,
            dtype=dtype,
        )
        settings = SearchSettings(
            grid=parse_grid([*(grid or []), *(more or [])]),
            sampling=sampling,
            networks=networks.settings(),
            text_image=text_image.settings(),
            by=by,
            reading=PictureReading(size=size, tokenizer=tokenizer, device=chosen, workers=worker_count(workers)),
            halvings=halvings,
            overwrite=overwrite,
        )
        result = find(run, reference, out or run / "search", settings, monitor=monitor)

    def draw() -> Any:
        from grncli.evaluation.plots import plot_search

        return plot_search(result)

    drawn = f"{result.label} over the grid of {', '.join(result.grid)}; the table has the numbers."
    outputs.write(tabulate(result), result.to_json(), draw=draw, drawn=drawn, warnings=result.warnings)
    say(f"best of {len(result.trials)}: {best_command(run, tokenizer, sampling, result.best.point)}")


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


def tabulate(result: "Search") -> TextReport:
    """Every point with its last trial, best first."""
    from grncli.evaluation.sample_metrics import LABELS, TEXT_IMAGE

    names, reference, network = list(result.grid), result.about.get("reference"), result.about.get("network")
    text_image = result.about.get("text_image")
    rows = [
        [
            *(str(trial.point[name]) for name in names),
            *([] if result.distance is None else [number(trial.figure("distance"), ".3f")]),
            *([] if text_image is None else [number(trial.figure("text-image"), ".2f")]),
            str(trial.samples),
            number(trial.nfe, ".1f"),
        ]
        for trial in result.trials
    ]
    figures = [*([] if result.distance is None else [LABELS[result.distance]])]
    figures += [] if text_image is None else [LABELS[TEXT_IMAGE]]
    notes = []
    if reference is not None and network is not None:
        notes += [
            f"Against {reference['src']} ({reference.get('count')} pictures); features of {network['name']} "
            f"({network['sha256'][:12]}).",
            "Distances of different counts do not compare: the fewer samples, the larger they are.",
        ]
    notes += [] if text_image is None else [describe_text_image(text_image)]
    title = f"Decoding settings, best first by {result.label}" if len(figures) > 1 else "Decoding settings, best first"
    header = [*names, *figures, "samples", "NFE"]
    return TextReport([Table(title, header, rows)], [*notes, *(f"Note: {warning}." for warning in result.warnings)])
