"""Curves of runs drawn with matplotlib: as a figure for a file, and as SVG for a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grncli.evaluation.curves import Curves, Over, Panel, read_curves
from grncli.evaluation.drawing import COLOURS, INK, inline_svg, new_figure, style

PANEL = (3.6, 2.5)  # inches
LEGEND = 0.35


def curves_svg(
    runs: Sequence[Path], *, metrics: Sequence[str] | None = None, over: Over = "step", columns: int = 3
) -> str:
    """The curves of runs as an ``<svg>`` element for a page, see `inline_svg` and `read_curves`.

    Raises
    ------
    CheckpointError
        If a run has no log, or a damaged one.
    UsageError
        If no log holds a metric that was named, or matplotlib is not installed.
    """
    curves = read_curves(runs, metrics=metrics, over=over)
    return inline_svg(draw_curves(curves, columns=columns), curves.description)


@style()
def draw_curves(curves: Curves, *, columns: int = 3) -> Any:
    """A matplotlib figure: a panel for each quantity, a colour for each run, dashes for what is held out."""
    across = min(columns, len(curves.panels))
    down = -(-len(curves.panels) // across)
    figure = new_figure(PANEL[0] * across, PANEL[1] * down + LEGEND)
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.09)
    colours = _colours(len(curves.names))
    places = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, panel in zip(places, curves.panels, strict=False):
        _draw_panel(axes, panel, colours)
        if len(curves.names) == 1 and panel.name != "ratio":
            axes.set_title(f"{panel.lines[-1].y[-1]:.4g}", loc="right")
    for axes in places[len(curves.panels) :]:
        axes.remove()
    _legend(figure, curves, colours)
    return figure


def _draw_panel(axes: Any, panel: Panel, colours: Sequence[Any]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator  # an optional extra

    for line in panel.lines:
        # One value is a point, which a line without a marker would not show.
        marker = "." if len(line.x) < 2 or panel.name == "ratio" else ""
        axes.plot(
            *(line.x, line.y),
            color=colours[line.run],
            linestyle="--" if line.held_out else "-",
            linewidth=1.5,
            marker=marker,
            alpha=1 - 0.6 * line.age,
            label=line.label or None,
        )
    axes.set_title(panel.heading, loc="left", weight="bold")
    axes.set_xlabel(panel.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=panel.x_label == "step"))
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    if panel.name == "waiting":
        axes.set_ylim(bottom=0)
    axes.set_xlim(0, 100 if panel.name == "ratio" else 1.02 * panel.limits[1] or 1)
    if panel.name == "ratio" and any(line.label for line in panel.lines):
        axes.legend(loc="best")


def _legend(figure: Any, curves: Curves, colours: Sequence[Any]) -> None:
    """Above all panels: which colour is which run, and what dashes are."""
    from matplotlib.lines import Line2D  # an optional extra

    # Names are no formulas.
    names = [name.replace("$", r"\$") for name in curves.names]
    handles = [Line2D([], [], color=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    if curves.held_out:
        handles.append(Line2D([], [], color=INK, linestyle="--", label="held out"))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 6))


def _colours(count: int) -> Sequence[Any]:
    """One for each run; of more than there are names for, a scale from the first to the last."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    from matplotlib import colormaps  # an optional extra

    return [colormaps["turbo"](0.08 + 0.84 * place / (count - 1)) for place in range(count)]
