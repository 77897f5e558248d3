"""``grn captions``: captions of an existing bit store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say, works_alone
from grncli.cli.help_pages import examples


@examples(
    "grn captions photos.zarr captions.jsonl",
)
@guarded
def captions(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store whose sources have captions.")],
    file: Annotated[
        Path,
        Argument(
            metavar="FILE.jsonl",
            help='JSON lines such as {"path": "cats/1.jpg", "caption": "a cat"}, with source, path, image_path, '
            "video_path or file_name, and captions, caption, text or long_caption; other fields are kept.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Give the sources of a bit store captions, in place of those they had.

    A source is found by its path (grn info shows some), else by an end of its path that no other source has. The bits
    stay as they are. Where a line of the file is wrong, it is named and nothing is changed.
    """
    works_alone()
    from grncli.captioning.captioning_stage import caption_store

    summary = caption_store(store, file)
    if json:
        print_json({"store": str(store), **asdict(summary)})
    done = f"captions added to {summary.added} and replaced for {summary.replaced} of {summary.sources} sources"
    if not summary.added and not summary.replaced:
        done = f"nothing to do, its sources have these captions already ({summary.unchanged} of {summary.sources})"
    lacking = f"; {summary.uncaptioned} have none" if summary.uncaptioned else ""
    lone = f"; lines of media that it does not have: {summary.lone} of {summary.lines}" if summary.lone else ""
    say(f"{store}: {done}{lacking}{lone}")
