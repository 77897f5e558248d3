"""What ``grn status`` finds below folders, and what it says of it."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

import grncli
from grncli.cli import app
from grncli.decoding.outputs import LIST
from grncli.decoding.outputs import MANIFEST as DECODE_MANIFEST
from grncli.evaluation.search_folder import MANIFEST, POINTS, RESULTS
from grncli.runtime.errors import GrnError
from grncli.runtime.files import replace_file
from grncli.runtime.folders import ClaimedFolder
from grncli.runtime.jsonfiles import to_json
from grncli.runtime.writer_status import STATUS, WriterStatus
from grncli.status import finding
from grncli.store import Fingerprint, open_part

BITS = Fingerprint(2, 4, (1, 4, 4), {"name": "toy", "sha256": "3f9c" * 16}, {})


def write_part(store, part, parts, *, done, sources, failed=0, complete=False):
    with open_part(store, BITS, part, parts) as writer:
        for number in range(failed):
            writer.fail(f"{number}.png", number, "truncated")
        made = done - failed
        rows = [{"key": str(row), "source": f"{row}.png"} for row in range(made)]
        writer.append((1, 2, 2), np.zeros((made, 1, 2, 2, 2, 1), np.uint8), np.full(made, -1), rows)
        writer.commit(done, "0" * 64, sources)
        if complete:
            writer.finish()


def say_of(folder, state="running", **changes):
    status = WriterStatus(
        command="grn", unit="things", state=state, host="node7", pid=4711, machine="another", **changes
    )
    replace_file(folder / STATUS, to_json(vars(status)).encode(), sync=False)


@pytest.fixture
def store(tmp_path):
    """Of 12 parts: two complete, one that runs elsewhere, one that failed, one left unfinished, one damaged."""
    path = tmp_path / "jobs/photos.zarr"
    path.parent.mkdir()
    for part in (0, 2):
        write_part(path, part, 12, done=10, sources=10, failed=part, complete=True)
    for part in (1, 4, 5, 7):
        write_part(path, part, 12, done=3, sources=10)
    say_of(path / "part-00001", done=6, total=10, rate=0.5)
    say_of(path / "part-00004", "failed", reason="clips/a.mp4: cannot be read", done=9)
    (path / "part-00007/commit.json").write_text("{")
    return path


def status(*arguments):
    done = CliRunner().invoke(app, ["status", *map(str, arguments)])
    assert done.exit_code == 0, done.stderr
    return done


def test_a_store_is_the_sum_of_its_parts(store):
    (work,) = grncli.work_status(store)
    assert (work.kind, work.unit, work.state) == ("bit store", "sources", "running")
    states = ["complete", "running", "complete", "not begun", "failed", "unfinished", "not begun", "damaged"]
    assert [piece.state for piece in work.pieces] == [*states, *["not begun"] * 4]
    assert [piece.part for piece in work.pieces] == list(range(12))
    assert (work.done, work.failed, work.rate) == (10 + 6 + 10 + 3 + 3, 2, 0.5)
    assert (work.total, work.is_estimated) == (120, True)
    assert work.seconds_left == (120 - 32) / 0.5


@pytest.mark.parametrize("width", [60, 90, 260])
def test_a_table_shows_what_needs_a_look_and_counts_the_rest(store, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = status(store).stdout
    assert max(map(len, text.splitlines())) <= width
    if width == 260:
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert any("2 complete, 1 damaged, 1 failed, 6 not begun, 1 running, 1 unfinished" in line for line in lines)
        assert any(line.startswith("part 1 running 6/10 sources 60 0.5") and "node7:4711" in line for line in lines)
        assert "parts 3, 6, 8-11 not begun" in lines
        assert not any(line.startswith("part 0 ") for line in lines)
    joined = " ".join(text.split())
    assert "part 4: failed: clips/a.mp4: cannot be read" in joined
    assert "part 7: damaged:" in joined
    assert "2 could not be read, such as 1.png: truncated" in joined


def test_the_document_has_every_part(store):
    (document,) = json.loads(status(store, "--json").stdout)
    assert document["states"] == {
        "complete": 2, "running": 1, "not begun": 6, "failed": 1, "unfinished": 1, "damaged": 1
    }  # fmt: skip
    assert document["path"] == str(store)
    assert [piece["part"] for piece in document["pieces"]] == list(range(12))
    assert document["pieces"][1]["host"] == "node7"
    assert document["pieces"][2]["last_failure"] == "1.png: truncated"


def test_of_a_thousand_parts_a_screenful_is_shown(tmp_path):
    store = tmp_path / "many.zarr"
    write_part(store, 0, 1000, done=1, sources=1, complete=True)
    for part in range(1, 40):
        (store / f"part-{part:05d}").mkdir()
        say_of(store / f"part-{part:05d}", "failed" if part == 30 else "running", done=part, total=50)
    text = status(store).stdout
    assert len(text.splitlines()) < 60
    assert "part 30 " in text
    assert "and 19 more" in text
    assert "parts 40-999" in text
    assert len(grncli.work_status(store)[0].pieces) == 1000


def test_a_folder_shows_all_the_work_below_it(store, tmp_path, make_run):
    samples = tmp_path / "jobs/samples"
    samples.mkdir()
    write_part(samples / "samples.zarr", 0, 1, done=4, sources=4, complete=True)
    search = tmp_path / "jobs/deeper/search"
    (search / POINTS / "temperature=1.zarr").mkdir(parents=True)
    (search / MANIFEST).write_text("{}")
    (search / RESULTS).write_text('{"a": 1}\n{"a": 2}\n')
    make_run(tmp_path / "jobs/tok")
    (tmp_path / "jobs/media").mkdir()
    (tmp_path / "jobs/media/recipe.yaml").write_text("eggs: 3")
    works = grncli.work_status([tmp_path / "jobs"])
    assert [(work.path.name, work.kind, work.state) for work in works] == [
        ("search", "search", "complete"),
        ("photos.zarr", "bit store", "running"),
        ("samples.zarr", "bit store", "complete"),
        ("tok", "tokenizer", "complete"),
    ]
    say_of(search, "stopped", done=2, total=9, reason="SIGTERM")
    (work,) = grncli.work_status(search)
    assert (work.state, work.done, work.total, work.unit) == ("stopped", 2, 9, "trials")


def test_samples_hide_nothing_that_lies_beside_them(tmp_path, make_run):
    """A job may keep all it makes in one folder, which looks like one of pictures with their bits."""
    for name in ("bits.zarr", "samples.zarr"):
        write_part(tmp_path / name, 0, 1, done=1, sources=1, complete=True)
    make_run(tmp_path / "generator")
    assert [work.path.name for work in grncli.work_status(tmp_path)] == ["bits.zarr", "generator", "samples.zarr"]


def test_columns_that_would_be_empty_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    write_part(tmp_path / "s.zarr", 0, 1, done=1, sources=1, complete=True)
    assert status(tmp_path).stdout.splitlines()[0].split() == ["state", "done", "%"]
    say_of(tmp_path / "s.zarr/part-00000")
    write_part(tmp_path / "t.zarr", 0, 1, done=2, sources=2, failed=1, complete=True)
    assert status(tmp_path).stdout.splitlines()[0].split() == ["state", "done", "%", "failed"]


@pytest.mark.parametrize(
    ("mark", "log", "kind"), [(MANIFEST, RESULTS, "search"), (DECODE_MANIFEST, LIST, "decoded files")]
)
def test_work_without_a_mark_of_its_end_runs_while_its_lock_is_held(tmp_path, mark, log, kind):
    (tmp_path / mark).write_text("{}")
    assert grncli.work_status(tmp_path)[0].state == "unfinished"
    (tmp_path / log).write_text('{"a": 1}\n{"a": 2}\n')
    with ClaimedFolder(tmp_path):
        (work,) = grncli.work_status(tmp_path)
        assert (work.state, work.done, work.total) == ("running", 2, None)
    (work,) = grncli.work_status(tmp_path)
    assert (work.kind, work.state, work.done, work.total) == (kind, "complete", 2, 2)


def test_a_store_that_lacks_its_mark_only_is_not_complete(tmp_path):
    write_part(tmp_path / "s.zarr", 0, 1, done=1, sources=1, complete=True)
    assert grncli.work_status(tmp_path)[0].state == "complete"
    (tmp_path / "s.zarr/COMPLETE").unlink()
    assert grncli.work_status(tmp_path)[0].state == "unfinished"


def test_a_damaged_log_of_failures_hides_nothing_else(store):
    log = store / "part-00002/failures.jsonl"
    log.write_bytes(b"\xff" * log.stat().st_size)
    part = grncli.work_status(store)[0].pieces[2]
    assert (part.state, part.failed, part.last_failure) == ("complete", 2, "")


def test_a_complete_store_has_all_that_is_in_it_also_where_a_part_has_nothing(tmp_path):
    for part in range(2):
        with open_part(tmp_path / "s.zarr", BITS, part, 2) as writer:
            writer.commit(1 - part, "0" * 64)
            writer.finish()
    (work,) = grncli.work_status(tmp_path)
    assert (work.state, work.done, work.total, work.is_estimated) == ("complete", 1, 1, False)


@pytest.mark.parametrize("text", [None, "{{{", "eggs: 3"])
def test_a_run_with_a_damaged_recipe_is_shown(tmp_path, make_run, text):
    make_run(tmp_path / "tok")
    (tmp_path / "tok/recipe.yaml").unlink()
    if text is not None:
        (tmp_path / "tok/recipe.yaml").write_text(text)
    (work,) = grncli.work_status(tmp_path)
    assert work.state == "damaged"
    assert str(tmp_path / "tok/recipe.yaml") in work.pieces[0].reason


def test_an_exported_run_is_complete(tmp_path, make_run):
    grncli.export_run(make_run(tmp_path / "tok"), tmp_path / "out/exported")
    state = tmp_path / "out/exported/state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"step": 7}))
    (work,) = grncli.work_status(tmp_path / "out")
    assert (work.kind, work.state, work.done, work.total) == ("tokenizer", "complete", 7, None)


def test_a_link_that_leads_to_itself_hides_nothing(store):
    (store.parent / "again").symlink_to("again")
    assert [work.path for work in grncli.work_status(store.parent)] == [store]


def test_a_damaged_store_does_not_hide_the_others(store):
    other = store.parent / "broken.zarr"
    other.mkdir()
    (other / "zarr.json").write_text('{"attributes": {"grn": {}}}')
    broken, sound = grncli.work_status(store.parent)
    assert broken.state == "damaged"
    assert "broken.zarr" in broken.pieces[0].reason
    assert sound.path == store


def test_a_folder_that_may_not_be_looked_into_hides_no_other(store, monkeypatch):
    closed, scan = store.parent / "closed", os.scandir
    closed.mkdir()

    def scandir(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(finding.os, "scandir", scandir)
    assert [work.path for work in grncli.work_status(store.parent)] == [store]
    with pytest.raises(PermissionError):
        grncli.work_status(closed)


def test_looking_leaves_no_file(store):
    before = sorted(os.listdir(store))
    status(store)
    assert sorted(os.listdir(store)) == before


@pytest.mark.parametrize(("name", "words"), [("none", "does not exist"), ("empty", "holds no store, run, samples")])
def test_where_there_is_no_work_one_sentence_says_so(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    with pytest.raises(GrnError, match=words):
        grncli.work_status(tmp_path / name)
    done = CliRunner().invoke(app, ["status", str(tmp_path / name)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
