"""Figures as files, and as part of a page that a reader may see on white or on black."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from grncli.runtime.errors import UsageError
from grncli.runtime.files import whole_file

# Each has a contrast of 3 or more against white and against near-black, and they differ in lightness too.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f80c8", "#d9730d", "#1f9d61", "#d64550", "#9b63c9", "#808080"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
INK = "#1c1c1e"  # of text and axes; in a page it takes the colour of the text around it
_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "font.size": 9,
    "axes.linewidth": 0.8,
    # Text stays text: small, searchable, read aloud. The same drawing has the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "grn",
    "pdf.fonttype": 42,
}
_HEADERS = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style .*?</style>| xmlns(:xlink)?=\"[^\"]*\"", re.DOTALL)


@contextmanager
def style() -> Iterator[None]:
    """Decorates what draws or saves: our style, and no change to that of others; UsageError without matplotlib."""
    try:
        import matplotlib  # an optional extra
    except ImportError:
        raise UsageError("plots need the matplotlib package: pip install 'grncli[plot]'") from None
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name may have letters that the font lacks; pages use the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@style()
def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches that needs no display; UsageError without matplotlib."""
    from matplotlib.figure import Figure  # an optional extra

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


@style()
def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of its suffix."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


@style()
def inline_svg(figure: Any, description: str) -> str:
    """A matplotlib figure as an ``<svg>`` element for a page: transparent, its text in the colour of the page's.

    Parameters
    ----------
    figure : of `new_figure`, whose colours it expects
    description : what readers hear who cannot see it

    Returns
    -------
    markup that fetches nothing, scales with its container, and shares no names with other figures of the page
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = _HEADERS.sub("", buffer.getvalue()).strip().replace("xlink:href", "href").replace(INK, "currentColor")
    named = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))  # clip paths and markers, called by what is in them
    text = re.sub(r" id=\"([^\"]*)\"", lambda found: found[0] if found[1] in named else "", text)
    text = re.sub(r"'[^;\"]*, sans-serif", "system-ui, sans-serif", text)
    text = re.sub(r">\s+<", "><", text)
    label = escape(description, quote=True)
    width = f"{72 * figure.get_figwidth():.0f}pt"
    head = f'<svg role="img" aria-label="{label}" style="width:100%;max-width:{width};height:auto"'
    return re.sub(r"<svg( (?:width|height)=\"[^\"]*\")*", lambda found: head, text, count=1)
