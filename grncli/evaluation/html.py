"""One self-contained page of a report: tables, pictures and settings; a browser fetches nothing else."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from grncli.evaluation.drawing import inline_svg
from grncli.evaluation.exhibits import Exhibit, Shown, as_png
from grncli.media.writing import Frames
from grncli.runtime.jsonfiles import to_json

# System colours and fonts: the page follows the reader's light or dark setting.
STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--quiet:#666}
@media(prefers-color-scheme:dark){:root{--quiet:#a5a5a5}body{background:#16181c;color:#e8e8e8}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .4rem}
p{max-width:48rem;margin:.4rem 0;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--quiet)}
.number{text-align:right;white-space:nowrap}
.grid{display:flex;flex-wrap:wrap;gap:1rem .9rem;margin:.8rem 0}
figure{margin:0;width:7.3rem}
figure.row{width:auto;display:flex;flex-wrap:wrap;gap:.4rem .9rem}
figure.row div{width:7.3rem}
figcaption,small{display:block;font-size:12px;line-height:1.35;overflow-wrap:anywhere;margin-top:.2rem}
figure.row figcaption{flex:0 0 11rem;margin:0}
small,.made{color:var(--quiet)}
img{width:100%;height:auto;image-rendering:pixelated;background:var(--soft);display:block}
pre,code{background:var(--soft);font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
pre{padding:1rem;overflow:auto}code{padding:.1rem .3rem}
footer{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:.6rem}
"""
_NUMERIC = re.compile(r"[-+\N{MINUS SIGN}]?\d[\d.,e+-]*\s?(%|x|dB|\N{PLUS-MINUS SIGN} ?[\d.,e+-]+)?|")


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML document of sections that are HTML already."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    body = f"<h1>{escape(title)}</h1>{''.join(sections)}"
    document = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    # Names of files may be any bytes, and those that are no UTF-8 stand as escapes.
    return document.encode("utf-8", "backslashreplace").decode()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as text; columns of numbers stand right."""
    numeric = [all(_NUMERIC.fullmatch(row[i]) for row in rows) for i in range(len(header))]
    head = _row("th", header, numeric) if any(header) else ""
    return f'<div class="wide"><table>{head}{"".join(_row("td", row, numeric) for row in rows)}</table></div>'


def heading(text: str) -> str:
    """The title of what follows."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A sentence or two."""
    return f"<p>{escape(text)}</p>"


def figure(drawn: Any, description: str) -> str:
    """A matplotlib figure, inline; ``description`` is for readers who cannot see it."""
    return f"<p>{inline_svg(drawn, description)}</p>"


def exhibit(shown: Exhibit) -> str:
    """Pictures with their names below them, or beside the pictures of a sample that has several."""
    samples = "".join(_sample(sample, shown.labels) for sample in shown.samples)
    return f'{heading(shown.title)}{paragraph(shown.note)}<div class="grid">{samples}</div>'


def footer(command: str, text: str, values: Mapping[str, Any]) -> str:
    """How the page was made, and the JSON document that it was made from."""
    document = escape(to_json(values, indent=1))
    return (
        f'<footer><p class="made"><code>{escape(command)}</code></p><p class="made">{escape(text)}</p>'
        f"<details><summary>Settings and all figures</summary><pre>{document}</pre></details></footer>"
    )


def _row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    marks = [' class="number"' if right else "" for right in numeric]
    return f"<tr>{''.join(f'<{tag}{mark}>{escape(c)}</{tag}>' for c, mark in zip(cells, marks, strict=True))}</tr>"


def _sample(sample: Shown, labels: Sequence[str]) -> str:
    detail = f"<small>{escape(sample.detail)}</small>" if sample.detail else ""
    caption = f"<figcaption>{escape(sample.name)}{detail}</figcaption>"
    if len(sample.pictures) == 1:
        return f"<figure>{_image(sample.pictures[0], sample.name)}{caption}</figure>"
    pictures = "".join(
        f"<div>{_image(pixels, f'{sample.name}, {label}')}<small>{escape(label)}</small></div>"
        for pixels, label in zip(sample.pictures, labels, strict=True)
    )
    return f'<figure class="row">{caption}{pictures}</figure>'


def _image(pixels: Frames, alt: str) -> str:
    height, width = pixels.shape[:2]
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{as_png(pixels)}">'
