"""Plots of bits, rounds, steps and searches."""

from typing import TYPE_CHECKING, Any

import numpy as np

from grncli.evaluation.drawing import BLUE, GREY, ORANGE, new_figure, style

if TYPE_CHECKING:
    from grncli.bit_statistics.survey import BitStatistics
    from grncli.evaluation.halving import Search
    from grncli.evaluation.rounds import RoundStatistics
    from grncli.evaluation.sampling_costs import Cost
    from grncli.evaluation.search_folder import Trial

MOST_MARKS = 2000  # beyond, they are one picture: a page of 50,000 samples would be megabytes larger


@style()
def plot_rounds(statistics: "RoundStatistics") -> Any:
    """Each metric against the number of rounds with the continuous level (paper Fig. 5), and the feature errors."""
    from grncli.metrics.quality import NAMES  # with torch, which plots of bits do without

    *rows, continuous = statistics.rows
    rounds = [row.rounds for row in rows]
    figure = new_figure(4 * (len(continuous.metrics) + 1), 3.4)
    *left, right = figure.subplots(1, len(continuous.metrics) + 1)
    for axes, (name, level) in zip(left, continuous.metrics.items(), strict=True):
        axes.plot(rounds, [row.metrics[name] for row in rows], "o-", color=BLUE)
        axes.axhline(level, linestyle="--", color=GREY, label="continuous feature")
        axes.set(xlabel="rounds", ylabel=NAMES[name], xticks=rounds)
        axes.legend(loc="lower right")
    # The bound last, over the largest errors, which all but reach it.
    for name, marks in (("largest_error", "o-"), ("mean_error", "s-"), ("bound", "--")):
        right.semilogy(rounds, [getattr(row, name) for row in rows], marks, base=2, label=name.replace("_", " "))
    right.set(xlabel="rounds", ylabel="feature error (features are in -1 to 1)", xticks=rounds)
    right.legend()
    return figure


@style()
def plot_bits(statistics: "BitStatistics") -> Any:
    """Share of ones of each round and channel as a heat map: grey is balanced, blue mostly 0, red mostly 1."""
    rounds, channels = statistics.ones.shape
    figure = new_figure(max(5.0, 0.22 * channels + 2), 0.4 * rounds + 1.6)
    axes = figure.subplots()
    image = axes.imshow(statistics.ones, vmin=0, vmax=1, cmap="coolwarm", aspect="auto")
    axes.set(xlabel="channel", ylabel="round", yticks=np.arange(rounds), yticklabels=np.arange(1, rounds + 1))
    figure.colorbar(image, ax=axes, label="share of ones")
    return figure


@style()
def plot_steps(cost: "Cost") -> Any:
    """How many samples took how many steps (paper Fig. 9), and the entropies that decided it (Eq. 8 and 9)."""
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    left.bar(list(cost.steps), list(cost.steps.values()), width=0.9, color=BLUE)
    left.axvline(cost.mean_steps, linestyle="--", color=ORANGE, label=f"mean {cost.mean_steps:.1f}")
    left.set(xlabel="refinement steps", ylabel="samples")
    left.legend()
    many = len(cost.steps_by_entropy) > MOST_MARKS
    right.plot(*cost.steps_by_entropy.T, ".", color=BLUE, alpha=0.4, rasterized=many)
    right.set(xlabel="entropy of the prediction (1 is a uniform one)", ylabel="refinement steps")
    return figure


@style()
def plot_search(result: "Search") -> Any:
    """What decides, over the grid: a map of two settings, else each setting by itself. Pruned points are pale."""
    varied = [name for name, values in result.grid.items() if len(values) > 1] or list(result.grid)
    if len(varied) == 2:
        return _plot_map(result, varied[0], varied[1])
    figure = new_figure(4 * len(varied), 3.4)
    most = result.best.per_class
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(varied))), varied, strict=True):
        places = {str(value): place for place, value in enumerate(result.grid[name])}
        for trial in result.trials:
            paleness = 1.0 if trial.per_class == most else 0.4
            axes.plot(places[str(trial.point[name])], trial.figure(result.by), "o", color=BLUE, alpha=paleness)
        axes.set(xlabel=name, ylabel=result.label, xticks=range(len(places)), xticklabels=list(places))
    return figure


def _plot_map(result: "Search", down: str, across: str) -> Any:
    rows, columns = result.grid[down], result.grid[across]
    by_place: dict[tuple[int, int], Trial] = {
        (rows.index(trial.point[down]), columns.index(trial.point[across])): trial for trial in result.trials
    }
    values = np.full((len(rows), len(columns)), np.nan)
    for place, trial in by_place.items():
        values[place] = trial.figure(result.by)
    figure = new_figure(1.2 * len(columns) + 2.5, 0.8 * len(rows) + 1.6)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis_r" if result.by == "distance" else "viridis", aspect="auto")
    for (row, column), trial in by_place.items():
        final = trial.per_class == result.best.per_class
        value = trial.figure(result.by)
        text = f"{value:.4g}" if final else f"{value:.4g}\nof {trial.samples}"
        dark = (image.norm(value) > 0.5) == (result.by == "distance")
        box = {"boxstyle": "round", "fc": "none", "ec": "red"} if trial is result.best else None
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", bbox=box, size=8)
    axes.set(xlabel=across, ylabel=down, xticks=range(len(columns)), yticks=range(len(rows)))
    axes.set_xticklabels([str(value) for value in columns])
    axes.set_yticklabels([str(value) for value in rows])
    pruned = ", pruned points of fewer samples" if len({trial.samples for trial in result.trials}) > 1 else ""
    figure.colorbar(image, ax=axes, label=f"{result.label}{pruned}")
    return figure
