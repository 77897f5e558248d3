"""Plots of bits and rounds, as PNG or SVG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grncli.errors import UsageError
from grncli.media.writing import whole_file

if TYPE_CHECKING:
    from grncli.evaluation.bits import BitStatistics
    from grncli.evaluation.rounds import RoundStatistics

FORMATS = ("png", "svg")
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure that needs no display; UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure  # an optional extra
    except ImportError:
        raise UsageError("plots need the matplotlib package: pip install 'grncli[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of its suffix."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def plot_rounds(found: "RoundStatistics") -> Any:
    """Each metric against the number of rounds with the continuous level (paper Fig. 5), and the feature errors."""
    *rows, continuous = found.rows
    rounds = [row.rounds for row in rows]
    figure = new_figure(4 * (len(continuous.metrics) + 1), 3.4)
    *left, right = figure.subplots(1, len(continuous.metrics) + 1)
    for axes, (name, level) in zip(left, continuous.metrics.items(), strict=True):
        axes.plot(rounds, [row.metrics[name] for row in rows], "o-", color="#1f5fa8")
        axes.axhline(level, linestyle="--", color="#777777", label="continuous feature")
        axes.set(xlabel="rounds", ylabel=NAMES.get(name, name), xticks=rounds)
        axes.legend(loc="lower right")
    # The bound last, over the largest errors, which all but reach it.
    for name, style in (("largest_error", "o-"), ("mean_error", "s-"), ("bound", "k--")):
        right.semilogy(rounds, [getattr(row, name) for row in rows], style, base=2, label=name.replace("_", " "))
    right.set(xlabel="rounds", ylabel="feature error", xticks=rounds)
    right.legend()
    return figure


def plot_bits(found: "BitStatistics") -> Any:
    """Share of ones of each round and channel as a heat map: grey is balanced, blue mostly 0, red mostly 1."""
    rounds, channels = found.ones.shape
    figure = new_figure(max(5.0, 0.22 * channels + 2), 0.4 * rounds + 1.6)
    axes = figure.subplots()
    image = axes.imshow(found.ones, vmin=0, vmax=1, cmap="coolwarm", aspect="auto")
    axes.set(xlabel="channel", ylabel="round", yticks=np.arange(rounds), yticklabels=np.arange(1, rounds + 1))
    figure.colorbar(image, ax=axes, label="share of ones")
    return figure
