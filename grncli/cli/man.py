"""``grn man``: the manual pages of all commands."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say
from grncli.cli.help_pages import examples, walk_commands


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
    from grncli.cli.man_pages import man_page, page_name
    from grncli.runtime.files import whole_file

    root = context.find_root()
    pages = list(walk_commands(root.command, root))
    names = [page_name(about) for _, about in pages]
    folder.mkdir(parents=True, exist_ok=True)
    for (command, about), name in zip(pages, names, strict=True):
        with whole_file(folder / f"{name}.1") as temporary:
            temporary.write_text(man_page(command, about, [other for other in names if other != name]), "utf-8")
    if json:
        print_json({"out": str(folder), "pages": [f"{name}.1" for name in names]})
    say(f"{folder}: {len(names)} manual pages")
