"""``grn bench``: how fast this machine runs every stage, beside what it does at best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs
from grncli.reporting.text_report import Report, Table, TextReport, number
from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    from grncli.bench.speeds import MachineSpeeds, StageSpeed

BUSY = 0.5  # cores that other programs may keep busy without a word


@examples(
    "grn bench",
    "# With networks of one's own, and their tokens",
    "grn bench c2i-b-ind data.batch=4 --grid 1x16x16",
    "grn bench tokenizer-small --folder /data --json > speeds.json",
)
@guarded
def bench(
    recipe: Annotated[
        Path | None,
        Argument(
            metavar="[RECIPE]",
            help="A shipped name or a file, of a tokenizer or a class generator; default: a tokenizer of 22 M "
            "parameters and GRN_ind-B.",
            show_default=False,
            autocompletion=options.recipe_names(),
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        Argument(metavar="[FIELD=VALUE]...", help="Fields of the recipe to change: data.batch=4", show_default=False),
    ] = None,
    grid: Annotated[str, Option(metavar="TxHxW", help="Tokens of a sample of the generator.")] = "1x16x16",
    folder: Annotated[
        Path, Option(metavar="DIR", help="Folder on the disk to measure; 0.2 GB are written and removed.")
    ] = Path(),
    seconds: Annotated[
        float, Option(metavar="S", min=0, help="Time for each comparison with a limit, three rounds at least.")
    ] = 4.0,
    device: options.Device = "auto",
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Measure how fast this machine runs every stage, beside its own limits at the same moment.

    Limits are a memory copy, the fastest product of matrices in each number format, and a plain file that reaches the
    disk. Takes one to two minutes on two cores, and about 8 GB of memory.
    """
    if not folder.is_dir():
        raise UsageError(f"--folder {folder}: there is no such folder, expected one on the disk to measure")
    with monitored("bench", "parts", max_time) as monitor:
        from grncli.bench.benchmark import run_benchmark
        from grncli.runtime.devices import pick_device
        from grncli.store import parse_grid

        tokens = parse_grid(grid)
        if tokens is None:
            raise UsageError(f"--grid {grid}: expected TxHxW, such as 1x16x16")
        measured = run_benchmark(
            recipe,
            overrides or (),
            grid=tokens,
            folder=folder,
            seconds=seconds,
            device=pick_device(device),
            monitor=monitor,
        )
    Outputs(json=json).write(Report(text=tabulate(measured), document=measured.to_json()))
    if not json:
        print(measured.line())  # not wrapped, as it is to be copied


def tabulate(measured: "MachineSpeeds") -> TextReport:
    """The report, as text."""
    from grncli.bench.speeds import figure

    limits = [[limit.name, figure(limit.value), limit.unit] for limit in measured.limits]
    rows = [
        [
            stage.name,
            stage.dtype or "",
            figure(stage.value),
            stage.unit,
            number(stage.share, ".0%"),
            number(measured.gains.get(stage.name) if stage.dtype == "bfloat16" else None, ".2f", "x"),
            number(stage.waiting, ".1%"),
        ]
        for stage in measured.stages
    ]
    header = ["stage", "format", "rate", "unit", "share of its limit", "bfloat16 gain", "waiting for data"]
    tables = [
        Table("Limits of this machine", ["limit", "rate", "unit"], limits, names=(0,)),
        Table("Stages", header, rows, names=(0,)),
    ]
    return TextReport(tables, _notes(measured))


def _notes(measured: "MachineSpeeds") -> list[str]:
    notes = [", ".join(map(str, measured.machine.values())) + "."]
    subjects = {stage.name: f"{stage.name}: {stage.subject}; its limit is {_limit(stage)}" for stage in measured.stages}
    notes += [f"{text}." for text in subjects.values()]
    if measured.load > BUSY:
        notes.append(f"The load average was {measured.load:.1f} at the start: compare shares rather than rates.")
    notes += [f"Not measured: {text}." for text in measured.skipped]
    for stage in measured.stages:
        if stage.is_slow:
            dtype = f" in {stage.dtype}" if stage.dtype else ""
            spent = ", ".join(f"{kind} {share:.0%}" for kind, share in (stage.spent or {}).items())
            where = f"; its time goes into {spent}" if spent else ""
            notes.append(
                f"{stage.name}{dtype} reaches {stage.share:.0%} of its limit, and {stage.expected:.0%} or more on the "
                f"machine it was tuned on{where}."
            )
    return [*notes, "To paste into an issue:"]


def _limit(stage: "StageSpeed") -> str:
    """The limit of a stage in any number format."""
    return stage.of.removesuffix(f" {stage.dtype}") if stage.dtype else stage.of
