"""``grn captions``: captions of an existing bit store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn captions photos.zarr captions.jsonl",
)
@guarded
def captions(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store whose sources have captions.")],
    file: Annotated[
        Path,
        Argument(
            metavar="FILE",
            help='CSV, TSV, Parquet, or JSON lines such as {"path": "cats/1.jpg", "caption": "a cat"}, with source, '
            "path, image_path, video_path or file_name, and captions, caption, text or long_caption; other fields are "
            "kept.",
        ),
    ],
    columns: options.Columns = None,
    json: options.Json = False,
) -> None:
    """Give the sources of a bit store captions, in place of those they had.

    A source is found by its path (grn info shows some), else by an end of its path that no other source has. The bits
    stay as they are. Where a line of the file is wrong, it is named and nothing is changed.
    """
    works_alone()
    from grncli.calls.captions_call import add_captions

    summary = add_captions(store, file, columns=columns)
    if json:
        print_json({"store": str(store), **asdict(summary)})
    every = counted(summary.sources, "source")
    done = f"captions added to {summary.added} and replaced for {summary.replaced} of {every}"
    if not summary.added and not summary.replaced:
        done = f"nothing to do, its sources have these captions already ({summary.unchanged} of {summary.sources})"
    lacking = f"; {summary.uncaptioned} have none" if summary.uncaptioned else ""
    lone = f"; lines of media that it does not have: {summary.lone} of {summary.lines}" if summary.lone else ""
    lone += f" (the first is {summary.first_lone})" if summary.first_lone else ""
    say(f"{store}: {done}{lacking}{lone}")
