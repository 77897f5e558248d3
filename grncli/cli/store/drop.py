"""``grn store drop``: samples that readers skip from now on."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn store drop photos.zarr --keys blurred.txt",
    "# Every sample of a class",
    "jq -r 'select(.label == \"cats\").key' photos.zarr/part-*/samples.jsonl |",
    "  grn store drop photos.zarr --keys -",
)
@guarded
def drop(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store or features store.", show_default=False)],
    keys: Annotated[
        str,
        Option(metavar="FILE|-", help="Keys or sources of samples, or prompts, one a line.", show_default=False),
    ],
    json: options.Json = False,
) -> None:
    """Let readers of a store skip samples.

    Their bits stay where they are until grn store compact removes them; a source whose samples are dropped counts as
    done, so grn tokenize does not bring it back. A name that is in no line of the store is an error, and nothing is
    changed then.
    """
    works_alone()
    from grncli.calls.store_calls import drop_samples

    summary = drop_samples(store, keys=keys)
    if json:
        print_json({**asdict(summary), "store": str(summary.store)})
    already = f"; dropped before: {summary.already}" if summary.already else ""
    remain = "remains" if summary.samples == 1 else "remain"
    say(f"{store}: {counted(summary.dropped, 'sample')} dropped, {summary.samples} {remain}{already}")
