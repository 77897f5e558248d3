"""Which sources are taken: the first so many, or a draw by their names."""

from itertools import pairwise

import pytest

from grncli.media.selection import Selection
from grncli.runtime.errors import UsageError

NAMES = [f"{name}/{number:03d}.png" for name in ("ant", "bee", "cat") for number in range(40)]


def taken(names, **options):
    return [names[place] for place in Selection(**options).places(names, len(names))]


def test_all_are_taken_unless_asked_otherwise():
    assert taken(NAMES) == NAMES
    assert Selection().takes_all


@pytest.mark.parametrize("count", [1, 7, 120, 500])
def test_a_limit_takes_the_first(count):
    assert taken(NAMES, limit=count) == NAMES[:count]


@pytest.mark.parametrize("count", [1, 7, 119, 120, 500])
def test_a_draw_has_as_many_as_asked_for_and_there_are(count):
    assert len(taken(NAMES, sample=count)) == min(count, len(NAMES))


def test_a_smaller_draw_is_part_of_every_larger_one():
    draws = [set(taken(NAMES, sample=count)) for count in range(1, 121)]
    assert all(small < large for small, large in pairwise(draws))


def test_a_draw_keeps_the_order():
    assert taken(NAMES, sample=30) == sorted(taken(NAMES, sample=30))


def test_a_draw_depends_on_names_and_not_on_their_order():
    assert set(taken(NAMES[::-1], sample=30)) == set(taken(NAMES, sample=30))


def test_a_draw_is_the_same_in_every_version():
    assert taken(NAMES, sample=4) == ["ant/018.png", "ant/030.png", "bee/023.png", "cat/012.png"]


def test_a_draw_takes_of_all_classes():
    assert {name.split("/")[0] for name in taken(NAMES, sample=20)} == {"ant", "bee", "cat"}


@pytest.mark.parametrize("name", ["\udcff.png", "\ud800", "", "Füße/你好.png"])
def test_any_name_can_be_drawn(name):
    assert name in taken([name, "b"], sample=1) + taken(["b", name], sample=2)


def test_a_limit_and_a_draw_exclude_each_other():
    with pytest.raises(UsageError, match="--limit 3 with --sample 5: expected one of the two"):
        Selection(limit=3, sample=5)


CLASSES = [name.split("/")[0] for name in NAMES]


def doubt(classes=CLASSES, **options):
    selection = Selection(**options)
    return selection.doubt(classes, selection.places(map(str, range(len(classes))), len(classes)))


def test_a_limit_that_leaves_one_class_of_several_is_reported_with_the_remedy():
    assert doubt(limit=40) == "--limit 40: takes one class only (ant) of 3; --sample 40 draws from all"


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (CLASSES, {"limit": 41}),
        (CLASSES, {"limit": 1}),
        (CLASSES, {"sample": 2}),
        (CLASSES, {}),
        (["ant"] * 9, {"limit": 3}),
        ([None] * 9, {"limit": 3}),
        (["ant", None, "bee"], {"limit": 2}),
    ],
)
def test_other_choices_are_not_doubted(classes, options):
    assert doubt(classes, **options) is None
