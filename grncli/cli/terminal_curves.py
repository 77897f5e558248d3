"""Curves on a terminal: panels beside each other, lines of braille dots, or of letters where there is no braille."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grncli.cli.terminal import columns_of, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from grncli.evaluation.curves import Curves, Line, Panel

WIDE = 72  # columns from which panels stand two abreast
LABEL = 8  # columns of the numbers at the left
AXES = 4  # lines of a panel beside its drawing: heading, axis, numbers, and an empty one
HEIGHTS = range(5, 13)  # lines of a drawing
ANSI = (34, 33, 32, 35, 31, 36)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of a braille character, from the top
BLANK = 0x2800
VERTICAL = "\N{BOX DRAWINGS LIGHT VERTICAL}"


@dataclass(frozen=True)
class Screen:
    """What a terminal can show: its size in characters, whether it has braille letters, and colours."""

    width: int
    height: int
    braille: bool = True
    colours: bool = False


def curve_lines(curves: "Curves", screen: Screen) -> Iterator[str]:
    """The lines of all panels, as high as together fill the screen, and what the lines are."""
    across = 2 if screen.width >= WIDE and len(curves.panels) > 1 else 1
    width = (screen.width - 2 * (across - 1)) // across
    down = -(-len(curves.panels) // across)
    height = min(max((screen.height - 2) // down - AXES, HEIGHTS[0]), HEIGHTS[-1])
    for start in range(0, len(curves.panels), across):
        texts = [_panel_lines(panel, width, height, screen) for panel in curves.panels[start : start + across]]
        for row in zip(*texts, strict=True):
            yield "  ".join(text + " " * (width - size) for text, size in row).rstrip()
    yield from _legend(curves, screen)


def _legend(curves: "Curves", screen: Screen) -> Iterator[str]:
    several = len(curves.names) > 1
    for place, name in enumerate(curves.names):
        mark = _letter(place) if several else ""
        text = shorten(name, screen.width - 2)
        yield _painted(f"{mark} {text}".strip(), place, screen) if several else text
    if curves.held_out:
        yield "dotted: on what is held out"


def _panel_lines(panel: "Panel", width: int, height: int, screen: Screen) -> list[tuple[str, int]]:
    """Each line of a panel with the columns it takes."""
    letters = len({line.run for line in panel.lines}) > 1
    room = width - LABEL - 2 - (2 if letters else 0)
    _, right, low, high = panel.limits
    if panel.name == "ratio":
        right = 100.0
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    up = _ticks(low, high, 2)
    if panel.logarithmic:
        low, high, up = math.log10(low), math.log10(high), [low, math.sqrt(low * high), high]
    rows = _drawing(panel, (room, height), (right, low, high), screen)
    places = {_row(value, low, high, height, panel.logarithmic): value for value in up}
    ends = _ends(panel, low, high, height) if letters else {}
    last = "" if letters or panel.name == "ratio" else f"{panel.lines[-1].y[-1]:.4g}"
    heading = shorten(panel.heading, width - len(last) - 1)
    lines = [(heading + " " * (width - columns_of(heading) - len(last)) + last, width)]
    for row, (text, _) in enumerate(rows):
        label = f"{places[row]:.4g}" if row in places else ""
        end = f" {_painted(_letter(ends[row]), ends[row], screen)}" if row in ends else ""
        edge = VERTICAL if screen.braille else "|"
        lines.append((f"{label:>{LABEL}} {edge}{text}{end}", LABEL + 2 + room + (2 if end else 0)))
    corner, bar = (
        ("\N{BOX DRAWINGS LIGHT UP AND RIGHT}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}") if screen.braille else "+-"
    )
    lines.append((f"{'':{LABEL}} {corner}{bar * room}", LABEL + 2 + room))
    numbers = f"{'':{LABEL + 2}}{_scale(right, room, panel.x_label)}"
    return [*lines, (numbers, len(numbers)), ("", 0)]


def _scale(right: float, room: int, label: str) -> str:
    """What stands below an axis from 0: both ends of it, and between them what it counts."""
    end = f"{right:.6g}"
    return f"0{label:^{room - 1 - len(end)}}{end}"


def _drawing(
    panel: "Panel", size: tuple[int, int], limits: tuple[float, float, float], screen: Screen
) -> list[tuple[str, int]]:
    """Rows of characters, each with the columns it takes."""
    width, height = size
    dots = DOTS if screen.braille else np.ones((1, 1), int)
    cells, owners = np.zeros((height, width), int), np.full((height, width), -1)
    for line in panel.lines:
        row, column = _raster(line, limits, (width * dots.shape[1], height * dots.shape[0]), panel.logarithmic)
        bits = dots[row % dots.shape[0], column % dots.shape[1]]
        place = row // dots.shape[0], column // dots.shape[1]
        np.bitwise_or.at(cells, place, bits)
        owners[place] = line.run
    rows = []
    for drawn, runs in zip(cells.tolist(), owners.tolist(), strict=True):
        text = ""
        for bits, run in zip(drawn, runs, strict=True):
            char = chr(BLANK + bits) if screen.braille and bits else _letter(run) if bits else " "
            text += _painted(char, run, screen) if bits and len({line.run for line in panel.lines}) > 1 else char
        rows.append((text, width))
    return rows


def _raster(
    line: "Line", limits: tuple[float, float, float], size: tuple[int, int], logarithmic: bool
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Row and column of each dot of a line: all along it, or every other where it is of what is held out."""
    right, low, high = limits
    y = np.log10(line.y) if logarithmic else line.y
    across = line.x / (right or 1) * (size[0] - 1)
    down = (high - y) / (high - low) * (size[1] - 1)
    if len(across) > 1:
        # As many dots between two points as they are apart, so that steep lines have no holes.
        steps = np.maximum(1, np.ceil(np.hypot(np.diff(across), np.diff(down)))).astype(int)
        at = np.concatenate([i + np.arange(count) / count for i, count in enumerate(steps)] + [[len(across) - 1.0]])
        across, down = (np.interp(at, np.arange(len(values)), values) for values in (across, down))
    if line.held_out:
        across, down = across[::3], down[::3]
    return down.round().astype(np.int64), across.round().astype(np.int64)


def _ends(panel: "Panel", low: float, high: float, height: int) -> dict[int, int]:
    """The row beside which each run's letter stands: where its line ends, or the nearest that is free."""
    ends: dict[int, int] = {}
    for line in panel.lines:
        if line.held_out or line.run in ends.values():
            continue
        row = _row(float(line.y[-1]), low, high, height, panel.logarithmic)
        free = [place for place in range(height) if place not in ends]
        if free:
            ends[min(free, key=lambda place: abs(place - row))] = line.run
    return ends


def _row(value: float, low: float, high: float, height: int, logarithmic: bool) -> int:
    value = math.log10(value) if logarithmic else value
    return round((high - value) / (high - low) * (height - 1))


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers between two, at least ``wanted`` of them: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    step = 10.0 ** math.ceil(math.log10(high - low))
    for factor in (1, 0.5, 0.2, 0.1):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 >= wanted:
            break
    return [number * step * factor for number in range(first, last + 1)]


def _letter(run: int) -> str:
    return LETTERS[run % len(LETTERS)]


def _painted(text: str, run: int, screen: Screen) -> str:
    return f"\x1b[{ANSI[run % len(ANSI)]}m{text}\x1b[0m" if screen.colours else text
