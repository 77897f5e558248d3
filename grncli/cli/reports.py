"""Reports on standard output: tables and sentences, or JSON; and the files beside them."""

import sys
from dataclasses import dataclass

from grncli.cli.console import print_json, say
from grncli.cli.terminal import screen_width, table_lines, wrap
from grncli.reporting.report_files import ReportFiles
from grncli.reporting.text_report import Report, TextReport


@dataclass(frozen=True, kw_only=True)
class Outputs(ReportFiles):
    """Where a report goes: a table or JSON on standard output, and files beside it."""

    json: bool = False

    def write(self, report: Report) -> None:
        """Write everything that was asked for."""
        document = self.write_files(report, ["grn", *sys.argv[1:]])
        if self.json:
            for sentence in report.warnings:
                say(f"warning: {sentence}", always=True)
            print_json(document)
            return
        printed = TextReport(report.text.tables[: report.printed], report.text.notes)
        for line in report_lines(printed, screen_width()):
            print(line)


def report_lines(report: TextReport, width: int) -> list[str]:
    """Each table under its title, then the notes, in lines of at most ``width`` columns."""
    lines: list[str] = []
    for table in report.tables:
        lines += [*wrap(table.title, width), "", *table_lines(table.header, table.rows, width, table.names), ""]
    return lines + [line for note in report.notes for line in wrap(note, width)]
