"""A manifest lists the media it names, relative to itself, with what it says of them."""

import json

import pytest

from grncli.media.listing import ListingOptions, list_sources
from grncli.runtime.errors import UsageError


@pytest.fixture
def folder(tmp_path, make_image):
    """Pictures below a folder that is not the working directory, and one outside of it."""
    for name in ("m/a/1.png", "m/b/2.png", "out.png"):
        make_image(name)
    (tmp_path / "m/v.mp4").touch()
    return tmp_path / "m"


def listed(folder, rows, name="list.jsonl", **options):
    path = folder / name
    path.write_text(rows if isinstance(rows, str) else "".join(f"{json.dumps(row)}\n" for row in rows))
    return list_sources(str(path), ListingOptions(**options)).sources


def test_paths_are_relative_to_the_manifest_and_keep_its_order(folder):
    first, second = listed(folder, "path,caption\nb/2.png,two\n./a/1.png,one\n", "list.csv")
    assert (first.relative, second.relative) == ("b/2.png", "a/1.png")
    assert (second.path, second.name, second.label) == (f"{folder}/a/1.png", f"{folder}/a/1.png", "a")
    assert [source.row.captions.captions[0].text for source in (first, second)] == ["two", "one"]
    assert [source.problem for source in (first, second)] == [None, None]


def test_a_manifest_in_the_working_directory_lists_short_names(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "list.csv").write_text(f"path\na/1.png\n{folder}/b/2.png\n")
    assert [(s.path, s.relative) for s in list_sources("list.csv").sources] == [("a/1.png",) * 2, ("b/2.png",) * 2]


def test_two_stretches_of_a_clip_are_two_sources(folder):
    rows = [{"path": "v.mp4", "begin": 0, "end": 1.5}, {"path": "v.mp4", "begin": 1.5, "end": 4}, {"path": "v.mp4"}]
    sources = listed(folder, rows)
    assert [source.relative for source in sources] == ["v@0-1.5.mp4", "v@1.5-4.mp4", "v.mp4"]
    assert [source.span for source in sources] == [(0, 1.5), (1.5, 4), None]
    assert {source.path for source in sources} == {f"{folder}/v.mp4"}
    assert sources[0].name == f"{folder}/v@0-1.5.mp4"


def test_files_beside_a_listed_one_belong_to_it(folder):
    (folder / "v.txt").write_text("a clip")
    (folder / "v.cls").write_text("3")
    [source] = listed(folder, [{"path": "v.mp4", "begin": 0, "end": 1}])
    assert [file.suffix for file in source.beside] == ["txt", "cls"]


@pytest.mark.parametrize("path", ["../out.png", "a/../../out.png", "{above}/out.png"])
def test_a_path_leaves_the_folder_only_where_that_is_asked_for(folder, path):
    path = path.format(above=folder.parent)
    rows = [{"path": "a/1.png"}, {"path": path}]
    with pytest.raises(UsageError, match=r"list\.jsonl:2: .*out\.png lies outside the folder .*; --outside allows"):
        listed(folder, rows)
    source = listed(folder, rows, outside=True)[1]
    assert (source.problem, ".." in source.relative) == (None, False)
    with open(source.path, "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_what_is_not_there_or_no_media_is_a_source_with_a_problem(folder):
    (folder / "x.pdf").touch()
    rows = [{"path": name} for name in ("a/1.png", "no.png", "x.pdf", "https://x.org/1.png")]
    problems = [source.problem for source in listed(folder, rows)]
    assert problems[:3] == [None, "does not exist", "is not a media file"]
    assert "is a URL" in problems[3]


def test_a_folder_and_a_manifest_are_listed_together(folder):
    (folder / "list.csv").write_text("path,label\na/1.png,x\n")
    both = list_sources([str(folder / "b"), str(folder / "list.csv")]).sources
    assert [(source.relative, source.row and source.row.label) for source in both] == [
        ("2.png", None),
        ("a/1.png", "x"),
    ]
    with pytest.raises(UsageError, match=r"have one key, a/1\.png; expected each key once"):
        list_sources([str(folder), str(folder / "list.csv")])


def test_columns_are_those_that_are_chosen(folder):
    rows = "file,path,kind\na/1.png,elsewhere,x\n"
    [source] = listed(folder, rows, "list.csv", columns={"path": "file", "label": "kind"})
    assert (source.relative, source.row.label) == ("a/1.png", "x")
