"""Which reconstruction is whose, by the names alone."""

import pytest

from grncli.decoding.outputs import file_name
from grncli.evaluation.pair_names import match
from grncli.media.sources import Source
from grncli.runtime.errors import UsageError

LONG = "日" * 83 + "ab.png"


def sources(names, root):
    return [Source(f"{root}/{name}", "image", f"{root}/{name}", relative=name) for name in names]


def pairs(ours, theirs):
    found = match(sources(ours, "in"), sources(theirs, "out"), "in", "out")
    return {left.relative: right.relative for left, right in found}


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "a.bmp"],
        ["a.bmp", "a.png"],
        ["a.png", LONG],
        ["x.tar.png", "x.tar", "x.png"],
        ["b/a.jpg", "a.jpg.png"],
    ],
)
def test_what_decode_writes_is_found_again(names):
    expected = {name: file_name({"key": name}, ".png") for name in names}
    assert pairs(names, sorted(expected.values())) == expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["a.png", "b.png"], ["a.jpg", "b.webp"]),
        (["a.png", "a.jpg"], ["a.png", "a.webp"]),
        (["a.jpg"], ["a.png"]),
        (["a.png"], ["a.jpg.png"]),
    ],
)
def test_suffixes_may_differ(ours, theirs):
    assert pairs(ours, theirs) == dict(zip(ours, theirs, strict=True))


def test_two_that_fit_one_are_refused():
    with pytest.raises(UsageError, match=r"in/a\.png and in/a\.jpg both fit out/a\.png"):
        pairs(["a.png", "a.jpg"], ["a.png", "c.png"])
    with pytest.raises(UsageError, match=r"in/b\.png has no partner in out"):
        pairs(["a.png", "b.png"], ["a.png", "c.png"])
