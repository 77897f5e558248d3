"""Reports: tables and sentences on standard output, the same as one HTML page, plots and sheets beside it."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grncli.cli.console import say
from grncli.cli.terminal import screen_width, table_lines, wrap
from grncli.runtime.errors import UsageError

PLOT_SUFFIXES, SHEET_SUFFIXES, PAGE_SUFFIXES = (".png", ".svg"), (".png",), (".html", ".htm")


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column's lines need no heading of their own.

    ``names`` are the columns with names of files or classes, which a screen may show without their middle.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Collection[int] = ()


@dataclass(frozen=True)
class TextReport:
    """What a command found, in words: tables, then sentences."""

    tables: Sequence[Table]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """That of the first table."""
        return self.tables[0].title


def print_report(report: TextReport) -> None:
    """On standard output, no wider than the screen."""
    for line in report_lines(report, screen_width()):
        print(line)


def print_warnings(sentences: Sequence[str]) -> None:
    """Each on standard error, where a report does not hold them."""
    for sentence in sentences:
        say(f"warning: {sentence}")


def report_lines(report: TextReport, width: int) -> list[str]:
    """Each table under its title, then the notes, in lines of at most ``width`` columns."""
    lines: list[str] = []
    for table in report.tables:
        lines += [*wrap(table.title, width), "", *table_lines(table.header, table.rows, width, table.names), ""]
    return lines + [line for note in report.notes for line in wrap(note, width)]


def write_page(
    path: Path,
    report: TextReport,
    document: Mapping[str, Any],
    *,
    figures: Sequence[Any] = (),
    sheets: Sequence[Any] = (),
) -> None:
    """One self-contained HTML page: the report, matplotlib figures, pictures uint8 [H, W, 3], and all settings."""
    from grncli.evaluation import html
    from grncli.runtime.files import whole_file

    first, *others = report.tables
    sections = [*map(html.paragraph, report.notes), html.table(first.header, first.rows)]
    for table in others:
        sections += [html.heading(table.title), html.table(table.header, table.rows)]
    sections += [*map(html.figure, figures), *map(html.picture, sheets)]
    text = html.page(report.title, [*sections, html.settings({**document, "versions": _versions()})])
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_plot(path: Path, draw: Callable[[], Any]) -> None:
    """A matplotlib figure as PNG or SVG."""
    from grncli.evaluation.plots import save_figure

    save_figure(draw(), path)


def check_outputs(
    plot: Path | None = None, sheet: Path | None = None, html: Path | None = None, *, drawn: bool = True
) -> None:
    """Raise UsageError for a file that could not be written, before any work; ``drawn``: the page has a plot in it."""
    kinds = ((plot, PLOT_SUFFIXES), (sheet, SHEET_SUFFIXES), (html, PAGE_SUFFIXES))
    for path, suffixes in kinds:
        if path is not None:
            check_file(path, suffixes)
    given = [path.absolute() for path, _ in kinds if path is not None]
    if len(set(given)) < len(given):
        raise UsageError(f"{given[0]}: is named for two outputs, expected one file for each")
    if plot is not None or (html is not None and drawn):
        from grncli.evaluation.plots import new_figure

        new_figure(1, 1)


def check_file(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Raise UsageError for the name of an output that could not be written; without ``suffixes`` it may end in any."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no such folder, expected one that exists")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, expected the name of a file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{path}: its folder cannot be written to, expected another place")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("grncli", "torch", "numpy")}
