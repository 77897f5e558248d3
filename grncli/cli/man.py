"""``grn man``: the manual pages of all commands."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say
from grncli.cli.help_pages import examples


@examples(
    "grn man ~/.local/share/man/man1",
    "man grn-tokenize",
    "# Without installing them",
    "grn man pages",
    "man pages/grn-sample.1",
)
@guarded
def man(
    context: Context,
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder to write grn.1, grn-info.1, ... into.")],
    json: options.Json = False,
) -> None:
    """Write a manual page for each command.

    They say what --help says. Pages that are there already are replaced; man finds those below ~/.local/share/man where
    ~/.local/bin is in the PATH.
    """
    from grncli import __version__
    from grncli.cli.man_pages import command_pages
    from grncli.runtime.files import whole_file

    pages = command_pages(context.find_root(), __version__)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, "utf-8")
    if json:
        print_json({"out": str(folder), "pages": list(pages)})
    say(f"{folder}: {len(pages)} manual pages")
