"""Reports in words: tables of cells, sentences, and what a page shows beside them."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grncli.evaluation.exhibits import Exhibit

HUGE = 1e12  # from here on a number is written with an exponent


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
class Report:
    """What was measured, as a command prints it and as a page shows it.

    Attributes
    ----------
    document : the report as JSON data
    draw : gives a matplotlib figure, for the plot and the page
    drawn : what the figure shows, for readers who cannot see it
    picture : uint8 ``[H, W, 3]`` for the sheet
    exhibits : pictures for the page
    warnings : said on standard error beside JSON; the text has them as notes
    printed : tables to print, those that follow are for the page only
    """

    text: TextReport
    document: Mapping[str, Any]
    draw: Callable[[], Any] | None = None
    drawn: str = ""
    picture: Any = None
    exhibits: "Sequence[Exhibit]" = ()
    warnings: Sequence[str] = ()
    printed: int | None = None


def number(value: float | None, form: str, unit: str = "") -> str:
    """A cell: empty where there is no number, be it missing or not defined (NaN)."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:{form if abs(value) < HUGE else '.6g'}}{unit}"
