"""Grids of decoding settings as they are asked for, and how a search halves them."""

import pytest

from grncli.evaluation.grids import parse_grid
from grncli.evaluation.halving import rounds_of, trials_in
from grncli.runtime.errors import UsageError

# The grid


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        (["temperature=1.0,1.2"], {"temperature": [1.0, 1.2]}),
        (["temperature=1"], {"temperature": [1.0]}),
        (["guidance=1.5:3:0.5"], {"guidance": [1.5, 2.0, 2.5, 3.0]}),
        (["guidance=1:1.3:0.1"], {"guidance": [1.0, 1.1, 1.2, 1.3]}),
        (["guidance=1:2:0.4,5"], {"guidance": [1.0, 1.4, 1.8, 5.0]}),
        (["steps=4:8:2"], {"steps": [4, 6, 8]}),
        (["schedule=linear,cosine"], {"schedule": ["linear", "cosine"]}),
        (["adapt_temperature=true,false"], {"adapt_temperature": [True, False]}),
        (["guidance_interval=0.4:1,0:1"], {"guidance_interval": ["0.4:1", "0:1"]}),
        (["temperature=1,1.0,2"], {"temperature": [1.0, 2.0]}),
        (["temperature=1", "steps=9"], {"temperature": [1.0], "steps": [9]}),
    ],
)
def test_a_grid_has_values_ranges_and_names(texts, grid):
    assert parse_grid(texts) == grid


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["temperature"],
        ["temperature="],
        ["temperature=warm"],
        ["temperature=nan"],
        ["temperature=1,,2"],
        ["temperature=1", "temperature=2"],
        ["guidance=3:1:0.5"],
        ["guidance=1:3:0"],
        ["guidance=1:3"],
        ["guidance=1:3:1e-9"],
        ["steps=1.5"],
        ["steps=1:2:0.5"],
        ["schedule=quick"],
        ["adapt_temperature=yes"],
        ["seed=1,2"],
        ["per_class=4"],
        ["=1"],
    ],
)
def test_what_is_no_grid_is_refused(texts):
    with pytest.raises(UsageError, match="--grid"):
        parse_grid(texts)


# Halving


@pytest.mark.parametrize(
    ("per_class", "halvings", "rounds"),
    [
        (50, 2, [12, 25, 50]),
        (8, 0, [8]),
        (8, 2, [2, 4, 8]),
        (8, 9, [2, 4, 8]),
        (3, 2, [3]),
        (1, 1, [1]),
        (5, 1, [2, 5]),
    ],
)
def test_each_round_has_half_the_samples_of_the_next_but_never_less_than_two(per_class, halvings, rounds):
    assert rounds_of(per_class, halvings) == rounds


@pytest.mark.parametrize(("points", "rounds", "trials"), [(4, 3, 7), (5, 3, 10), (1, 2, 2), (9, 1, 9)])
def test_half_of_the_points_leave_after_each_round(points, rounds, trials):
    assert trials_in(points, rounds) == trials
