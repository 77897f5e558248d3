"""Reports: tables and sentences on standard output, the same as one HTML page, plots and sheets beside it."""

import os
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grncli import __version__
from grncli.cli.console import print_json, say
from grncli.cli.terminal import screen_width, table_lines, wrap
from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    from grncli.evaluation.exhibits import Exhibit

PLOT_SUFFIXES, SHEET_SUFFIXES, PAGE_SUFFIXES = (".png", ".svg", ".pdf"), (".png",), (".html", ".htm")


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


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a report goes: a table or JSON on standard output, and files beside it.

    Attributes
    ----------
    plot, sheet, html : files to write
    """

    plot: Path | None = None
    sheet: Path | None = None
    html: Path | None = None
    json: bool = False

    def check(self, *, drawn: bool = True) -> None:
        """Raise UsageError for a file that could not be written, before any work.

        ``drawn``: a page has a plot in it.
        """
        kinds = ((self.plot, PLOT_SUFFIXES), (self.sheet, SHEET_SUFFIXES), (self.html, PAGE_SUFFIXES))
        for path, suffixes in kinds:
            if path is not None:
                check_file(path, suffixes)
        paths = [path.absolute() for path, _ in kinds if path is not None]
        if len(set(paths)) < len(paths):
            raise UsageError(f"{paths[0]}: is named for two outputs, expected one file for each")
        if self.plot is not None or (self.html is not None and drawn):
            from grncli.evaluation.drawing import new_figure

            new_figure(1, 1)

    def write(
        self,
        report: TextReport,
        document: Mapping[str, Any],
        *,
        draw: Callable[[], Any] | None = None,
        drawn: str = "",
        picture: Any = None,
        exhibits: "Sequence[Exhibit]" = (),
        warnings: Sequence[str] = (),
        printed: int | None = None,
    ) -> None:
        """Write everything that was asked for.

        Parameters
        ----------
        document : the report as JSON data; how it was made is added
        draw : gives a matplotlib figure, for the plot and the page
        drawn : what the figure shows, for readers who cannot see it
        picture : uint8 ``[H, W, 3]`` for the sheet
        exhibits : pictures for the page
        warnings : said on standard error beside JSON; the report has them as notes
        printed : tables to print, those that follow are for the page only
        """
        document = {**document, "made": made()}
        if self.sheet is not None:
            from grncli.media.writing import write_png

            write_png(self.sheet, picture)
        if self.plot is not None and draw is not None:
            from grncli.evaluation.drawing import save_figure

            save_figure(draw(), self.plot)
        if self.html is not None:
            figures = {} if draw is None else {drawn: draw()}
            _write_page(self.html, report, document, figures, exhibits)
        if self.json:
            for sentence in warnings:
                say(f"warning: {sentence}", always=True)
            print_json(document)
            return
        for line in report_lines(TextReport(report.tables[:printed], report.notes), screen_width()):
            print(line)


def made() -> dict[str, Any]:
    """How a report came about: the command, its date in UTC, and the versions that computed it."""
    from importlib.metadata import version

    return {
        "command": ["grn", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "grn": __version__,
            **{name: version(name) for name in ("torch", "numpy")},
            "python": platform.python_version(),
        },
    }


def report_lines(report: TextReport, width: int) -> list[str]:
    """Each table under its title, then the notes, in lines of at most ``width`` columns."""
    lines: list[str] = []
    for table in report.tables:
        lines += [*wrap(table.title, width), "", *table_lines(table.header, table.rows, width, table.names), ""]
    return lines + [line for note in report.notes for line in wrap(note, width)]


def _write_page(
    path: Path,
    report: TextReport,
    document: Mapping[str, Any],
    figures: Mapping[str, Any],
    exhibits: "Sequence[Exhibit]",
) -> None:
    """One self-contained HTML page: the first table, what it means, figures, pictures, the other tables, its making.

    ``figures`` are matplotlib's, by what they show.
    """
    from grncli.evaluation import html
    from grncli.runtime.files import whole_file

    first, *others = report.tables
    sections = [html.table(first.header, first.rows), *map(html.paragraph, report.notes)]
    sections += [html.figure(drawn, description) for description, drawn in figures.items()]
    sections += map(html.exhibit, exhibits)
    for table in others:
        sections += [html.heading(table.title), html.table(table.header, table.rows)]
    how = document["made"]
    versions = ", ".join(f"{name} {number}" for name, number in how["versions"].items())
    sections.append(html.footer(shlex.join(how["command"]), f"{how['date']} (UTC), {versions}.", document))
    text = html.page(report.title, sections)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


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
