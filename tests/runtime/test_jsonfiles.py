import json
import os
from dataclasses import dataclass

import pytest

from grncli.runtime.checking import Count, Text, read_json_as
from grncli.runtime.errors import CheckpointError, StoreError
from grncli.runtime.jsonfiles import brief, cut_torn_line, json_lines, read_json, to_json


@dataclass(frozen=True)
class State:
    step: Count
    name: Text = ""


def problem(tmp_path, content):
    file = tmp_path / "state.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_json_as(file, State, error=CheckpointError, remedy="restore it")
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert text.endswith("; restore it")
    assert "\n" not in text
    assert len(text) < len(str(file)) + 400
    return text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{broken", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"step": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b"{}", "has no field step"),
        (b'{"step": "4"}', "field step is '4'"),
        (b'{"step": 4.0}', "field step is 4.0"),
        (b'{"step": true}', "field step is True"),
        (b'{"step": -1}', "field step is -1"),
        (b'{"step": 1, "name": {"a": "' + b"x" * 10_000 + b'"}}', "field name is {'a': 'xxx"),
        (b"[1, 2]", "[1, 2]"),
    ],
)
def test_a_damaged_document_is_told_in_one_short_sentence(tmp_path, content, found):
    assert found in problem(tmp_path, content)


def test_a_sound_document_is_read_and_further_fields_do_not_count(tmp_path):
    (tmp_path / "state.json").write_text('{"step": 7, "later": [1]}')
    assert read_json_as(tmp_path / "state.json", State, error=StoreError, remedy="") == State(7)


def test_pipes_and_large_files_are_refused_without_being_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 2000)
    with pytest.raises(StoreError, match="is no plain file"):
        read_json(tmp_path / "pipe", error=StoreError, remedy="")
    with pytest.raises(StoreError, match="is larger than 1 KiB"):
        read_json(tmp_path / "large", error=StoreError, remedy="", most=1024)
    for read in (cut_torn_line, lambda path: list(json_lines(path, error=StoreError, remedy=""))):
        with pytest.raises(OSError, match="is no plain file") as caught:
            read(tmp_path / "pipe")
        assert caught.value.filename == str(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", error=StoreError, remedy="")


def test_any_file_name_survives_json():
    name = os.fsdecode(b"\xff\xfe \xe2\x80\xa8.png")
    assert os.fsencode(json.loads(to_json({"name": name}).encode("utf-8"))["name"]) == b"\xff\xfe \xe2\x80\xa8.png"


def test_lines_end_at_a_line_feed_only(tmp_path):
    records = [{"name": "a\u2028b\u0085c\x0bd"}, {"name": "e"}]
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(to_json(record) + "\n" for record in records) + '{"torn', encoding="utf-8")
    assert list(json_lines(file, error=StoreError, remedy="")) == records


def test_a_damaged_line_is_named_by_its_number(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("{}\n{broken}\n")
    with pytest.raises(StoreError, match=r"lines\.jsonl:2: cannot be read as JSON .*; restore it"):
        list(json_lines(file, error=StoreError, remedy="restore it"))
    file.write_text("{}\n[3]\n")
    with pytest.raises(StoreError, match=r"lines\.jsonl:2: holds \[3\], expected a JSON object"):
        list(json_lines(file, error=StoreError, remedy="restore it"))


@pytest.mark.parametrize("torn", [b"", b"x", b"y" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"{}\n", b"z" * 70_000 + b"\n"])
def test_only_a_torn_line_is_cut(tmp_path, whole, torn):
    file = tmp_path / "log"
    file.write_bytes(whole + torn)
    cut_torn_line(file)
    assert file.read_bytes() == whole
    cut_torn_line(tmp_path / "none")


def test_what_is_shown_of_a_value_is_short_and_harmless():
    assert len(brief({"a": ["x" * 1000] * 1000, "b": 10**4000})) <= 120
    assert "\x1b" not in brief("\x1b[31m")
