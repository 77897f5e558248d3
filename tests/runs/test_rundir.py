"""Run directories: one writer, nothing of the user's is touched, nothing outside is, and a kill never locks one up."""

import json
import os
import subprocess
import sys

import pytest
import torch

from grncli.runs import rundir
from grncli.runs.checkpoint import COMPLETE, RECIPE, list_checkpoints, prune_checkpoints, write_checkpoint
from grncli.runs.rundir import (
    DataRecord,
    Place,
    check_run_is_free,
    clear_run,
    is_run,
    locked_run,
    mark_complete,
    new_record,
    read_record,
    refuse_links,
    tidy_run,
    write_record,
)
from grncli.runtime import folders
from grncli.runtime.errors import CheckpointError, LockError


@pytest.fixture
def run(tmp_path):
    """A run directory with one of everything."""
    folder = tmp_path / "run"
    for name in ("previews", "tensorboard"):
        (folder / name).mkdir(parents=True)
    (folder / RECIPE).write_text("kind: tokenizer\nnetwork: {}\n")
    for name in ("metrics.jsonl", "schedule.json", COMPLETE):
        (folder / name).touch()
    (folder / "previews" / "images-00000004.png").touch()
    (folder / "tensorboard" / "events.out.tfevents.1").touch()
    write_record(folder, new_record(None, None, None))
    save(folder, 4)
    return folder


def save(run, step):
    return write_checkpoint(run, step, {"ema": {"a": torch.zeros(1)}}, {"step": step}, {})


