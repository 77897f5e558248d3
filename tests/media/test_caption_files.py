"""Text files beside media are their captions, wherever media are read from, and are named where they are none."""

import tarfile
import zipfile

import pytest

from grncli.media.caption_files import MAX_BYTES, caption_lines, captions_beside
from grncli.media.listing import list_sources
from grncli.media.sidecars import Sidecar
from grncli.runtime.errors import MediaError, UsageError


@pytest.fixture
def folder(tmp_path):
    """Two pictures and a clip with captions, a picture without, a text without media."""
    root = tmp_path / "m"
    for name, text in (
        ("a/1.png", "one\n"), ("a/1.mp4", None), ("a/2.PNG", " two \r\n\r\nzwei"), ("b/1.jpg", None), ("a/1.txt", None),
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if text is not None:
            path.with_suffix(".txt").write_text(text)
    (root / "a/1.txt").write_text("one\n")
    (root / "README.txt").write_text("about")
    return root


def packed(folder, suffix):
    path = folder.parent / f"m{suffix}"
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder))
    return path


def texts(listing):
    return {source.relative: caption_lines(file) for source in listing.sources if (file := source.sidecar("txt"))}


WANTED = {"a/1.png": ["one"], "a/1.mp4": ["one"], "a/2.PNG": ["two", "zwei"]}


@pytest.mark.parametrize("suffix", ["", ".tar", ".zip"])
def test_a_text_file_of_the_same_stem_is_the_caption_and_no_ignored_file(folder, suffix):
    listing = list_sources(str(packed(folder, suffix) if suffix else folder))
    assert texts(listing) == WANTED
    assert len(listing.sources) == 4
    assert listing.ignored_suffixes == {".txt": 1}
    assert listing.lone_captions == 1


def test_a_part_of_an_archive_has_its_captions(folder):
    listing = list_sources(f"{packed(folder, '.tar')}/a")
    assert texts(listing) == {name.removeprefix("a/"): lines for name, lines in WANTED.items()}
    assert (listing.ignored, listing.lone_captions) == (0, 0)


def test_a_list_of_paths_and_a_single_file_have_the_captions_beside_them(folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder}/a/2.PNG\n{folder}/b/1.jpg\n{folder}/a/1.png\n{folder}/a/1.txt\n")
    listing = list_sources(str(tmp_path / "list.txt"))
    assert list(texts(listing).values()) == [["two", "zwei"], ["one"]]
    assert listing.ignored == 0
    [source] = list_sources(str(folder / "a/2.PNG")).sources
    assert caption_lines(source.sidecar("txt")) == ["two", "zwei"]
    [source] = list_sources(str(folder / "b/1.jpg")).sources
    assert source.beside == ()


def test_in_a_list_each_has_the_text_beside_itself_and_not_one_that_only_looks_so(tmp_path, monkeypatch):
    for name in ("a", "inner/a"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").touch()
        (tmp_path / name / "1.txt").write_text(name)
    (tmp_path / "list.txt").write_text("a/1.png\n../a/1.png\n")
    monkeypatch.chdir(tmp_path / "inner")
    assert [caption_lines(source.sidecar("txt")) for source in list_sources(str(tmp_path / "list.txt")).sources] == [
        ["inner/a"],
        ["a"],
    ]


def test_text_files_that_belong_to_no_media_are_ignored_files_as_ever(tmp_path):
    for name in ("a.png", "b.txt", "c.txt"):
        (tmp_path / name).touch()
    listing = list_sources(str(tmp_path))
    assert (listing.ignored_suffixes, listing.lone_captions) == ({".txt": 2}, 0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UsageError, match=r"holds 2 files of other kinds \(\.txt\) and no media"):
        list_sources(str(tmp_path))


def test_of_two_texts_of_one_stem_the_other_is_ignored(tmp_path):
    for name in ("a.png", "a.txt", "a.TXT"):
        (tmp_path / name).write_text("x")
    listing = list_sources(str(tmp_path))
    assert texts(listing) == {"a.png": ["x"]}
    assert (listing.ignored_suffixes, listing.lone_captions) == ({".txt": 1}, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\t\r\n", "is empty"),
        (b"good\ncaf\xe9\n", "line 2 is not valid UTF-8"),
        (b"\xff\xfea\0", "line 1 is not valid UTF-8"),
        (b"x" * (MAX_BYTES + 1), "has more than 64 KiB"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_what_is_no_caption_says_why(folder, content, words, suffix):
    (folder / "a/2.txt").write_bytes(content)
    listing = list_sources(str(packed(folder, suffix) if suffix else folder))
    [source] = (source for source in listing.sources if source.relative == "a/2.PNG")
    with pytest.raises(MediaError, match=words):
        caption_lines(source.sidecar("txt"))


def beside(folder):
    [source] = (source for source in list_sources(str(folder)).sources if source.relative == "b/1.jpg")
    found = captions_beside(source)
    return found and (found[0].suffix, found[1])


def test_a_json_file_has_captions_where_no_text_file_has(folder):
    (folder / "b/1.json").write_text('{"caption": " one ", "text": ["two", ""], "captions": null, "url": "x"}')
    assert beside(folder) == ("json", ["one", "two"])
    (folder / "b/1.txt").write_text("first")
    assert beside(folder) == ("txt", ["first"])


def test_a_json_file_without_captions_is_no_problem_and_a_wrong_one_says_why(folder):
    assert beside(folder) is None
    (folder / "b/1.json").write_text('{"url": "x"}')
    assert beside(folder) is None
    half = r'{"caption": ["whole", "half \ud83d"]}'  # which no reader of a store takes
    for content, words in (
        ("{", "is no JSON"),
        ('{"caption": 3}', "field caption is 3, expected text"),
        (half, "field caption is .*, which is not valid Unicode"),
    ):
        (folder / "b/1.json").write_text(content)
        with pytest.raises(MediaError, match=rf"b/1\.json: {words}"):
            beside(folder)


def test_a_caption_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(MediaError, match="No such file"):
        caption_lines(Sidecar(str(tmp_path / "a.txt")))
    with pytest.raises(MediaError, match="is encrypted"):
        caption_lines(Sidecar("m.zip", "a.txt", problem="is encrypted"))
