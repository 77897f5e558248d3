"""Labels from each form in which people have them, numbered by a given list of names where there is one."""

import json
import tarfile

import pytest

from grncli.media.classes import find_classes, read_class_names
from grncli.media.label_forms import parse_labels
from grncli.media.listing import list_sources
from grncli.runtime.errors import UsageError


@pytest.fixture
def folder(tmp_path, make_image):
    """Three pictures, two of which have a class and a record."""
    for number, (cls, record) in enumerate(
        [("cat\n", {"label": "cat", "kind": 1}), ("dog", {"class": 7}), (None, None)]
    ):
        make_image(f"src/{number}.png")
        if cls is not None:
            (tmp_path / f"src/{number}.cls").write_text(cls)
            (tmp_path / f"src/{number}.json").write_text(json.dumps(record))
    return tmp_path / "src"


def labels(src, text, given=None):
    sources = list_sources(str(src)).sources
    classes = find_classes(sources, sources, parse_labels(text), str(src), given)
    return [classes.of(source) for source in sources], classes.names


def packed(folder):
    with tarfile.open(folder.parent / "m.tar", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return folder.parent / "m.tar"


@pytest.mark.parametrize("form", [lambda folder: folder, packed])
def test_a_file_of_the_same_key_has_the_label(folder, form):
    assert labels(form(folder), "cls") == (["cat", "dog", None], ("cat", "dog"))
    assert labels(form(folder), "json") == (["cat", "7", None], ("7", "cat"))
    assert labels(form(folder), "json:kind") == (["1", None, None], ("1",))


def test_what_a_store_records_names_the_form_and_no_path(tmp_path):
    (tmp_path / "labels.csv").touch()
    for text, recorded in (("cls", "cls"), ("json", "json"), ("json:a b", "json:a b"), ("manifest", "manifest")):
        assert str(parse_labels(text)) == recorded
    assert str(parse_labels(str(tmp_path / "labels.csv"))) == "file"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("1.cls", "", r"1\.cls: is no label"),
        ("1.cls", "a\nb", r"1\.cls: is no label"),
        ("1.json", "{", r"1\.json: is no JSON"),
        ("1.json", "[3]", r"1\.json: is no JSON object"),
        ("1.json", '{"label": [1]}', r"1\.json: field label is \[1\], expected text or a whole number"),
    ],
)
def test_a_wrong_label_is_named_with_its_file(folder, name, content, words):
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        labels(folder, name.partition(".")[2])


def test_a_manifest_has_the_labels(folder):
    (folder / "m.csv").write_text("path,label\n0.png,owl\n1.png,3\n2.png,\n")
    assert labels(folder / "m.csv", "manifest") == (["owl", "3", None], ("3", "owl"))
    with pytest.raises(UsageError, match="--labels manifest: SRC is no manifest"):
        labels(folder, "manifest")


LISTS = {
    "l.csv": "path,label\n0.png,a\nsrc/2.png,b\n",
    "headless.csv": "0.png,a\n2,b\n",
    "l.tsv": "key\tlabel\n0.png\ta\n2.png\tb\n",
    "l.txt": "0.png a\n2.png b\n",
    "l.jsonl": '{"key": "0.png", "label": "a"}\n{"file_name": "2.png", "label": "b"}\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_a_file_of_two_columns_has_the_labels(folder, name):
    (folder.parent / name).write_text(LISTS[name])
    assert labels(folder, str(folder.parent / name)) == (["a", None, "b"], ("a", "b"))


def test_lines_that_name_no_source_are_counted_and_the_first_named(folder):
    path = folder.parent / "l.csv"
    path.write_text("path,label\n0.png,a\nx.png,b\ny.png,c\n")
    form, sources = parse_labels(str(path)), list_sources(str(folder)).sources
    find_classes(sources, sources, form, str(folder))
    assert form.doubt() == f"--labels {path}: 2 lines name no source, the first is {path}:3, x.png"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,label\n0.png,a\n0.png,b\n", r"l\.csv:3: gives .*/0\.png the label b, and .*l\.csv:2 a; expected one"),
        ("path,label\n0.png,\n", r"l\.csv:2: has the columns path, expected key or path, and label"),
        ("nothing.png,a\n", "no source has a label there"),
        ("0.png,caf\xe9\n", r"l\.csv:1: has the byte 0xe9, which is not UTF-8"),
    ],
)
def test_a_wrong_file_of_labels_is_named_with_its_line(folder, content, words):
    (folder.parent / "l.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        labels(folder, str(folder.parent / "l.csv"))


def test_given_names_decide_the_numbers_and_count_labels_that_are_numbers(folder):
    (folder / "1.cls").write_text("0")
    assert labels(folder, "cls", ("owl", "cat")) == (["cat", "owl", None], ("owl", "cat"))
    assert labels(folder, "cls", ("1", "0", "cat")) == (["cat", "0", None], ("1", "0", "cat"))


@pytest.mark.parametrize("outside", ["dog", "2", "-1"])
def test_a_label_outside_of_the_given_names_is_refused_with_its_source(folder, outside):
    (folder / "1.cls").write_text(outside)
    with pytest.raises(UsageError, match=rf"/1\.png: has the label '{outside}', which is not one of .*owl, cat"):
        labels(folder, "cls", ("owl", "cat"))


def test_class_names_are_read_in_their_order(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfzebra\r\nant, red\n")
    assert read_class_names(str(path)) == ("zebra", "ant, red")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n\nb\n", "names.txt:2: is empty, expected the name of class 1"),
        (b"a\nb\na\n", "names.txt:3: names 'a' again, as line 1 does"),
        (b"caf\xe9\n", "names.txt: is not UTF-8 text"),
        (None, "names.txt: cannot be read"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_class_names(str(tmp_path / "names.txt"))