def message_of(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def all_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# One writer


def test_a_second_writer_is_told_who_the_first_is(run):
    holder = "from grncli.runs.rundir import locked_run; from pathlib import Path; import sys\n"
    holder += "with locked_run(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        told = message_of(LockError, lambda: locked_run(run).__enter__())
        process.kill()
    assert f"{run} is being trained by process {process.pid} on " in told
    with locked_run(run):  # the lock ends with its holder
        pass


def test_a_second_writer_in_the_same_process_is_refused(run):
    with locked_run(run):
        assert "is being trained by this process" in message_of(LockError, lambda: locked_run(run).__enter__())


def test_a_directory_that_nothing_came_of_is_not_left_behind(tmp_path):
    with pytest.raises(KeyError), locked_run(tmp_path / "a" / "run"):
        raise KeyError
    assert not (tmp_path / "a" / "run").exists()


def test_a_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    assert "run: cannot be written (" in message_of(
        CheckpointError, lambda: locked_run(tmp_path / "file" / "run").__enter__()
    )


def test_a_run_may_be_a_link_to_a_directory_that_is_not_there_yet(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    with locked_run(tmp_path / "run"):
        (tmp_path / "run" / RECIPE).touch()
    assert all_below(tmp_path / "disk" / "run") == [".lock", RECIPE]


# Whose it is


@pytest.mark.parametrize("name", [".lock", ".import.partial", ".recipe.yaml.tmp"])
def test_what_a_kill_left_before_there_was_a_recipe_is_free(tmp_path, name):
    (tmp_path / name).touch()
    check_run_is_free(tmp_path, "tokenizer", overwrite=False)


def test_a_strangers_directory_is_not_free(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "thesis.tex").touch()
    told = message_of(CheckpointError, check_run_is_free, tmp_path, "tokenizer", overwrite=True)
    assert "exists and is no run directory" in told


def test_a_recipe_that_stands_for_gigabytes_is_no_recipe(tmp_path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (tmp_path / RECIPE).write_text("\n".join(["kind: tokenizer", "network: {}", "a0: &a0 x", *levels]))
    assert not is_run(tmp_path)


def test_a_recipe_that_is_a_named_pipe_is_none(tmp_path):
    os.mkfifo(tmp_path / RECIPE)
    assert not is_run(tmp_path)


def test_only_names_of_ours_are_checkpoints(run):
    for name in ("step-00000002.bak", "step-best", "step-2", "step-٠٠٠٠٠٠٠٢", "step-000000002"):
        (run / "checkpoints" / "step-00000004").rename(run / "checkpoints" / name)
        assert list_checkpoints(run) == []
        (run / "checkpoints" / name).rename(run / "checkpoints" / "step-00000004")


def test_pruning_leaves_copies_alone(run):
    (run / "checkpoints" / "step-00000001.bak").mkdir()
    (run / "checkpoints" / "step-00000001.bak" / "state.json").touch()
    for step in (5, 6):
        save(run, step)
    prune_checkpoints(run, 1)
    assert sorted(os.listdir(run / "checkpoints")) == ["latest", "step-00000001.bak", "step-00000006"]


# Clearing


def test_clearing_leaves_the_recipe_that_says_whose_it_is(run):
    clear_run(run)
    assert all_below(run) == [RECIPE]


def test_clearing_leaves_what_is_the_users(run):
    mine = ["notes.txt", "checkpoints/step-best", "previews/mine.png", "tensorboard/mine"]
    for name in mine:
        (run / name).touch()
    clear_run(run)
    kept = [name for name in all_below(run) if "/" in name or name == "notes.txt"]
    assert kept == sorted(mine)


@pytest.mark.parametrize("name", ["checkpoints", "previews", "tensorboard", "metrics.jsonl", "run.json"])
def test_clearing_removes_a_link_and_leaves_what_it_points_at(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    kept = all_below(tmp_path / "elsewhere")
    clear_run(run)
    assert all_below(run) == [RECIPE]
    assert all_below(tmp_path / "elsewhere") == kept


class Killed(BaseException):
    pass


@pytest.mark.parametrize("number", range(9))
def test_clearing_can_be_killed_at_any_moment_and_called_again(run, monkeypatch, number):
    save(run, 8)
    real, calls = rundir.remove, []

    def kill(path):
        calls.append(path)
        if len(calls) > number:
            raise Killed
        real(path)

    with monkeypatch.context() as patched:
        patched.setattr(rundir, "remove", kill)
        with pytest.raises(Killed):
            clear_run(run)
    assert is_run(run)
    assert number == 0 or not (run / COMPLETE).exists()  # goes first
    clear_run(run)
    assert all_below(run) == [RECIPE]


def test_a_file_that_cannot_be_removed_is_named(run, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(run / "metrics.jsonl"))

    monkeypatch.setattr(folders.os, "unlink", refuse)
    assert "cannot be removed (Permission denied)" in message_of(CheckpointError, clear_run, run)


# Links and strangers in the place of ours


@pytest.mark.parametrize(
    "name",
    [
        *("checkpoints", "previews", "tensorboard", "metrics.jsonl", "run.json", "recipe.yaml", COMPLETE),
        *("checkpoints/step-00000004", "checkpoints/step-00000004/state.json", "previews/images-00000004.png"),
    ],
)
def test_a_link_in_the_place_of_what_is_written_is_refused_by_name(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert message_of(CheckpointError, refuse_links, run).startswith(f"{run / name}: is a link, expected a ")


def test_a_link_in_the_place_of_a_shard_is_refused(run, tmp_path):
    shard = run / "checkpoints/step-00000004/weights/rank-00000.safetensors"
    shard.parent.mkdir()
    shard.touch()
    refuse_links(run)
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere")
    assert message_of(CheckpointError, refuse_links, run).startswith(f"{shard}: is a link, expected a file")


def test_a_link_in_the_place_of_a_temporary_file_is_refused(run, tmp_path):
    (run / ".metrics.jsonl.tmp").symlink_to(tmp_path / "elsewhere")
    assert ".metrics.jsonl.tmp: is a link" in message_of(CheckpointError, refuse_links, run)


@pytest.mark.parametrize(("name", "kind"), [("checkpoints", "directory"), ("previews", "directory")])
def test_a_file_in_the_place_of_a_directory_is_refused(run, name, kind):
    clear_run(run)
    (run / name).touch()
    assert f"{name}: is no plain {kind}" in message_of(CheckpointError, refuse_links, run)


def test_latest_may_lead_anywhere(run):
    latest = run / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to("latest")
    refuse_links(run)
    save(run, 5)
    assert os.readlink(latest) == "step-00000005"


def test_what_killed_processes_left_is_removed(run):
    (run / ".metrics.jsonl.tmp").touch()
    (run / ".import.partial" / "checkpoints").mkdir(parents=True)
    for name in (".step-00000002.partial", ".step-00000003.old"):
        (run / "checkpoints" / name).mkdir()
    before = [name for name in all_below(run) if "partial" not in name and ".old" not in name and ".tmp" not in name]
    tidy_run(run)
    assert all_below(run) == before


def test_a_directory_that_took_the_place_of_a_run_is_another_one(run):
    place = Place(run)
    place.check()
    run.rename(run.with_name("moved"))
    assert "was moved, removed or replaced" in message_of(CheckpointError, place.check)
    run.mkdir()
    message_of(CheckpointError, place.check)


# Its record


def test_the_record_is_read_back(run):
    data = DataRecord("3f9c", 12, "sources", "/data/\udcff")
    record = new_record(None, data, "81d0")
    write_record(run, record)
    assert read_record(run) == record
    assert (record.command, record.resumed) == (sys.argv, None)


def test_a_resumed_run_keeps_when_it_began_and_what_was_asked(run):
    first = new_record(None, None, "81d0")
    again = new_record(first, None, None)
    assert (again.began, again.overwrite) == (first.began, "81d0")
    assert again.resumed is not None


@pytest.mark.parametrize(
    ("field", "value"), [("command", "grn"), ("data", {"digest": 4}), ("began", None), ("versions", [1])]
)
def test_a_damaged_record_is_told_by_its_field(run, field, value):
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {field: value}))
    assert f"run.json: field {field}" in message_of(CheckpointError, read_record, run).replace("has no field", "field")


def test_the_mark_is_an_empty_file(run):
    (run / COMPLETE).unlink()
    mark_complete(run)
    assert (run / COMPLETE).read_bytes() == b""


def test_what_is_left_of_an_import_killed_while_it_tidies_is_in_nobodys_way(run, tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    (begun / ".import.partial" / "checkpoints").mkdir(parents=True)

    def kill(path):
        raise Killed

    monkeypatch.setattr(folders.shutil, "rmtree", kill)
    with pytest.raises(Killed):
        rundir.remove(begun / ".import.partial")
    monkeypatch.undo()
    check_run_is_free(begun, "tokenizer", overwrite=False)
