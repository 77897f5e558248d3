"""Damage is an error or a finding that names the file, never zeros."""

import json
import os

import google_crc32c
import numpy as np
import pytest
from small_stores import run

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.store import open_store, verify_store

GRID = (2, 2, 2)  # 6 rows a part, 48 bytes each, 2 in a chunk


@pytest.fixture
def path(tmp_path, small_chunks):
    run(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def part(path):
    return path / "part-00000"


@pytest.fixture
def chunk(part):
    return part / "2x2x2" / "bits" / "c.1.0.0.0.0.0"


def flip(path, at=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_sound_store_has_no_findings_and_reports_progress(path):
    seen = []
    monitor = Monitor(progress=lambda done, total, note: seen.append((done, total)))
    assert verify_store(path, monitor) == []
    store = open_store(path)
    numbers = len(store) * (4 + 8 + 4)  # label, seed and entropy of each sample
    assert seen[-1] == (store.nbytes + numbers, store.nbytes + numbers)


def test_missing_chunk_file_is_an_error_that_names_it(path, chunk):
    chunk.unlink()
    message = f"{chunk} is missing, expected 96 bytes; restore it"
    store = open_store(path)
    reads = [
        lambda: store[store.grid(GRID).indices[3]],
        lambda: store.grid(GRID).read([0, 2]),
        lambda: list(store.grid(GRID).chunks()),
    ]
    for read in reads:
        with pytest.raises(StoreError) as caught:
            read()
        assert message in str(caught.value)
    assert any(message in problem for problem in verify_store(path))


@pytest.mark.parametrize("size", [95, 97, 0])
def test_chunk_file_of_another_size_is_an_error_that_gives_both(path, chunk, size):
    chunk.write_bytes(bytes(size))
    message = f"{chunk} has {size} bytes, expected 96 bytes"
    with pytest.raises(StoreError) as caught:
        open_store(path).grid(GRID).read([2])
    assert message in str(caught.value)
    assert any(message in problem for problem in verify_store(path))


def test_chunk_file_cut_while_open_is_an_error(path, chunk):
    store = open_store(path)
    store.grid(GRID).read([3])
    with chunk.open("r+b") as file:
        file.truncate(60)
    with pytest.raises(StoreError, match="ends after 60 bytes, expected 96 bytes"):
        store.grid(GRID).read([3])


@pytest.mark.parametrize("name", ["2x2x2/bits/c.1.0.0.0.0.0", "2x2x2/label/c.0", "samples.jsonl", "failures.jsonl"])
def test_a_named_pipe_in_the_place_of_a_file_is_found_and_not_waited_for(path, part, name):
    (part / name).unlink()
    os.mkfifo(part / name)
    assert any(str(part / name) in problem and "is no plain file" in problem for problem in verify_store(path))
    with pytest.raises(StoreError, match=name):
        run(path)


def test_label_file_that_is_missing_is_an_error(path, part):
    (part / "2x2x2" / "label" / "c.0").unlink()
    with pytest.raises(StoreError, match=r"label/c.0 is missing"):
        open_store(path).grid(GRID).labels()


@pytest.mark.parametrize("name", ["2x2x2/bits/c.1.0.0.0.0.0", "1x1x5/bits/c.1.0.0.0.0.0", "1x2x3/bits/c.0.0.0.0.0.0"])
@pytest.mark.parametrize("at", [0, 50])
def test_flipped_bit_is_found(path, part, name, at):
    flip(part / name, at)
    (problem,) = verify_store(path)
    assert problem.startswith(f"{part / name} has checksum ")


def test_changed_label_is_found(path, part):
    file = part / "2x2x2" / "label" / "c.0"
    flip(file)
    (problem,) = verify_store(path)
    assert problem.startswith(f"{file} has checksum ")


def test_changed_line_of_the_logs_is_found(path, part):
    for name in ("samples.jsonl", "failures.jsonl"):
        file = part / name
        file.write_bytes(file.read_bytes().replace(b".png", b".jpg", 1))
        (problem,) = verify_store(path)
        assert problem.startswith(f"{file} has checksum ")
        file.write_bytes(file.read_bytes().replace(b".jpg", b".png", 1))


def test_labels_out_of_range_are_found(path, part):
    file = part / "2x2x2" / "label" / "c.0"
    labels = np.array([0, 1, -1, 2], "<i4").tobytes()
    file.write_bytes(labels)
    record = json.loads((part / "commit.json").read_text())
    record["grids"]["2x2x2"]["crc32c"]["label"][0] = google_crc32c.value(labels)
    (part / "commit.json").write_text(json.dumps(record))
    (problem,) = verify_store(path)
    assert problem.startswith(f"{file} has labels -1 to 2, expected -1 to 1;")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1].update(row=7), "samples.jsonl:2 is row 7 of 2x2x2, expected row 0"),
        (lambda lines: lines[1].update(grid="3x3x3"), "samples.jsonl:2 is row 0 of 3x3x3, expected row None"),
        (lambda lines: lines[1].pop("key"), "samples.jsonl:2 has no key or no source"),
        (lambda lines: lines.pop(), "samples.jsonl:14: cannot be read as JSON"),
    ],
)
def test_wrong_sample_lines_are_found(path, part, change, message):
    file = part / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    record = json.loads((part / "commit.json").read_text())
    if len(lines) == 14:
        record["samples_bytes"] = len(text)
    (part / "commit.json").write_text(json.dumps(record))
    file.write_text(text)
    assert any(message in problem for problem in verify_store(path))


def test_zarr_document_that_does_not_fit_is_found(path, part):
    file = part / "2x2x2" / "bits" / "zarr.json"
    file.write_text(file.read_text().replace('"shape": [\n    6', '"shape": [\n    5'))
    (problem,) = verify_store(path)
    assert problem.startswith(f"{file} does not describe the 6 committed rows;")


def test_marker_that_does_not_fit_is_found(path, part):
    (path / "COMPLETE").unlink()
    (problem,) = verify_store(path)
    assert "COMPLETE is missing though every part is complete" in problem
    record = json.loads((part / "commit.json").read_text())
    (part / "commit.json").write_text(json.dumps({**record, "complete": False}))
    assert verify_store(path) == []
    (path / "COMPLETE").touch()
    assert any("but part-00000 is not; restore it" in problem for problem in verify_store(path))
    assert not open_store(path).complete


def test_damaged_commit_record_is_an_error_and_a_finding(path, part):
    (part / "commit.json").write_text('{"format": 1, "posit')
    with pytest.raises(StoreError, match=r"commit.json: cannot be read as JSON"):
        open_store(path)
    assert any("commit.json: cannot be read as JSON" in problem for problem in verify_store(path))


def test_resuming_over_a_lost_chunk_is_refused(tmp_path, small_chunks):
    run(tmp_path / "store", sources=6)
    record = tmp_path / "store" / "part-00000" / "commit.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "complete": False}))
    (tmp_path / "store" / "part-00000" / "2x2x2" / "bits" / "c.1.0.0.0.0.0").unlink()
    with pytest.raises(StoreError, match="is missing, expected at least 96 bytes"):
        run(tmp_path / "store")
