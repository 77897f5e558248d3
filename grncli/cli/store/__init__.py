"""``grn store``: one command for each thing that can be done to the rows of a store."""

from grncli.cli.help_pages import HelpfulApp, examples
from grncli.cli.store.compact import compact
from grncli.cli.store.dedupe import dedupe
from grncli.cli.store.drop import drop
from grncli.cli.store.merge import merge
from grncli.cli.store.split import split

app = HelpfulApp()
app.command("drop")(drop)
app.command("compact")(compact)
app.command("split")(split)
app.command("merge")(merge)
app.command("dedupe")(dedupe)


@app.callback()
@examples(
    "grn store split photos.zarr train.zarr test.zarr --share 0.9,0.1",
    "grn store dedupe photos.zarr --drop",
)
def store() -> None:
    """Drop, split, merge and compare the samples of bit stores.

    Nothing is encoded again. What is dropped is marked in its store and can be removed later; other commands make new
    stores, and but for a compaction in place leave what they read as it is. All but dedupe take features stores too.
    """
