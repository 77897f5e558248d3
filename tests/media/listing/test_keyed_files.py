"""Files of one key belong together, by our stem or by the key of a WebDataset."""

import io
import tarfile

import pytest

from grncli.media.listing import list_sources
from grncli.media.sidecars import webdataset_key
from grncli.media.sources import describe_lone, first_of_each
from grncli.runtime.errors import MediaError


def listed(root, form):
    if form == "folder":
        return list_sources(str(root))
    with tarfile.open(root.parent / "x.tar", "w") as archive:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            archive.add(path, path.relative_to(root))
    return list_sources(str(root.parent / "x.tar"))


def beside(listing):
    return {source.relative: [file.suffix for file in source.beside] for source in listing.sources}


@pytest.fixture
def root(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "root"

    return make


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_sample_has_all_files_of_its_key(root, form):
    listing = listed(root("a/1.jpg", "a/1.CLS", "a/1.json", "a/1.txt", "a/1.xml", "b/1.jpg", "b/2.txt"), form)
    assert {key: sorted(files) for key, files in beside(listing).items()} == {
        "a/1.jpg": ["cls", "json", "txt"], "b/1.jpg": [],
    }  # fmt: skip
    assert (listing.ignored_suffixes, listing.lone) == ({".txt": 1, ".xml": 1}, {"txt": 1})


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_key_may_end_at_the_first_dot_or_at_the_last(root, form):
    listing = listed(root("1.left.jpg", "1.right.jpg", "1.txt", "1.right.txt", "v1.0/2.jpg", "v1.txt", "v1.json"), form)
    assert beside(listing) == {"1.left.jpg": ["txt"], "1.right.jpg": ["txt"], "v1.0/2.jpg": []}
    texts = {source.relative: source.sidecar("txt").read(99) for source in listing.sources if source.beside}
    assert texts == {"1.left.jpg": b"1.txt", "1.right.jpg": b"1.right.txt"}
    assert listing.lone == {"txt": 1}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/0001.left.jpg", "a/0001"),
        ("a.b/0001.jpg", "a.b/0001"),
        ("a/.x.y", "a/.x"),
        ("none", "none"),
        ("a.b/c", "a.b/c"),
    ],
)
def test_the_key_of_a_webdataset_ends_at_the_first_dot(path, key):
    assert webdataset_key(path) == key


def test_a_sidecar_of_a_single_file_and_of_a_list_is_found(root, tmp_path):
    folder = root("1.jpg", "1.json", "1.cls", "2.jpg")
    [source] = list_sources(str(folder / "1.jpg")).sources
    assert [file.suffix for file in source.beside] == ["json", "cls"]
    assert source.sidecar("txt") is None
    (tmp_path / "l.txt").write_text(f"{folder}/2.jpg\n{folder}/1.jpg\n")
    assert [len(source.beside) for source in list_sources(str(tmp_path / "l.txt")).sources] == [0, 2]
    root("3.txt", "3.left.jpg", "3.left.cls")
    [source] = list_sources(str(folder / "3.left.jpg")).sources
    assert [file.suffix for file in source.beside] == ["cls", "txt"]


def test_a_sidecar_that_is_too_long_is_cut_and_one_that_is_gone_is_an_error(root):
    folder = root("1.jpg", "1.json")
    [source] = list_sources(str(folder)).sources
    assert len(source.beside[0].read(3)) == 4
    assert source.beside[0].read(6) == b"1.json"
    (folder / "1.json").unlink()
    with pytest.raises(MediaError, match="cannot be read: No such file"):
        source.beside[0].read(6)


def test_a_long_member_is_not_read_for_its_length(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, size in (("1.jpg", 1), ("1.json", 5000)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    [source] = list_sources(str(tmp_path / "x.tar")).sources
    assert len(source.beside[0].read(10)) == 11


def test_the_first_of_each_kind_are_shown_and_one_file_without_media_is_named(root):
    folder = root(*(f"{number}.jpg" for number in range(5)), "0.txt", "1.txt", "9.txt", "a.mp4", "l.m3u8", "8.json")
    listing = list_sources(str(folder))
    assert first_of_each(listing.sources) == [
        "images (5): 0.jpg, 1.jpg, 2.jpg, ...",
        ".txt beside (2): 0.txt, 1.txt",
        "clips (1): a.mp4",
        "that cannot be read (1): l.m3u8",
    ]
    assert describe_lone(listing).endswith(f"ignored: .txt 1, such as {folder}/9.txt")
    assert describe_lone(list_sources(str(folder / "1.jpg"))) == ""
