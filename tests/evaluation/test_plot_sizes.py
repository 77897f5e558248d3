"""Plots stay of a size that a page can have, however many samples there are."""

import numpy as np

from grncli.evaluation.drawing import inline_svg
from grncli.evaluation.plots import plot_steps
from grncli.evaluation.sampling_costs import Cost


def test_steps_of_many_samples_are_a_small_drawing():
    pairs = np.random.default_rng(0).uniform(0, 50, (20_000, 2))
    steps = {20: 8_000, 50: 12_000}
    cost = Cost(
        samples=20_000, steps=steps, mean_steps=38.0, nfe=70.0, seconds=None, settings={}, steps_by_entropy=pairs
    )
    drawn = inline_svg(plot_steps(cost), "steps")
    assert "data:image/png;base64," in drawn
    assert len(drawn) < 300_000
