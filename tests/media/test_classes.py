"""Which directory is the class: levels, counts, and classes that cannot be meant."""

import time

import pytest

from grncli.media.classes import ClassLevel, doubts, find_classes
from grncli.media.label_forms import parse_labels
from grncli.media.listing import list_sources
from grncli.media.sources import Source
from grncli.runtime.errors import UsageError


@pytest.fixture
def listed(tmp_path, make_image):
    """Lists files of these names, made below a folder."""

    def make(*names):
        for name in names:
            make_image(f"src/{name}")
        return list_sources(str(tmp_path / "src")).sources

    return make


def classes_of(sources, text="dirs", taken=None):
    level = parse_labels(text)
    assert level is not None
    return find_classes(sources, sources if taken is None else taken, level, "src")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("dirs", "c"), ("dirs:-1", "c"), ("dirs:-2", "b"), ("dirs:-3", "a"), ("dirs:-4", None)),
        *(("dirs:1", "a"), ("dirs:2", "b"), ("dirs:3", "c"), ("dirs:4", None)),
    ],
)
def test_a_level_names_the_directory(listed, text, expected):
    (source,) = listed("a/b/c/1.png")
    level = parse_labels(text)
    assert level is not None
    assert level.of(source) == expected


def test_the_parent_directory_has_one_name():
    assert str(parse_labels("dirs:-1")) == "dirs"
    assert str(parse_labels("dirs:1")) == "dirs:1"


def test_no_labels_have_no_level():
    assert parse_labels("none") is None


@pytest.mark.parametrize("text", ["", "dirs:", "dirs:0", "dirs:x", "dirs:1.5", "dirs:+1", "Dirs", "dirs:-0", "dirs:1 "])
def test_what_is_no_level_is_refused(text):
    with pytest.raises(UsageError, match="expected none, dirs "):
        parse_labels(text)


def test_names_that_cannot_be_shown_are_escaped_at_every_level(tmp_path):
    source = Source("x", "image", "x", relative="a\udcff/b\n/1.png", label="b\\n")
    assert [ClassLevel(level).of(source) for level in (1, 2, -2)] == ["a\\xff", "b\\n", "a\\xff"]


def test_classes_are_counted_over_what_is_taken_and_named_by_all(listed):
    sources = listed("cat/1.png", "cat/2.png", "dog/1.png", "owl/1.png", "top.png")
    classes = classes_of(sources, taken=[source for source in sources if source.label != "owl"])
    assert classes.names == ("cat", "dog", "owl")
    assert str(classes) == "2 classes: cat (2), dog (1); 1 source has no class"


def test_many_classes_are_shown_shortened(listed):
    classes = classes_of(listed(*(f"{number}/1.png" for number in range(11))))
    assert str(classes) == "11 classes: 0 (1), 1 (1), 2 (1), 3 (1), 4 (1), 5 (1) and 5 more"


def test_no_class_at_all_is_refused(listed):
    with pytest.raises(UsageError, match="--labels dirs: src has no class directories"):
        classes_of(listed("1.png", "2.png"))
    with pytest.raises(
        UsageError, match="--labels dirs:3: no source of src has a directory at that level, the deepest"
    ):
        classes_of(listed("a/1.png", "a/2.png"), "dirs:3")


def doubt(sources, text="dirs"):
    return doubts(classes_of(sources, text), sources)


def test_one_class_of_everything_is_reported_with_the_level_that_divides(listed):
    sources = listed(*(f"{name}/images/{number}.png" for name in ("cat", "dog", "owl") for number in range(2)))
    assert doubt(sources) == (
        "--labels dirs: all sources are of one class, images; --labels dirs:-2 gives 3 (cat, dog, ...)"
    )
    assert doubt(sources, "dirs:1") is None


def test_one_class_without_a_better_level_is_reported(listed):
    assert doubt(listed("cat/1.png", "cat/2.png")) == "--labels dirs: all sources are of one class, cat"


def test_a_class_for_each_source_is_reported(listed):
    sources = listed(*(f"{number % 2}/{number}/frame.png" for number in range(10)))
    assert doubt(sources) == (
        "--labels dirs: each of 10 sources is a class of its own; --labels dirs:-2 gives 2 (0, 1, ...)"
    )


def test_as_many_classes_as_sources_are_found_in_a_moment():
    names = [f"{number:05}" for number in range(20_000)]
    sources = [Source(name, "image", name, label=name, relative=f"{name}/frame.png") for name in names]
    began = time.process_time()
    assert classes_of(sources).names == tuple(names)
    assert find_classes(sources, sources, ClassLevel(), "src", names).names == tuple(names)
    assert time.process_time() - began < 1


def test_plain_class_folders_are_not_doubted(listed):
    assert doubt(listed("cat/1.png", "dog/1.png")) is None
    assert doubt(listed("only/1.png")[:1]) is None
