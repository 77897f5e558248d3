"""``grn store compact``: a store without the samples that were dropped."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn store compact photos.zarr",
    "grn store compact photos.zarr smaller.zarr",
)
@guarded
def compact(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store or features store.", show_default=False)],
    out: Annotated[
        Path | None,
        Argument(metavar="[OUT]", help="Store to make; default: in STORE's place.", show_default=False),
    ] = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Write a store without its dropped samples.

    Without OUT the new store is written beside the old one and then takes its place, so nothing may read STORE
    meanwhile. Killed at any moment, the same command does the rest.
    """
    works_alone()
    with monitored("store compact", "samples", max_time) as monitor:
        from grncli.calls.store_calls import compact_store

        summary = compact_store(store, out, progress=monitor)
    if json:
        print_json({**asdict(summary), "store": str(summary.store)})
    done = f"{counted(summary.removed, 'dropped sample')} removed" if summary.made else "nothing to do"
    say(f"{summary.store}: {done}, {counted(summary.samples, 'sample')}")
