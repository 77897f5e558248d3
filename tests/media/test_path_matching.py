"""A path means the source that it is, or one that ends alike, however many sources have one name."""

import time

import pytest

from grncli.media.path_matching import SourceMatcher

SOURCES = ["data/a/1.png", "data/b/1.png", "a/b/1.png", "2.png", "c/2.png", "../c/3.png", "dd/a/4.png"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data/a/1.png", ["data/a/1.png"]),
        ("b/1.png", ["a/b/1.png", "data/b/1.png"]),
        ("/mnt/a/b/1.png", ["a/b/1.png"]),
        ("/mnt/c/2.png", ["2.png", "c/2.png"]),
        ("2.png", ["2.png"]),
        ("./c//3.png", ["../c/3.png"]),
        ("x/../c/3.png", ["../c/3.png"]),
        ("d/a/4.png", []),
        ("a/4.pn", []),
        ("1.png/", []),
        ("", []),
    ],
)
def test_sources_that_end_as_a_path_does_are_found(path, found):
    assert SourceMatcher(SOURCES).find(path) == found


def test_a_name_that_every_source_has_is_found_in_a_moment():
    folders = [f"{number:05}/images" for number in range(5000)]
    began = time.process_time()
    matcher = SourceMatcher(f"data/{folder}/frame.png" for folder in folders)
    assert all(matcher.find(f"{folder}/frame.png") == [f"data/{folder}/frame.png"] for folder in folders)
    assert time.process_time() - began < 2
