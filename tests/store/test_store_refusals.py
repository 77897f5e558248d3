"""What a store refuses: other settings, second writers, foreign directories, data that does not fit, a full disk."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_stores import GRIDS, fingerprint, random_bits, records, run, tree

from grncli.runtime.errors import StoreError, StoreMismatch
from grncli.store import open_part, open_store, verify_store

GRID = GRIDS[0]
FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[2])]


def test_mismatch_lists_every_field_that_differs(tmp_path):
    open_part(tmp_path / "store", fingerprint()).close()
    other = fingerprint(rounds=4, tokenizer={"name": "toy", "sha256": "81d0" * 16}, labels=("ant", "cow"))
    with pytest.raises(StoreMismatch) as caught:
        open_part(tmp_path / "store", other)
    assert str(caught.value) == (
        f"{tmp_path / 'store'} was made with rounds=3, tokenizer.sha256=3f9c3f9c…, labels[1]=bee; "
        "this command asks for 4, 81d081d0…, cow. Use the same settings, another OUT, or --overwrite."
    )


def test_versions_and_division_do_not_concern_a_reader(tmp_path):
    open_part(tmp_path / "store", fingerprint(), part=1, parts=3).close()
    stored = open_store(tmp_path / "store").fingerprint
    assert stored.differences(fingerprint(versions={"grncli": "9"})) == []
    assert [d.name for d in stored.differences(fingerprint(channels=8))] == ["channels"]


def test_writer_refuses_another_division_into_parts(tmp_path):
    open_part(tmp_path / "store", fingerprint(), part=1, parts=3).close()
    with pytest.raises(StoreMismatch, match="made with parts=3; this command asks for 4"):
        open_part(tmp_path / "store", fingerprint(), part=1, parts=4)


def test_writer_refuses_other_columns(tmp_path):
    with open_part(tmp_path / "store", fingerprint(), columns=[("seed", "int64")]) as writer:
        writer.commit(0, "")
    with pytest.raises(StoreMismatch, match="columns seed; this command asks for none"):
        open_part(tmp_path / "store", fingerprint())


def test_second_writer_of_a_part_is_refused_within_a_process_and_across(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from small_stores import run\n"
        "try: run(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "store", *FOLDERS]
    with open_part(tmp_path / "store", fingerprint(), columns=[("seed", "int64"), ("entropy", "float32")]):
        with pytest.raises(StoreError, match="part-00000 is being written by another process"):
            run(tmp_path / "store")
        with pytest.raises(StoreError, match="part-00000 is being written by another process"):
            run(tmp_path / "store", overwrite=True)
        said = subprocess.check_output(command, text=True)
        assert said.startswith(f"StoreError {tmp_path / 'store' / 'part-00000'} is being written by another process;")
    assert subprocess.check_output(command, text=True) == ""


def test_processes_that_create_a_store_together_fill_one(memory_disk):
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from small_stores import run\n"
        "print(flush=True); input()\n"
        "run(sys.argv[1], part=int(sys.argv[2]), parts=4)\n"
    )
    for attempt in range(3):
        path = memory_disk / f"store-{attempt}"
        commands = [[sys.executable, "-c", code, path, str(part), *FOLDERS] for part in range(4)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        writers = [subprocess.Popen(command, **pipes) for command in commands]
        for writer in writers:
            writer.stdout.readline()
        for writer in writers:
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        for writer in writers:
            assert writer.wait() == 0
            writer.stdin.close()
            writer.stdout.close()
        store = open_store(path)
        assert store.complete
        assert len(store) == 4 * store.parts[0].samples
        assert verify_store(path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_directories_are_left_alone(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"png")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (tmp_path / "file").write_text("text")
    before = tree(tmp_path)
    for name in ("photos", "group", "file"):
        with pytest.raises(StoreError, match=r"choose another OUT"):
            open_part(tmp_path / name, fingerprint(), overwrite=overwrite)
    assert tree(tmp_path) == before


def test_overwrite_replaces_a_store_of_other_settings(tmp_path, small_chunks):
    with open_part(tmp_path / "store", fingerprint(rounds=5), part=1, parts=2) as writer:
        writer.commit(3, "")
    run(tmp_path / "store", overwrite=True)
    run(tmp_path / "fresh")
    assert tree(tmp_path / "store") == tree(tmp_path / "fresh")


def test_overwrite_of_one_part_leaves_the_others(tmp_path, small_chunks):
    for part in range(2):
        run(tmp_path / "store", part=part, parts=2)
    other = tree(tmp_path / "store" / "part-00001")
    open_part(tmp_path / "store", fingerprint(), 0, 2, overwrite=True).close()
    assert tree(tmp_path / "store" / "part-00001") == other
    store = open_store(tmp_path / "store")
    assert [part.samples for part in store.parts] == [0, 14]
    assert not store.complete


def test_reading_what_is_not_a_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none")
    with pytest.raises(StoreError, match="is not a bit store"):
        open_store(tmp_path)
    (tmp_path / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {"grn": {"format": 9}}}'
    )
    with pytest.raises(StoreError, match="store format 9, and this version reads format 1"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": np.zeros((2, 1, 2, 3, 3, 1), np.uint8)}, "expected uint8"),
        ({"bits": np.zeros((2, 1, 2, 3, 3, 2), bool)}, "expected uint8"),
        ({"labels": [0.5, 1.0]}, "label is float64"),
        ({"labels": [0, 2**40]}, "do not fit int32"),
        ({"records": [{"key": "k", "source": "s"}]}, "1 records for 2 samples"),
        ({"records": [{"key": "k"}] * 2}, "no key or no source"),
        ({"seed": [1, 2]}, "got the columns seed, declared were none"),
    ],
)
def test_samples_that_do_not_fit_are_refused_and_change_nothing(tmp_path, changes, message):
    given = {"bits": random_bits(2, GRID), "labels": None, "records": records(2, "a"), **changes}
    with open_part(tmp_path / "store", fingerprint()) as writer:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=message):
            writer.append(GRID, given.pop("bits"), given.pop("labels"), given.pop("records"), **given)
        assert tree(tmp_path) == before
        writer.append(GRID, random_bits(2, GRID), None, records(2, "a"))
        with pytest.raises(ValueError, match="commit before finish"):
            writer.finish()
        writer.commit(1, "")
        writer.finish()
    assert len(open_store(tmp_path / "store")) == 2


def test_full_disk_is_one_sentence_and_costs_only_what_was_not_committed(tmp_path, small_chunks, monkeypatch):
    run(tmp_path / "expected")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_after(40, os.pwrite))
        with pytest.raises(
            StoreError, match=r"store: the disk is full \(No space left on device\); \d+ samples"
        ) as caught:
            run(tmp_path / "store")
    assert str(caught.value).endswith("of part-00000 are safe. Free space and run the same command again.")
    assert 0 < len(open_store(tmp_path / "store")) < 14
    assert verify_store(tmp_path / "store") == []
    run(tmp_path / "store")
    assert tree(tmp_path / "store") == tree(tmp_path / "expected")


def full_after(calls, real):
    def pwrite(*args):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    return pwrite


def test_writer_that_failed_refuses_to_go_on(tmp_path, monkeypatch):
    with open_part(tmp_path / "store", fingerprint()) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full_after(0, os.pwrite))
            with pytest.raises(StoreError, match="disk is full"):
                writer.append(GRID, random_bits(2, GRID), None, records(2, "a"))
        with pytest.raises(StoreError, match="closed or failed before; run the same command again"):
            writer.commit(1, "")


def test_really_full_disk_keeps_what_was_committed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        fill_and_check(disk / "store")
    finally:
        subprocess.run(["umount", disk], check=True)


def fill_and_check(path):
    grid = (4, 32, 32)
    bits = random_bits(8, grid)  # 24 KiB each
    with open_part(path, fingerprint()) as writer:

        def fill():
            for number in range(100):
                writer.append(grid, bits, None, records(8, str(number)))
                writer.commit(number + 1, "")

        with pytest.raises(StoreError, match="the disk is full"):
            fill()
        kept = writer.samples
    view = open_store(path).grid(grid)
    assert len(view) == kept > 0
    np.testing.assert_array_equal(view.read(range(kept)), np.concatenate([bits] * (kept // 8)))
    assert verify_store(path) == []
