"""``grn store split``: one store into several."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn store split photos.zarr train.zarr test.zarr --share 0.9,0.1",
    "# What a list names, and the rest",
    "grn store split photos.zarr faces.zarr others.zarr --keys faces.txt",
)
@guarded
def split(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store or features store.", show_default=False)],
    out: Annotated[list[Path], Argument(metavar="OUT...", help="Stores to make.", show_default=False)],
    share: Annotated[
        str | None, Option(metavar="A,B,...", help="Share of the samples for each OUT, such as 0.9,0.1.")
    ] = None,
    keys: Annotated[
        str | None,
        Option(
            metavar="FILE|-",
            help="Keys or sources of samples, or prompts, one a line: they go to the first OUT, the rest to a second.",
        ),
    ] = None,
    seed: Annotated[
        int, Option(metavar="N", min=0, max=options.MAX_SEED, help="Which source falls to which OUT depends on it.")
    ] = 0,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Divide a store by shares that are drawn, or by a list.

    All samples of a source (windows of a clip, mirrored copies) go to the same store. Sources are drawn by a hash of
    their names and the seed: the same everywhere. STORE stays as it is; full chunk files are linked, not copied, where
    the file system can.
    """
    works_alone()
    with monitored("store split", "samples", max_time) as monitor:
        from grncli.calls.store_calls import split_store

        summary = split_store(store, out, share=share, keys=keys, seed=seed, progress=monitor)
    if json:
        stores = zip(summary.stores, summary.samples, strict=True)
        print_json({"stores": [{"store": str(each), "samples": count} for each, count in stores]})
    there = "" if summary.made else ", which were there already"
    for each, count in zip(summary.stores, summary.samples, strict=True):
        say(f"{each}: {counted(count, 'sample')} of {store}{there}")
