"""``grn store merge``: several stores as one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn store merge cats.zarr dogs.zarr pets.zarr",
    "# Samples of two seeds, whose keys are the same",
    "grn store merge seed0.zarr seed1.zarr samples.zarr --prefix-keys",
)
@guarded
def merge(
    stores: Annotated[list[Path], Argument(metavar="STORE...", help="Stores made alike.", show_default=False)],
    out: Annotated[Path, Argument(metavar="OUT", help="Store to make.", show_default=False)],
    prefix_keys: Annotated[
        bool, Option("--prefix-keys", help="Let each key begin with the name of its store.")
    ] = False,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Put stores of one tokenizer and the same settings together.

    Their parts become the parts of OUT, without dropped samples. Class names must be the same in the same order; one
    list may be longer. Full chunk files are linked, not copied, where the file system can. Of features stores, a prompt
    that several have is taken once.
    """
    works_alone()
    with monitored("store merge", "samples", max_time) as monitor:
        from grncli.calls.store_calls import merge_stores

        summary = merge_stores(stores, out, prefix_keys=prefix_keys, progress=monitor)
    if json:
        print_json({**asdict(summary), "store": str(summary.store)})
    repeated = f"; prompts that several have and are taken once: {summary.repeated}" if summary.repeated else ""
    state = "" if summary.made else "nothing to do, "
    say(f"{out}: {state}{counted(summary.samples, 'sample')} in {counted(summary.parts, 'part')}{repeated}")
