"""``grn plot``: the curves of trainings."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.terminal import screen_width
from grncli.reporting.report_files import PLOT_SUFFIXES
from grncli.runtime.files import check_file


@examples(
    "grn plot runs/gen",
    "grn plot runs/gen-* --metrics loss,accuracy --out curves.svg",
)
@guarded
def plot(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Run directories of trainings.", show_default=False)],
    out: Annotated[
        Path | None, Option(metavar="FILE.png|svg|pdf", help="Write a picture instead of drawing on the terminal.")
    ] = None,
    metrics: Annotated[
        str | None,
        Option(
            metavar="A,B,...",
            help="Panels: loss, accuracy, ratio (accuracy by known tokens), psnr, ssim, rate, speed, waiting, "
            "gradient, or any number of metrics.jsonl; default: all of these but gradient.",
        ),
    ] = None,
    over: Annotated[
        Literal["step", "time"], Option(help="What is across: the step, or the time spent training.")
    ] = "step",
    json: options.Json = False,
) -> None:
    """Draw the curves of trainings: loss, accuracy, PSNR, rate.

    One run or several in the same panels, finished or still being trained. Dashes (on a terminal dots) are of what is
    held out.
    """
    if out is not None:
        check_file(out, PLOT_SUFFIXES)
    from grncli.evaluation.curves import read_curves  # only here: with numpy

    curves = read_curves(runs, metrics=None if metrics is None else metrics.replace(" ", "").split(","), over=over)
    if out is not None:
        from grncli.evaluation.curve_plots import draw_curves
        from grncli.evaluation.drawing import save_figure

        save_figure(draw_curves(curves), out)
        say(f"{out}: {len(curves.panels)} panels of {', '.join(curves.names)}")
    if json:
        print_json(curves.to_json())
    elif out is None:
        from grncli.cli.terminal_curves import Screen, curve_lines

        unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        screen = Screen(screen_width(), shutil.get_terminal_size().lines, unicode, coloured)
        for line in curve_lines(curves, screen):
            print(line)
