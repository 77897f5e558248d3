"""Tables, sentences and histograms laid out for a screen: no number is cut, and no line is wider than the screen."""

import re
import shutil
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 80  # where no terminal, and no COLUMNS, says how wide it is
NARROWEST = 40
MARGIN, GAP = "  ", "  "
SENTENCE = 24  # characters from which a cell is taken for words that may stand on several lines
SHORTEST_NAME, LONGEST_WORD = 16, 32  # columns to which a name is shortened, and a word broken, at most
ELLIPSIS = "…"
HISTOGRAM_ROWS = 12
BAR = 40  # characters of the longest, where the screen is wide enough
Field = tuple[str, str]  # what stands before the first of its lines, and its text
_NUMBER = re.compile(r"[-+±(]*\d[\d.,:e+-]*\S{0,2}")


def screen_width() -> int:
    """Columns of the terminal on standard output."""
    return max(NARROWEST, shutil.get_terminal_size((WIDTH, 24)).columns)


def columns_of(text: str) -> int:
    """Columns that a text takes on a screen: two for each wide character."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def wrap(text: str, width: int, head: str = "") -> list[str]:
    """A sentence as lines of at most ``width`` columns.

    ``head`` stands before the first line, and as much room before the others.
    Words longer than a line are broken, and what would drive a terminal is escaped.
    """
    room = max(1, width - columns_of(head))
    lines = list(_fill(_printable(text).split(), room)) or [""]
    return [f"{head if i == 0 else ' ' * columns_of(head)}{line}".rstrip() for i, line in enumerate(lines)]


def field(name: str, text: str) -> Field:
    """A fact under its name, for `field_lines`."""
    return f"  {name:<14} ", text


def field_lines(fields: Sequence[Field], width: int) -> list[str]:
    """Facts as lines of at most ``width`` columns, the texts in a column of their own."""
    return [line for head, text in fields for line in wrap(text, width, head)]


def shorten(name: str, width: int) -> str:
    """A name in at most ``width`` columns, with an ellipsis for its middle."""
    if columns_of(name) <= width:
        return name
    tail = (width - 1) // 2
    head = width - 1 - tail
    return f"{_start(name, head)}{ELLIPSIS}{_start(name[::-1], tail)[::-1]}"


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, names: Collection[int] = ()
) -> list[str]:
    """A table as lines of at most ``width`` columns.

    Heads are broken at spaces first, then names are shortened and long sentences broken. Columns that still find no
    room follow in further blocks, each of which begins with the first column, or with the number of the row where the
    first column does not tell rows apart.

    Parameters
    ----------
    names : columns with names of files or classes, which may be shortened in the middle
    """
    columns = [_Column(head, [row[i] for row in rows], i in names) for i, head in enumerate(header)]
    lines: list[str] = []
    for block in _blocks(columns, width - len(MARGIN)):
        lines += [*([""] if lines else []), *_draw(block, width - len(MARGIN))]
    return [f"{MARGIN}{line}".rstrip() for line in lines]


def histogram(steps: Mapping[int, int], screen: int) -> list[str]:
    """Lines of at most ``screen`` columns that show how many samples took how many steps (paper Fig. 9)."""
    first, last = min(steps), max(steps)
    width = -(-(last - first + 1) // HISTOGRAM_ROWS)
    counts = {
        start: sum(steps.get(count, 0) for count in range(start, start + width))
        for start in range(first, last + 1, width)
    }
    most = max(counts.values())
    names = {start: f"{start}" if width == 1 else f"{start}-{min(start + width - 1, last)}" for start in counts}
    column = max(7, *map(len, names.values()))
    bar = max(1, min(BAR, screen - column - len(" steps  ") - len(str(most))))
    return [
        f"{names[start]:>{column}} steps {'#' * round(bar * count / most):<{bar}} {count}"
        for start, count in counts.items()
    ]


@dataclass
class _Column:
    """One column, and how narrow it may be."""

    head: str
    cells: Sequence[str]
    named: bool = False

    def __post_init__(self) -> None:
        self.head, self.cells = _printable(self.head), [_printable(cell) for cell in self.cells]
        body = max(map(columns_of, self.cells), default=0)
        words = max(columns_of(word.rstrip()) for word in _head_words(self.head))
        self.wide = max(body, columns_of(self.head))
        self.tight = max(body, words)
        self.least = max(min(body, SHORTEST_NAME) if self.named else max(map(_least, self.cells), default=0), words)
        self.left = self.named or body > SENTENCE

    def lines_of(self, cell: str, width: int) -> list[str]:
        """A cell in ``width`` columns."""
        if columns_of(cell) <= width:
            return [cell]
        return [shorten(cell, width)] if self.named else list(_fill(cell.split(), width))

    def head_lines(self, width: int) -> list[str]:
        """The head in ``width`` columns."""
        lines: list[str] = []
        for word in _head_words(self.head):
            if lines and columns_of(f"{lines[-1]}{word}".rstrip()) <= width:
                lines[-1] += word
            else:
                lines.append(word)
        return [line.rstrip() for line in lines]


def _blocks(columns: Sequence[_Column], width: int) -> list[Sequence[_Column]]:
    """Columns in groups that fit beside each other."""
    if _total([column.least for column in columns]) <= width or len(columns) < 2:
        return [columns]
    key, others = columns[0], columns[1:]
    if len(set(key.cells)) < len(key.cells) or not all(key.cells):
        key, others = _Column("row", [str(i) for i in range(1, len(key.cells) + 1)]), columns
    blocks: list[list[_Column]] = [[key]]
    for column in others:
        if len(blocks[-1]) > 1 and _total([each.least for each in [*blocks[-1], column]]) > width:
            blocks.append([key])
        blocks[-1].append(column)
    return list(blocks)


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    for chosen in ([column.wide for column in columns], [column.tight for column in columns]):
        if _total(chosen) <= width:
            return chosen
    widths = [column.least for column in columns]
    spare = max(0, width - _total(widths))
    # Those that ask for least come first, so that what they leave goes to the others.
    order = sorted(range(len(columns)), key=lambda i: columns[i].tight - columns[i].least)
    for rank, i in enumerate(order):
        more = min(spare // (len(order) - rank), columns[i].tight - columns[i].least)
        widths[i] += more
        spare -= more
    return widths


def _draw(columns: Sequence[_Column], width: int) -> Iterator[str]:
    widths = _widths(columns, width)
    if any(column.head for column in columns):
        heads = [column.head_lines(size) for column, size in zip(columns, widths, strict=True)]
        deepest = max(map(len, heads))
        yield from _side_by_side(columns, [[""] * (deepest - len(head)) + head for head in heads], widths)
        yield GAP.join("-" * size for size in widths)
    for i in range(max(len(column.cells) for column in columns)):
        yield from _side_by_side(
            columns, [c.lines_of(c.cells[i], size) for c, size in zip(columns, widths, strict=True)], widths
        )


def _side_by_side(columns: Sequence[_Column], texts: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for i in range(max(map(len, texts))):
        cells = []
        for column, lines, size in zip(columns, texts, widths, strict=True):
            text = lines[i] if i < len(lines) else ""
            blank = " " * (size - columns_of(text))
            cells.append(text + blank if column.left else blank + text)
        yield GAP.join(cells)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _least(cell: str) -> int:
    """Columns below which a cell would be cut, or would stand on two lines though it is short."""
    if columns_of(cell) <= SENTENCE:
        return columns_of(cell)
    return max(columns_of(w) if _NUMBER.fullmatch(w) else min(columns_of(w), LONGEST_WORD) for w in cell.split())


def _head_words(head: str) -> list[str]:
    """Pieces of a head that lines may end after: words, and those of a setting's name."""
    return re.findall(r"[^\s_]*_|\S+\s*", head) or [""]


def _fill(words: Sequence[str], width: int) -> Iterator[str]:
    line = ""
    for word in words:
        if line and columns_of(line) + 1 + columns_of(word) <= width:
            line = f"{line} {word}"
            continue
        if line:
            yield line
        while columns_of(word) > width:
            piece = _start(word, width) or word[:1]
            yield piece
            word = word[len(piece) :]
        line = word
    if line:
        yield line


def _start(text: str, width: int) -> str:
    """As much of the beginning as fits."""
    width_so_far = 0
    for i, char in enumerate(text):
        width_so_far += _columns(char)
        if width_so_far > width:
            return text[:i]
    return text


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _printable(text: str) -> str:
    from grncli.runtime.text import printable  # with archives and all, which help texts do not need

    return printable(text)
