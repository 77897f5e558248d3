"""Settings of Sphinx, which makes the site; the pages themselves are plain Markdown that any forge shows."""

import re
import shutil
from pathlib import Path
from typing import Any

project = "grn"
html_title = "grn"
extensions = ["myst_parser"]
root_doc = "README"
exclude_patterns = ["examples"]
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
smartquotes = False  # they make a dash of the beginning of an option
myst_heading_anchors = 3  # as forges have them
DOCS = Path(__file__).parent


def setup(app: Any) -> None:
    """The map of the pages is the navigation, too, and the page that the site opens with."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", open_with_map)


def add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Add to the map what Sphinx makes the navigation of: its sections and links, and under Commands all of them."""
    if page == "README":
        for title, section in re.findall(r"^\*\*(.+)\*\*\n\n((?:- .*\n)+)", source[0], re.MULTILINE):
            source[0] += navigation(title, re.findall(r"\]\(([\w/-]+)\.md\)", section))
    if page == "commands/README":
        source[0] += navigation(
            "Commands", sorted(path.stem for path in DOCS.glob("commands/*.md") if path.stem != "README")
        )


def navigation(title: str, pages: list[str]) -> str:
    """A section of the navigation, which the page itself does not show."""
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""])


def open_with_map(app: Any, failure: Exception | None) -> None:
    """Web servers look for index.html."""
    if failure is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))
