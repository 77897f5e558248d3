"""``grn eval search``: which decoding settings give the best samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, say, worker_count, works_alone
from grncli.cli.reports import Outputs, Table, TextReport
from grncli.cli.terminal import number

if TYPE_CHECKING:
    from grncli.evaluation.halving import Search


@guarded
@options.grouped
def search(
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory of the generator.", show_default=False)],
    reference: Annotated[
        str, Option(metavar="REF", help="What to compare with; statistics are quickest.", show_default=False)
    ],
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
            metavar="NAME=VALUES",
            help="A list (temperature=1.0,1.2) or from, to and step (guidance=1.5:3:0.5); more may follow.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(metavar="DIR", help="Samples and results; resumes an interrupted search; default: RUN/search."),
    ] = None,
    per_class: Annotated[
        int, Option(metavar="N", min=1, help="Samples of each class (or in all, without classes) in the last round.")
    ] = 50,
    halvings: Annotated[
        int,
        Option(metavar="H", min=0, help="Rounds before the last, with half the samples each."),
    ] = 2,
    classes: options.Classes = "all",
    steps: Annotated[int, Option(metavar="N", min=1, help="Steps, where the grid does not vary them.")] = 50,
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
    """Find the decoding settings with the smallest Fréchet distance.

    By successive halving over a grid.
    """
    works_alone()
    outputs = Outputs(plot=plot, html=html, json=json)
    outputs.check()
    with monitored("eval search", "trials", max_time) as monitor:
        from grncli.evaluation.grids import parse_grid
        from grncli.evaluation.halving import SearchSettings
        from grncli.evaluation.halving import search as find
        from grncli.evaluation.measuring import PictureReading
        from grncli.runtime.devices import pick_device, pick_dtype
        from grncli.sampling.settings import SampleOptions

        chosen = pick_device(device)
        bfloat16 = str(pick_dtype(dtype, chosen)) == "torch.bfloat16"
        settings = SearchSettings(
            grid=parse_grid([*(grid or []), *(more or [])]),
            sampling=SampleOptions(
                classes=classes,
                per_class=per_class,
                steps=steps,
                weights=weights,
                seed=seed,
                batch=batch,
                device=str(chosen),
                dtype="bfloat16" if bfloat16 else "float32",
            ),
            networks=networks.settings(),
            reading=PictureReading(
                size=size,
                tokenizer=tokenizer,
                device=str(chosen),
                workers=worker_count(workers),
            ),
            halvings=halvings,
            overwrite=overwrite,
        )
        result = find(run, reference, out or run / "search", settings, monitor=monitor)

    def draw() -> Any:
        from grncli.evaluation.plots import plot_search

        return plot_search(result)

    outputs.write(tabulate(result), result.to_json(), draw=draw, warnings=result.warnings)
    shared = {"classes": classes, "steps": steps, "weights": weights, "seed": seed, "dtype": dtype}
    say(f"best of {len(result.trials)}: {best_command(run, tokenizer, shared, result.best.point)}")


def best_command(run: Path, tokenizer: str, shared: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """The ``grn sample`` that repeats a point of the grid."""
    usual = {"classes": "all", "steps": 50, "weights": "ema", "seed": 0, "dtype": "auto"}
    options = {name: value for name, value in shared.items() if value != usual[name]} | dict(point)
    flags = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
    values = [f"--{n.replace('_', '-')} {value}" for n, value in options.items() if not isinstance(value, bool)]
    return " ".join([f"grn sample {run} OUT --tokenizer {tokenizer}", *values, *flags])


def tabulate(result: "Search") -> TextReport:
    """Every point with its last trial, best first."""
    from grncli.evaluation.generation import LABELS

    names = list(result.grid)
    rows = [
        [
            *(str(trial.point[name]) for name in names),
            number(trial.distance, ".3f"),
            str(trial.samples),
            number(trial.nfe, ".1f"),
        ]
        for trial in result.trials
    ]
    header = [*names, LABELS[result.distance], "samples", "NFE"]
    reference, network = result.about["reference"], result.about["network"]
    notes = [
        f"Against {reference['src']} ({reference.get('count')} pictures); features of {network['name']} "
        f"({network['sha256'][:12]}).",
        "Distances of different counts do not compare: the fewer samples, the larger they are.",
        *(f"Note: {warning}." for warning in result.warnings),
    ]
    return TextReport([Table("Decoding settings, best first", header, rows)], notes)
