"""Sizes of samples: in tokens, in pixels and frames, and as a budget with an aspect ratio."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.models.aspect_ratios import TEMPLATES
from grncli.runs.generator_recipe import Bits
from grncli.runtime.errors import UsageError
from grncli.sampling.sample_grid import asked_grid, choose_grid, describe_grid
from grncli.sampling.settings import SampleOptions


def grid(stride=(4, 16, 16), grids=None, **options):
    bits = Bits(tokenizer={}, stride=stride, labels=(), grids=grids or {"1x16x16": 3})
    return asked_grid(SampleOptions(**options), bits)


def test_the_grid_is_the_most_frequent_of_training():
    assert choose_grid(None, {"1x4x4": 3, "5x4x4": 8}) == (5, 4, 4)
    assert grid(grids={"1x4x4": 3, "5x4x4": 8}) == (5, 4, 4)


@pytest.mark.parametrize("text", ["4x4", "1x0x4", "1x4x4x4", "big"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--grid"):
        choose_grid(text, {"1x4x4": 3})


def test_a_grid_is_told_in_pixels():
    assert describe_grid((1, 16, 21), (4, 16, 8)) == "pictures of 256x168 pixels (1x16x21 tokens)"
    assert describe_grid((21, 30, 53), (4, 16, 16)) == "clips of 81 frames of 480x848 pixels (21x30x53 tokens)"


def test_pixels_are_height_by_width():
    assert grid(size="480x848", frames=81) == (21, 30, 53)


def test_what_is_left_open_is_that_of_training():
    assert grid(frames=9, grids={"1x16x16": 3}) == (3, 16, 16)
    assert grid(size="64x32", grids={"5x4x4": 8}) == (5, 4, 2)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"budget": "1M", "ratio": "16:9"}, (1, 48, 85)),  # facts section 4: sqrt(64^2 / 0.562) across
        ({"budget": "0.41M", "ratio": "16:9"}, (1, 30, 53)),
        ({"budget": "1M"}, (1, 64, 64)),
        ({"ratio": "1:3"}, (1, 28, 9)),  # of the area of training
        ({"budget": "32x32", "stride": (2, 4, 4)}, (1, 8, 8)),
    ],
)
def test_a_budget_is_an_area_in_pixels_whatever_the_stride(options, tokens):
    assert grid(**options) == tokens


@given(ratio=st.sampled_from(TEMPLATES), budget=st.sampled_from(["0.06M", "0.41M", "1M", "2M"]))
def test_every_ratio_fills_its_budget(ratio, budget):
    _, height, width = grid(budget=budget, ratio=f"1:{ratio}")
    _, side, _ = grid(budget=budget, ratio="1:1")
    assert height * width == pytest.approx(side**2, rel=0.06)


@pytest.mark.parametrize(("frames", "nearest"), [(80, ("77", "81")), (2, ("1", "5"))])
def test_frames_that_are_no_whole_tokens_are_refused_and_the_nearest_named(frames, nearest):
    with pytest.raises(UsageError, match=rf"--frames {frames}: .*1 \+ 4n.*expected {nearest[0]} or {nearest[1]}"):
        grid(frames=frames)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "480x850"}, "--size 480x850: .*480x848"),
        ({"size": "480"}, "--size 480: expected HEIGHTxWIDTH"),
        ({"grid": "1x4x4", "size": "64x64"}, "--grid 1x4x4 with --size 64x64"),
        ({"grid": "1x4x4", "frames": 9}, "--grid 1x4x4 with --frames 9"),
        ({"size": "64x64", "budget": "1M"}, "--size 64x64 with --budget 1M"),
        ({"size": "64x64", "ratio": "1:1"}, "--size 64x64 with --ratio 1:1"),
        ({"budget": "9M"}, "--budget 9M"),
        ({"ratio": "16/9"}, "--ratio 16/9"),
        ({"budget": "1M", "stride": (4, 16, 8)}, "16x8 pixels"),
    ],
)
def test_sizes_that_contradict_each_other_or_are_none_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        grid(**options)
