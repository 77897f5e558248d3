"""Files that a report is written to: its plot, its sheet of pictures, and the whole of it as one HTML page."""

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grncli import __version__
from grncli.reporting.text_report import Report
from grncli.runtime.errors import UsageError
from grncli.runtime.files import check_file

PLOT_SUFFIXES, SHEET_SUFFIXES, PAGE_SUFFIXES = (".png", ".svg", ".pdf"), (".png",), (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where the plot, the sheet and the page of a report go; None for those that nobody asked for."""

    plot: Path | None = None
    sheet: Path | None = None
    html: Path | None = None

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

    def write_files(self, report: Report, command: list[str]) -> dict[str, Any]:
        """Write everything that was asked for; returns the report as JSON data, with how it was made.

        Parameters
        ----------
        command : words of the command line that measured
        """
        document = {**report.document, "made": _made(command)}
        if self.sheet is not None:
            from grncli.media.writing import write_png

            write_png(self.sheet, report.picture)
        if self.plot is not None and report.draw is not None:
            from grncli.evaluation.drawing import save_figure

            save_figure(report.draw(), self.plot)
        if self.html is not None:
            _write_page(self.html, report, document)
        return document


def _made(command: list[str]) -> dict[str, Any]:
    """How a report came about: the command, its date in UTC, and the versions that computed it."""
    from importlib.metadata import version

    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "grn": __version__,
            **{name: version(name) for name in ("torch", "numpy")},
            "python": platform.python_version(),
        },
    }


def _write_page(path: Path, report: Report, document: Mapping[str, Any]) -> None:
    """One self-contained HTML page: the first table, what it means, figure, pictures, the other tables, its making."""
    from grncli.evaluation import html
    from grncli.runtime.files import whole_file

    first, *others = report.text.tables
    sections = [html.table(first.header, first.rows), *map(html.paragraph, report.text.notes)]
    sections += [] if report.draw is None else [html.figure(report.draw(), report.drawn)]
    sections += map(html.exhibit, report.exhibits)
    for table in others:
        sections += [html.heading(table.title), html.table(table.header, table.rows)]
    how = document["made"]
    versions = ", ".join(f"{name} {number}" for name, number in how["versions"].items())
    sections.append(html.footer(shlex.join(how["command"]), f"{how['date']} (UTC), {versions}.", document))
    text = html.page(report.text.title, sections)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
