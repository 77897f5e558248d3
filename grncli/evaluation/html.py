"""One self-contained page of a report: tables, pictures and settings; a browser fetches nothing else."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.runtime.jsonfiles import to_json

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "img{max-width:100%}pre{background:#f5f5f5;padding:1rem;overflow:auto;font-size:13px}"
)


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML document of sections that are HTML already."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>{''.join(sections)}"
    document = f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n"
    # Names of files may be any bytes, and those that are no UTF-8 stand as escapes.
    return document.encode("utf-8", "backslashreplace").decode()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as text."""
    lines = [_row("th", header), *(_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def heading(text: str) -> str:
    """The title of a further table."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A sentence or two."""
    return f"<p>{escape(text)}</p>"


def figure(drawn: Any) -> str:
    """A matplotlib figure, inline."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return _image(buffer.getvalue())


def picture(pixels: NDArray[np.uint8]) -> str:
    """uint8 ``[H, W, 3]``, inline."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return _image(buffer.getvalue())


def settings(values: Mapping[str, Any]) -> str:
    """The JSON document that the page was made from."""
    text = escape(to_json(values, indent=1))
    return f"<details><summary>Settings and all figures</summary><pre>{text}</pre></details>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _image(png: bytes) -> str:
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
