"""JSON Lines, the one implementation of them: encoded, appended, repaired and read."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.runtime.errors import StoreError
from grncli.runtime.jsonlines import LineFile, append_line, encode_line, encode_lines, read_lines

values = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(['}, {"grid": ', '}, {\\"grid\\": ', "\n", "caf\udce9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["grid", "row", "key"]), inner),
    max_leaves=6,
)
records = st.builds(lambda grid, more: {"grid": grid, **more}, values, st.dictionaries(st.text(), values, max_size=3))


@given(st.lists(records.filter(lambda record: next(iter(record)) == "grid"), min_size=1, max_size=5))
def test_many_lines_at_once_are_the_lines_one_by_one(batch):
    assert encode_lines(batch, first="grid") == b"".join(map(encode_line, batch))


def objects(path):
    return [line for _, line in read_lines(path, error=StoreError, remedy="restore it")]


def test_lines_end_at_a_line_feed_only(tmp_path):
    lines = [{"name": "a\u2028b\u0085c\x0bd"}, {"name": "e"}]
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"".join(map(encode_line, lines)) + b'{"torn')
    assert objects(file) == lines


def test_a_damaged_line_is_named_by_its_number(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("{}\n{broken}\n")
    with pytest.raises(StoreError, match=r"lines\.jsonl:2: cannot be read as JSON .*; restore it"):
        objects(file)
    file.write_text("{}\n[3]\n")
    with pytest.raises(StoreError, match=r"lines\.jsonl:2: holds \[3\], expected a JSON object; restore it"):
        objects(file)


def test_pipes_are_neither_read_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for use in (objects, lambda path: append_line(path, {})):
        with pytest.raises(OSError, match="is no plain file") as caught:
            use(tmp_path / "pipe")
        assert caught.value.filename == str(tmp_path / "pipe")


@pytest.mark.parametrize("torn", [b"", b"x", b"y" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"{}\n", b"z" * 70_000 + b"\n"])
def test_only_a_torn_line_is_cut_before_others_follow(tmp_path, whole, torn):
    file = tmp_path / "log"
    file.write_bytes(whole + torn)
    append_line(file, {"a": 1})
    assert file.read_bytes() == whole + b'{"a": 1}\n'


def test_lines_follow_one_another_in_a_file_that_is_made(tmp_path):
    append_line(tmp_path / "log", {"a": float("nan")})
    with LineFile(tmp_path / "log") as file:
        file.append(b"{}\n{}\n")
        file.append(b'{"b": 2}\n')
        file.sync()
    assert (tmp_path / "log").read_bytes() == b'{"a": NaN}\n{}\n{}\n{"b": 2}\n'
    assert file.size == (tmp_path / "log").stat().st_size


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_bytes(b"torn")
    (tmp_path / "log").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="is a link") as caught:
        append_line(tmp_path / "log", {})
    assert caught.value.filename == str(tmp_path / "log")
    assert (tmp_path / "mine").read_bytes() == b"torn"


def test_a_line_that_does_not_fit_on_the_disk_leaves_none(tmp_path, monkeypatch):
    append_line(tmp_path / "log", {"a": 1})
    real, calls = os.pwrite, 0

    def full(fd, data, offset):
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:2], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space") as caught:
        append_line(tmp_path / "log", {"b": 2})
    assert caught.value.filename == str(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b'{"a": 1}\n'
