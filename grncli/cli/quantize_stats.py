"""``grn quantize-stats``: how good bits are, and how many rounds are needed."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from grncli.calls.option_forms import check_measured
from grncli.cli import options
from grncli.cli.console import FAILED, complain, guarded, monitored
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs
from grncli.reporting.bits_report import bits_report
from grncli.reporting.rounds_report import BEYOND_BOUND, rounds_report
from grncli.runtime.urls import reads_urls


@examples(
    "grn quantize-stats photos.zarr --plot bits.png",
    "# What each number of rounds is worth",
    "grn quantize-stats --media photos --tokenizer runs/tok --html rounds.html",
)
@guarded
@reads_urls("store")
def quantize_stats(
    store: Annotated[
        Path | None, Argument(metavar="[STORE]", help="Bit store, or its URL.", show_default=False)
    ] = None,
    media: Annotated[str | None, Option(metavar="SRC", help="Images and clips instead; see grn tokenize.")] = None,
    tokenizer: Annotated[str | None, Option(metavar="RUN", help="Run directory of the tokenizer, for --media.")] = None,
    rounds: Annotated[str, Option(metavar="A:B", help="Numbers of rounds to decode from.")] = "1:8",
    size: options.Size = None,
    budget: options.Budget = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    limit: options.Limit = None,
    sample: options.Sample = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    lpips: options.Lpips = None,
    plot: options.Plot = None,
    sheet: Annotated[
        Path | None, Option(metavar="PNG", help="Write pictures decoded from each number of rounds; with --media.")
    ] = None,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Measure the bits of a store, or rounds on media.

    A STORE shows balance, entropy and correlation of its bits; --media shows error and quality after each number of
    rounds.
    """
    chosen: dict[str, Any] = {
        "rounds": None if rounds == "1:8" else rounds,
        "size": size,
        "budget": budget,
        "frames": frames,
        "fps": fps,
        "limit": limit,
        "sample": sample,
        "batch": batch,
        "workers": workers,
        "device": None if device == "auto" else device,
        "lpips": lpips,
    }
    check_measured(store, media, tokenizer, {"sheet": sheet, **chosen})
    outputs = Outputs(plot=plot, sheet=sheet, html=html, json=json)
    outputs.check()
    unit = "samples" if store else "sources"
    with monitored("quantize-stats", unit, max_time) as monitor:
        from grncli.calls.statistics_call import quantize_stats as measure

        if dry_run:
            given = {} if store is not None else {"media": media, "tokenizer": tokenizer, **chosen}
            print_costs(measure, *([] if store is None else [store]), progress=monitor, json=json, **given)
            return
        if store is not None:
            report, problem = bits_report(measure(store, progress=monitor)), ""
        else:
            statistics = measure(media=str(media), tokenizer=str(tokenizer), progress=monitor, **chosen)
            report = rounds_report(statistics)
            problem = "" if statistics.within_bounds else f"{media}: {BEYOND_BOUND}"
    outputs.write(report)
    if problem:
        complain(problem)
        raise typer.Exit(FAILED)
