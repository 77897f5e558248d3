import json
import os
from dataclasses import dataclass

import pytest

from grncli.runtime.checking import Count, Text, read_json_as
from grncli.runtime.errors import CheckpointError, StoreError
from grncli.runtime.jsonfiles import brief, read_json, to_json


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
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", error=StoreError, remedy="")


def test_any_file_name_survives_json():
    name = os.fsdecode(b"\xff\xfe \xe2\x80\xa8.png")
    assert os.fsencode(json.loads(to_json({"name": name}).encode("utf-8"))["name"]) == b"\xff\xfe \xe2\x80\xa8.png"


def test_what_is_shown_of_a_value_is_short_and_harmless():
    assert len(brief({"a": ["x" * 1000] * 1000, "b": 10**4000})) <= 120
    assert "\x1b" not in brief("\x1b[31m")
