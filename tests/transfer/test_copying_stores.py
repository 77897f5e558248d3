"""Copies of stores: what counts and no more, compared with its checksums, resumed, and complete last of all."""

from dataclasses import replace
from uuid import uuid4

import pytest
from small_stores import fingerprint, run, tree

from grncli import copy, open_store
from grncli.runtime.errors import GrnError, StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.remote_objects import RemoteObjects
from grncli.runtime.stopping import Stopped
from grncli.store import open_part, verify_store
from grncli.store.captions import Caption, CaptionLine, replace_captions
from grncli.store.rows.dropped_rows import DroppedRows
from grncli.transfer import sending


@pytest.fixture
def store(memory_disk, small_chunks):
    """Two parts with captions and a dropped row."""
    path = memory_disk / "s.zarr"
    for part in range(2):
        run(path, part=part, parts=2, sources=9 + 4 * part)
    DroppedRows({"1x2x3": ((1, 2),)}).write(path / "part-00001")
    replace_captions({path / "part-00000": [CaptionLine("0.png", (Caption(None, "an ant"),))]})
    return path


@pytest.fixture
def url():
    return f"memory://{uuid4().hex}"


@pytest.fixture
def writes(monkeypatch):
    """Names of the files that copies write, in the order in which they are there."""
    names = []
    put = sending.Sender._put

    def noted(sender, content):
        put(sender, content)
        names.append(content.name)
        return content

    monkeypatch.setattr(sending.Sender, "_put", noted)
    return names


def files(path):
    return {name: data for name, data in tree(path).items() if data is not None and not name.endswith(".lock")}


def test_there_and_back_it_is_the_same(store, url, memory_disk):
    copy(store, url)
    copy(url, memory_disk / "back.zarr")
    assert files(memory_disk / "back.zarr") == files(store)


def test_a_copy_on_this_machine_is_the_same(store, memory_disk):
    there = files(store)
    for hidden in (".status.json", ".commit.json.tmp"):  # of a writer that ended early
        (store / "part-00000" / hidden).write_text("{}")
    summary = copy(store, memory_disk / "new.zarr")
    assert files(memory_disk / "new.zarr") == there
    assert (summary.kind, summary.copied, summary.present) == ("store", len(there), 0)


def test_records_come_after_what_they_count_and_the_marker_last(store, url, writes):
    copy(store, url)
    assert writes[0] == "zarr.json"
    assert writes[-1] == "COMPLETE"
    for part in ("part-00000", "part-00001"):
        record = writes.index(f"{part}/commit.json")
        assert all(writes.index(name) < record for name in writes if "/c." in name and name.startswith(part))
    assert writes.index("part-00001/dropped.json") > writes.index("part-00001/commit.json")


def test_only_what_is_missing_or_differs_is_sent(store, url, writes):
    copy(store, url)
    place = RemoteObjects(url)
    place.remove("part-00000/1x2x3/bits/c.0.0.0.0.0.0")
    changed = "part-00001/samples.jsonl"
    place.write(changed, place.read(changed)[:-1])
    del writes[:]
    copy(store, url)
    assert sorted(writes) == ["COMPLETE", "part-00000/1x2x3/bits/c.0.0.0.0.0.0", changed]
    assert verify_store(url) == []
    assert copy(store, url).copied == 0


def test_a_copy_that_is_stopped_is_unfinished_and_resumes(store, url, monkeypatch):
    monkeypatch.setattr(sending, "_TOGETHER", 4)
    copied = 0

    class Now:
        @property
        def reason(self):
            return "SIGTERM" if copied else None

    def progress(done, total, note):
        nonlocal copied
        copied = done > total / 2

    with pytest.raises(Stopped, match=r"SIGTERM: stopped after \d+ files were copied"):
        copy(store, url, progress=Monitor(stop=Now(), progress=progress))
    assert not open_store(url).complete
    summary = copy(store, url)
    assert summary.present > 0
    assert open_store(url).complete
    assert verify_store(url) == []


def test_a_store_that_grows_is_copied_as_far_as_it_is(memory_disk, small_chunks, url):
    path = memory_disk / "s.zarr"
    counts = []

    def follow():
        copy(path, url)
        assert verify_store(url) == []
        counts.append(len(open_store(url)))
        assert not open_store(url).complete

    run(path, after_commit=follow)
    copy(path, url)
    assert open_store(url).complete
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


def test_what_readers_skip_no_more_is_there_no_more(store, url):
    copy(store, url)
    assert len(open_store(url)) == len(open_store(store))
    (store / "part-00001/dropped.json").unlink()
    (store / "part-00000/captions.jsonl").unlink()
    copy(store, url)
    assert len(open_store(url)) == len(open_store(store))
    assert "part-00000/captions.jsonl" not in RemoteObjects(url).walk("")


def test_a_store_of_other_settings_is_kept_unless_it_is_to_be_replaced(store, memory_disk, url):
    copy(store, url)
    other = memory_disk / "other.zarr"
    with open_part(other, replace(fingerprint(), stride=(1, 8, 8))) as writer:
        writer.commit(1, "", 1)
        writer.finish()
    with pytest.raises(StoreMismatch, match=rf"^{url} was made with .*--overwrite"):
        copy(other, url)
    assert open_store(url).digest() == open_store(store).digest()
    copy(other, url, overwrite=True)
    assert open_store(url).digest() == open_store(other).digest()
    assert verify_store(url) == []


def test_a_store_with_more_samples_is_kept(store, memory_disk, small_chunks, url):
    copy(store, url)
    less = memory_disk / "less.zarr"
    run(less, part=0, parts=2, sources=5)
    with pytest.raises(StoreError, match=rf"^{url}/part-00000 holds other samples than the source, or more of them"):
        copy(less, url)
    assert open_store(url).complete


def test_a_place_of_something_else_is_kept(store, tmp_path, url):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(StoreError, match="holds something else than a bit store"):
        copy(store, tmp_path, overwrite=True)
    with pytest.raises(StoreError, match=r"^.*diary.txt: cannot be written \(File exists\); choose another DST"):
        copy(store, tmp_path / "diary.txt")
    RemoteObjects(url).write("diary.txt", b"dear diary")
    with pytest.raises(StoreError, match="holds something else than a bit store"):
        copy(store, url)


def test_a_damaged_source_is_not_copied(store, url):
    chunk = store / "part-00000/1x2x3/bits/c.0.0.0.0.0.0"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    with pytest.raises(StoreError, match=rf"^{chunk} has checksum"):
        copy(store, url)
    assert not open_store(url).complete


def test_what_is_no_store_and_no_run_is_said(tmp_path, url, store):
    with pytest.raises(GrnError, match=r"is no store .* and no run directory"):
        copy(tmp_path, url)
    with pytest.raises(GrnError, match=f"^{url}: is no store"):
        copy(url, tmp_path / "new")
    with pytest.raises(GrnError, match="new: is not there, expected a store or a run directory"):
        copy(tmp_path / "new", url)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(GrnError, match=r"notes.txt: is a file, expected a store or a run directory"):
        copy(tmp_path / "notes.txt", url)
    with pytest.raises(UsageError, match="is SRC and DST"):
        copy(store, store)
    with pytest.raises(UsageError, match="part-00000/copy: lies in SRC"):
        copy(store, store / "part-00000/copy")


def test_a_web_server_is_not_written_to(store):
    with pytest.raises(UsageError, match=r"^http://127.0.0.1:9/bits.zarr: is a web server, which is only read"):
        copy(store, "http://127.0.0.1:9/bits.zarr")
