"""Copies of run directories: complete checkpoints and what lies beside them, never what is temporary."""

import json
import shutil
from uuid import uuid4

import pytest

from grncli import copy, export_run
from grncli.runs.describing import describe
from grncli.runtime.errors import CheckpointError, StoreError
from grncli.runtime.remote_objects import RemoteObjects
from grncli.transfer import destinations, sending
from grncli.transfer.run_copying import run_files


@pytest.fixture
def run(make_run, tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def url():
    return f"memory://{uuid4().hex}/run"


def add_checkpoint(run):
    """Another one, as if the training had gone on."""
    (step,) = (run / "checkpoints").glob("step-*")
    return shutil.copytree(step, run / "checkpoints/step-00009999")


def test_there_and_back_it_is_the_same_network(run, url, tmp_path):
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    for hidden in (".lock", ".status.json", ".metrics.jsonl.tmp", "previews/.images.png.tmp"):
        (run / hidden).parent.mkdir(exist_ok=True)
        (run / hidden).write_text("{}")
    assert copy(run, url).kind == "run"
    assert not [name for name in RemoteObjects(url).walk("") if name.startswith(".") or "/." in name]
    assert copy(run, url).copied == 0
    copy(url, tmp_path / "new/folders/back")
    back = tmp_path / "new/folders/back"
    assert describe(back, verify=True)["sha256"] == describe(run)["sha256"]
    assert (back / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_a_new_checkpoint_is_all_that_is_sent(run, url):
    copy(run, url)
    later = add_checkpoint(run)
    assert copy(run, url).copied == len(list(later.iterdir()))


def test_the_run_of_another_recipe_is_kept_unless_it_is_to_be_replaced(run, make_run, tmp_path, url):
    copy(run, url)
    other = make_run(tmp_path / "other", rounds=2)
    with pytest.raises(CheckpointError, match=rf"^{url}: its recipe.yaml is not that of .*--overwrite"):
        copy(other, url)
    copy(other, url, overwrite=True)
    assert RemoteObjects(url).read("recipe.yaml") == (other / "recipe.yaml").read_bytes()


def test_a_place_of_something_else_is_kept(run, tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(CheckpointError, match="holds something else than a run"):
        copy(run, tmp_path, overwrite=True)


@pytest.fixture
def before_sending(monkeypatch):
    """Lets a test do something before files are sent."""

    def patch(hook):
        put = sending.Sender._put

        def hooked(sender, content):
            hook(content.name)
            return put(sender, content)

        monkeypatch.setattr(sending.Sender, "_put", hooked)

    return patch


def test_a_checkpoint_that_the_training_removes_meanwhile_is_left_out(run, tmp_path, before_sending):
    newest = add_checkpoint(run)
    (oldest,) = set(newest.parent.glob("step-*")) - {newest}

    def prune(name):
        if name == f"checkpoints/{oldest.name}/state.json":
            shutil.rmtree(oldest)

    before_sending(prune)
    copy(run, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy/checkpoints").iterdir()] == [newest.name]
    assert copy(run, tmp_path / "copy").copied == 0


def test_a_run_of_which_every_checkpoint_is_removed_meanwhile_is_said(run, url, before_sending):
    before_sending(lambda name: shutil.rmtree(run / "checkpoints", ignore_errors=True))
    with pytest.raises(CheckpointError, match="its checkpoints were removed while they were copied; run the same"):
        copy(run, url)


def test_a_checkpoint_whose_tensors_change_is_not_complete_meanwhile(run, url, before_sending):
    copy(run, url)
    (weights,) = run.glob("checkpoints/step-*/ema.safetensors")
    state = str(weights.with_name("state.json").relative_to(run))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    seen = []
    before_sending(lambda name: seen.append((name, RemoteObjects(url).size(state))))
    copy(run, url)
    assert seen[0] == (str(weights.relative_to(run)), None)
    assert RemoteObjects(url).size(state) == weights.with_name("state.json").stat().st_size


def test_a_full_disk_is_said_and_the_copy_resumes(run, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(destinations, "sync_directory", full)
        with pytest.raises(StoreError, match=r"copy/recipe.yaml: cannot be written \(No space left .*; choose"):
            copy(run, tmp_path / "copy")
    copy(run, tmp_path / "copy")
    assert describe(tmp_path / "copy")["sha256"] == describe(run)["sha256"]


def test_what_marks_comes_after_what_it_marks():
    names = {
        *("COMPLETE", "recipe.yaml", "run.json", "metrics.jsonl", ".lock", "previews/images-00000001.png"),
        *("checkpoints/step-00000001/state.json", "checkpoints/step-00000001/ema.safetensors"),
        *("checkpoints/step-00000004/state.json", "checkpoints/step-00000004/ema-1-of-2.safetensors"),
        *("checkpoints/step-00000002/ema.safetensors", "checkpoints/.step-00000003.partial/state.json"),
        *("checkpoints/latest", "checkpoints/.latest.partial"),
    }
    assert run_files(names).every == [
        "recipe.yaml",
        *("checkpoints/step-00000004/ema-1-of-2.safetensors", "checkpoints/step-00000004/state.json"),
        *("checkpoints/step-00000001/ema.safetensors", "checkpoints/step-00000001/state.json"),
        *("metrics.jsonl", "previews/images-00000001.png", "run.json"),
        "COMPLETE",
    ]
    export = ["README.md", "ema.safetensors", "export.json", "recipe.yaml", "state.json"]
    assert run_files(export).every == ["recipe.yaml", "ema.safetensors", "export.json", "README.md", "state.json"]


def test_exports_are_copied_in_either_layout(run, tmp_path, url):
    for layout in ("grn", "release"):
        folder = tmp_path / layout
        export_run(run, folder, layout=layout)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert copy(folder, f"{url}/{layout}").copied == len(names)
        assert set(RemoteObjects(f"{url}/{layout}").walk("")) == names
    with pytest.raises(CheckpointError, match=r"its export.json is not that of .*release"):
        copy(tmp_path / "release", f"{url}/grn")


def test_what_only_the_destination_has_stays(run, tmp_path):
    copy(run, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("mine")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    assert copy(run, tmp_path / "copy").copied == 1
    assert (tmp_path / "copy/README.md").read_text() == "mine"
