"""Manifests of every form say the same, and what is wrong in one is named with its line."""

import csv
import json
import sys

import pytest

from grncli.media.listing.manifest_rows import merged, parse_columns, read_rows, with_span
from grncli.runtime.errors import UsageError

ROWS = [
    {"path": "a/1.jpg", "label": "cat", "caption": "ein Kater", "width": 640},
    {"path": "a/2, 3.jpg", "label": "7"},
    {"path": "v/1.mp4", "caption": "it\nruns", "begin": 1.5, "end": 4.0},
]
COLUMNS = ["path", "label", "caption", "width", "begin", "end"]


def write_csv(path, rows, columns=COLUMNS, sign=","):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=sign)
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = arrow.table({name: [row.get(name) for row in rows] for name in names})
    # Pictures inside a table are neither read nor kept.
    parquet.write_table(table.append_column("bytes", arrow.array([b"\xff"] * len(rows))), path)


WRITERS = {
    "m.jsonl": write_jsonl,
    "m.csv": write_csv,
    "semicolons.csv": lambda path, rows: write_csv(path, rows, sign=";"),
    "m.tsv": lambda path, rows: write_csv(path, rows, sign="\t"),
    "m.parquet": write_parquet,
}


def read(path, columns=None):
    return list(read_rows(str(path), columns, remedy="repair it"))


def said(row):
    texts = None if row.captions is None else [caption.text for caption in row.captions.captions]
    return row.path, row.label, texts, row.span


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_says_the_same(tmp_path, name):
    WRITERS[name](tmp_path / name, ROWS)
    rows = read(tmp_path / name)
    assert [said(row) for row in rows] == [
        ("a/1.jpg", "cat", ["ein Kater"], None),
        ("a/2, 3.jpg", "7", None, None),
        ("v/1.mp4", None, ["it\nruns"], (1.5, 4.0)),
    ]
    assert str(rows[0].captions.fields["width"]) == "640"


@pytest.mark.parametrize("name", WRITERS)
def test_columns_can_be_chosen_and_the_usual_names_mean_nothing_then(tmp_path, name):
    rows = [{"path": "of the site", "file": "1.mp4", "text": "not this", "said": "this", "from": 1, "to": 2, "kind": 3}]
    writer = WRITERS[name]
    if "csv" in name or "tsv" in name:
        write_csv(tmp_path / name, rows, list(rows[0]), {"m.csv": ",", "m.tsv": "\t"}.get(name, ";"))
    else:
        writer(tmp_path / name, rows)
    chosen = {"path": "file", "caption": "said", "begin": "from", "end": "to", "label": "kind"}
    assert [said(row) for row in read(tmp_path / name, chosen)] == [("1.mp4", "3", ["this"], (1, 2))]
    for role, wrong in (("path", "nofile"), ("label", "nolabel"), ("caption", "nosaid")):
        with pytest.raises(UsageError, match=wrong) as error:
            read(tmp_path / name, {**chosen, role: wrong})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_that_is_not_chosen_never_replaces_the_one_that_is(tmp_path, name):
    rows = [{"file": "1.jpg", "said": "this", "captions": "not this", "source": "of the web"}]
    if "csv" in name or "tsv" in name:
        write_csv(tmp_path / name, rows, list(rows[0]), {"m.csv": ",", "m.tsv": "\t"}.get(name, ";"))
    else:
        WRITERS[name](tmp_path / name, rows)
    [row] = read(tmp_path / name, {"path": "file", "caption": "said"})
    assert row.captions.source == row.path == "1.jpg"
    assert said(row) == ("1.jpg", None, ["this"], None)


def test_columns_are_parsed():
    assert parse_columns("path=file, caption=long text") == {"path": "file", "caption": "long text"}
    assert parse_columns({"path": "a,b=c"}) == {"path": "a,b=c"}


