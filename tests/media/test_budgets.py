"""Pixel budgets and aspect ratios, as people write them."""

import pytest

from grncli.media.budgets import BUDGETS, Budget, parse_budget, parse_ratio
from grncli.models.aspect_ratios import TEMPLATES, nearest_template
from grncli.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("budget", "ratio", "grid"),
    [
        ("0.06M", "1:1", (16, 16)),
        ("0.06M", "16:9", (12, 21)),
        ("0.06M", "9:16", (21, 12)),
        ("0.41M", "16:9", (30, 53)),  # 480x848
        ("1M", "1:1", (64, 64)),
        ("1M", "3:1", (37, 111)),
    ],
)
def test_a_budget_gives_each_ratio_its_grid(budget: str, ratio: str, grid: tuple[int, int]) -> None:
    assert parse_budget(budget).tokens(parse_ratio(ratio), 16) == grid


def test_a_budget_is_an_area_whatever_the_stride() -> None:
    assert parse_budget("32x32").tokens(1.0, 8) == (4, 4)
    assert parse_budget("256x256") == Budget(BUDGETS["0.06M"])
    for height, width in Budget(BUDGETS["1M"]).grids(8).values():
        assert 0.97 < height * width / 128**2 < 1.03


def test_every_grid_of_a_budget_finds_its_own_template() -> None:
    for pixels in BUDGETS.values():
        for template, (height, width) in Budget(pixels).grids(16).items():
            assert nearest_template(height / width) == pytest.approx(template, abs=0.06)


def test_templates_are_cut_and_not_rounded() -> None:
    exact = [3, 5 / 2, 2, 16 / 9, 3 / 2, 4 / 3, 1.16, 1, 1 / 1.16, 3 / 4, 2 / 3, 9 / 16, 1 / 2, 2 / 5, 1 / 3]
    assert [int(1000 * ratio + 1e-9) / 1000 for ratio in exact] == list(TEMPLATES)


@pytest.mark.parametrize("text", ["", "1m", "0x5", "32", "32x", "99999x99999", "-1x4", "3M"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["", "16/9", "0:1", "16:0", "100:1", "a:b"])
def test_a_ratio_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--ratio"):
        parse_ratio(text)