@pytest.mark.parametrize(
    "text", ["file=path", "path", "path=", "path=a,path=b", "path=a,,label=b", "", {"file": "path"}]
)
def test_what_chooses_no_column_is_refused(text):
    with pytest.raises(UsageError, match="is no choice of a column, expected path=NAME, label=NAME"):
        parse_columns(text)


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b'\xef\xbb\xbfpath,caption\r\n"1.jpg","a\r\nb"\r\n\r\n2.jpg,c\r\n')
    rows = read(path)
    assert [(row.place, row.path) for row in rows] == [(f"{path}:2", "1.jpg"), (f"{path}:5", "2.jpg")]


def test_several_rows_of_one_path_are_its_captions(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path,caption,label,begin,end\n1.mp4,a,x,,\n1.mp4,b,,,\n1.mp4,a,x,,\n1.mp4,c,,0,1\n")
    assert [said(row) for row in merged(read(path))] == [
        ("1.mp4", "x", ["a", "b"], None),
        ("1.mp4", None, ["c"], (0, 1)),
    ]
    path.write_text("path,label\n1.mp4,x\n2.mp4,x\n1.mp4,y\n")
    with pytest.raises(UsageError, match=rf"{path}:4: 1\.mp4 has the label 'y', and at {path}:2 'x'; expected one"):
        merged(read(path))


def test_a_stretch_is_written_before_the_suffix():
    assert with_span("a.b/v.mp4", (1.5, 4.0)) == "a.b/v@1.5-4.mp4"
    assert with_span("v", (0, 1 / 3)) == "v@0-0.333333"


def test_frames_of_a_table_are_seconds(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("video_path,begin_frame_id,end_frame_id,fps\n1.mp4,24,72,16\n2.mp4,,,\n")
    assert [row.span for row in read(path)] == [(1.5, 4.5), None]


CSV = [
    (b"", 1, "is empty, expected names of columns"),
    (b"name,caption\n1.jpg,x\n", 1, r"its source is named by none of its columns \(name, caption\)"),
    (b"path,file_name\n1.jpg,x\n", 1, "its source is named by path and file_name"),
    (b"path,path\n1.jpg,x\n", 1, "has the column 'path' twice"),
    (b"path,caption\n1.jpg,caf\xe9\n", 2, r"has the byte 0xe9, which is not UTF-8 \(Latin-1\?\)"),
    (b"path,caption\n1.jpg,a, b\n", 2, r"has 3 cells, expected 2 \(path, caption\)"),
    (b"path,caption\n1.jpg\n", 2, "has 1 cells, expected 2"),
    (b'path,caption\n1.jpg,"open\n', 2, "is no row of a table"),
    (b"path,caption\n,x\n", 2, "field path is None, expected the path of a file"),
    (b"path,begin,end\n1.jpg,now,2\n", 2, "begin is 'now' and end 2, expected seconds"),
    (b"path,begin,end\n1.jpg,3,2\n", 2, "begin is 3 and end 2, expected seconds"),
    (b"path,begin\n1.jpg,3\n", 2, "begin is 3 and end None, expected seconds"),
    (b"path,caption\n1.jpg,x\n\0.jpg,x\n", 3, r"field path is '\\x00.jpg'"),
]


@pytest.mark.parametrize(("content", "line", "words"), CSV)
def test_what_is_wrong_in_a_csv_is_named_with_its_line(tmp_path, content, line, words):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"^{path}:{line}: {words}") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_wrong_type_far_down_is_named_with_its_line(tmp_path):
    path = tmp_path / "m.jsonl"
    write_jsonl(path, [{"path": f"{n}.jpg", "label": [n] if n == 4122 else n} for n in range(5000)])
    with pytest.raises(
        UsageError, match=rf"^{path}:4123: field label is \[4122\], expected text or a whole number; re"
    ):
        read(path)


def test_a_manifest_without_a_record_is_refused(tmp_path):
    for name, content in (("m.csv", "path,label\n"), ("m.jsonl", "\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match="has no line"):
            read(tmp_path / name)


def test_a_damaged_parquet_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match=r"m\.parquet: cannot be read as Parquet \("):
        read(tmp_path / "m.parquet")


def test_without_the_extra_parquet_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "m.parquet").touch()
    with pytest.raises(UsageError, match=r"m\.parquet: reading Parquet needs .* pip install 'grncli\[parquet\]'"):
        read(tmp_path / "m.parquet")
