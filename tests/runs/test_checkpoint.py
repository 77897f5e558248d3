"""Checkpoints are whole or absent, and a pickle is data or refused."""

import json
import os
import pickle
import zipfile

import pytest
import torch

from grncli.models.tokenizer import TokenizerConfig
from grncli.runs import checkpoint
from grncli.runs.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_state,
    run_of,
    write_checkpoint,
)
from grncli.runs.networks import check_config
from grncli.runs.stored_tensors import open_stored
from grncli.runtime.errors import CheckpointError
from grncli.runtime.tensor_files import read_released, read_tensors, sha256_of


def write(run, step, value=None):
    named = {"a": torch.full((2, 3), float(step if value is None else value))}
    return write_checkpoint(run, step, {"ema": named, "weights": named}, {"step": step}, {"channels": 4})


@pytest.fixture
def run(tmp_path):
    """A run directory with one checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("kind: tokenizer\n")
    write(folder, 1)
    return folder


def message_of(call, *arguments):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Written whole


class Killed(BaseException):
    """What no handler of ours catches, as little as it catches a power cut."""


# What writing a checkpoint goes through, and how often.
STEPS = [("write_tensors", 2), ("_fsync", 6)]
MOMENTS = [(name, number) for name, times in STEPS for number in range(times)]


@pytest.mark.parametrize(("name", "number"), MOMENTS)
def test_a_crash_at_any_moment_leaves_a_complete_newest_checkpoint(run, monkeypatch, name, number):
    real, calls = getattr(checkpoint, name), []

    def crash(*arguments, **named):
        calls.append(name)
        if len(calls) > number:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, name, crash)
        with pytest.raises(Killed):
            write(run, 2)
    newest = find_checkpoint(run)
    step = read_state(newest).step
    assert read_tensors(newest / "ema.safetensors")["a"].unique().tolist() == [step]
    assert read_tensors(newest / "weights.safetensors")["a"].unique().tolist() == [step]


def test_a_crash_between_files_leaves_the_older_checkpoint_the_newest(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "_fsync", lambda path: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        write(run, 2)
    assert find_checkpoint(run).name == "step-00000001"


def test_what_a_crash_left_does_not_stop_the_next_attempt(run, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_fsync", lambda path: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write(run, 2)
    write(run, 2)
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_is_told_in_one_sentence(run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    assert "step-00000002: cannot be written" in message_of(write, run, 2)


def test_a_full_disk_leaves_nothing_behind(run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    message_of(write, run, 2)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-00000001", "latest"}


def test_latest_points_at_the_newest_checkpoint(run):
    write(run, 2)
    assert os.readlink(run / "checkpoints" / "latest") == "step-00000002"


def test_a_checkpoint_can_be_reached_through_latest(run):
    assert read_state(find_checkpoint(run / "checkpoints" / "latest")).step == 1


def test_the_run_of_latest_is_the_run(run):
    assert run_of(run / "checkpoints" / "latest") == run.resolve()


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step-00000001"])
def test_checkpoints_may_be_read_through_links(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert run_of(find_checkpoint(run)) == run.resolve()


def test_the_run_of_a_link_to_a_checkpoint_is_that_of_the_checkpoint(run, tmp_path):
    (tmp_path / "best").symlink_to(run / "checkpoints" / "step-00000001")
    assert run_of(find_checkpoint(tmp_path / "best")) == run.resolve()


@pytest.mark.parametrize("target", ["latest", "none"])
def test_a_link_that_leads_nowhere_is_no_run(run, target):
    (run / "checkpoints" / "latest").unlink()
    (run / "checkpoints" / "latest").symlink_to(target)
    assert "is not there" in message_of(find_checkpoint, run / "checkpoints" / "latest")
    assert find_checkpoint(run).name == "step-00000001"


def test_a_named_pipe_in_the_place_of_weights_is_not_waited_for(run):
    file = find_checkpoint(run) / "ema.safetensors"
    file.unlink()
    os.mkfifo(file)
    assert "cannot be read as safetensors (is no plain file)" in message_of(read_tensors, file)


def header_only(file, header):
    encoded = json.dumps(header).encode()
    file.write_bytes(len(encoded).to_bytes(8, "little") + encoded)


@pytest.mark.parametrize("config", ["[" * 5000, "[]", "3"])
def test_hostile_sizes_in_a_header_are_told_in_a_short_line(run, config):
    file = find_checkpoint(run) / "ema.safetensors"
    header_only(file, {"__metadata__": {"config": config}})
    with open_stored(file.parent, "ema") as stored:
        told = message_of(check_config, TokenizerConfig(), stored.metadata, stored.place)
    assert "ema.safetensors: config" in told
    assert len(told) < len(str(file)) + 300


def test_a_header_is_not_printed(run):
    file = find_checkpoint(run) / "ema.safetensors"
    header_only(file, {"x" * 100_000: {"dtype": "F32", "shape": [1], "data_offsets": [0, "x" * 100_000]}})
    assert len(message_of(read_tensors, file)) < len(str(file)) + 300


@pytest.mark.parametrize("name", [".step-00000002.partial", ".step-00000003.old", ".latest.partial"])
def test_what_a_killed_save_of_another_step_left_is_removed_by_the_next(run, name):
    (run / "checkpoints" / name).mkdir()
    write(run, 4)
    assert name not in os.listdir(run / "checkpoints")


def test_a_step_written_again_replaces_the_old_one(run):
    write(run, 1, value=7)
    assert read_tensors(find_checkpoint(run) / "ema.safetensors")["a"].unique().tolist() == [7]


def test_tensors_that_are_not_contiguous_are_written_too(tmp_path):
    turned = torch.arange(6.0).view(2, 3).T
    written = write_checkpoint(tmp_path, 1, {"ema": {"a": turned}}, {}, {})
    assert torch.equal(read_tensors(written / "ema.safetensors")["a"], turned)


def test_the_hash_covers_the_sizes_of_the_network(tmp_path):
    tensors = {"ema": {"a": torch.zeros(2)}}
    first = write_checkpoint(tmp_path / "a", 1, tensors, {}, {"channels": 4})
    other = write_checkpoint(tmp_path / "b", 1, tensors, {}, {"channels": 5})
    assert sha256_of(first / "ema.safetensors") != sha256_of(other / "ema.safetensors")


def test_the_same_weights_have_the_same_hash(tmp_path):
    hashes = {sha256_of(write(tmp_path / name, 1) / "ema.safetensors") for name in "ab"}
    assert len(hashes) == 1


# Found again


def test_checkpoints_are_listed_oldest_first(run):
    for step in (100, 20, 3):
        write(run, step)
    assert [int(path.name[5:]) for path in list_checkpoints(run)] == [1, 3, 20, 100]


def test_pruning_keeps_the_newest(run):
    for step in (2, 3, 4):
        write(run, step)
    prune_checkpoints(run, 2)
    assert [int(path.name[5:]) for path in list_checkpoints(run)] == [3, 4]


def test_pruning_keeps_all_where_there_are_fewer(run):
    prune_checkpoints(run, 5)
    assert len(list_checkpoints(run)) == 1


def test_an_incomplete_folder_is_no_checkpoint(run):
    (run / "checkpoints" / "step-00000009").mkdir()
    assert find_checkpoint(run).name == "step-00000001"


def test_the_newest_checkpoint_is_found(run):
    write(run, 2)
    assert find_checkpoint(run).name == "step-00000002"


def test_a_checkpoint_may_be_given_for_its_run(run):
    write(run, 2)
    assert find_checkpoint(run / "checkpoints" / "step-00000001").name == "step-00000001"


def test_a_missing_run_is_told(tmp_path):
    assert f"{tmp_path / 'none'}: is not there, expected a run directory" in message_of(
        find_checkpoint, tmp_path / "none"
    )


def test_a_folder_that_is_no_run_is_told(tmp_path):
    assert "holds no recipe.yaml" in message_of(find_checkpoint, tmp_path)


def test_a_run_without_checkpoints_is_told(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    assert "has no complete checkpoint yet" in message_of(find_checkpoint, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 100])
def test_damaged_tensors_are_told(tmp_path, content):
    (tmp_path / "ema.safetensors").write_bytes(content)
    assert "ema.safetensors: cannot be read as safetensors" in message_of(read_tensors, tmp_path / "ema.safetensors")


def test_truncated_tensors_are_told(run):
    file = find_checkpoint(run) / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    assert "cannot be read as safetensors" in message_of(read_tensors, file)


def test_missing_tensors_are_told(tmp_path):
    assert "cannot be read as safetensors" in message_of(read_tensors, tmp_path / "none.safetensors")


STATES = [
    ("", "state.json: cannot be read"),
    ("{", "state.json: cannot be read"),
    ("\0", "state.json: cannot be read"),
    ("[" * 100_000, "state.json: cannot be read as JSON (it is nested too deeply)"),
    ("[1, 2]", "state.json: is [1, 2], expected"),
    ("3", "state.json: is 3, expected"),
    ("{}", "state.json: has no field step"),
    ('{"step": "4"}', "state.json: field step is '4', expected"),
    ('{"step": 4.0}', "state.json: field step is 4.0, expected"),
    ('{"step": -1}', "state.json: field step is -1, expected"),
    ('{"step": 1, "averaged": true}', "field averaged is True, expected"),
    ('{"step": 1, "sums": [{"loss": [1]}]}', "field sums.0.loss is [1], "),
    ('{"step": 1, "sums": [{"loss": "12"}]}', "field sums.0.loss is '12', expected"),
    ('{"step": 1, "tensors": {"../../x": 1}}', "field tensors"),
    ('{"step": "' + "x" * 100_000 + '"}', "field step is 'xxx"),
]


@pytest.mark.parametrize(("content", "words"), STATES)
def test_a_damaged_state_is_told_by_file_and_field_in_a_short_line(tmp_path, content, words):
    (tmp_path / "state.json").write_text(content)
    told = message_of(read_state, tmp_path)
    assert words in told
    assert told.endswith("; use another checkpoint")
    assert len(told) < len(str(tmp_path)) + 400


def test_a_checkpoint_that_is_called_by_another_step_is_damaged(run):
    (run / "checkpoints" / "step-00000001").rename(run / "checkpoints" / "step-00000009")
    assert "state.json: field step is 1, expected 9" in message_of(read_state, find_checkpoint(run))


# Pickles


class Hostile:
    """Unpickled by Python, this makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class Harmless:
    pass


def raw_pickle(content, file):
    file.write_bytes(pickle.dumps(content))


def torch_zip(content, file):
    torch.save(content, file)


def torch_legacy(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


each_format = pytest.mark.parametrize("save", [raw_pickle, torch_zip, torch_legacy])
each_torch_format = pytest.mark.parametrize("save", [torch_zip, torch_legacy])


@each_format
def test_the_hostile_pickle_is_hostile(tmp_path, save):
    """The two tests below prove nothing if the file cannot do harm at all."""
    save({"ema": Hostile(tmp_path / "harmed")}, tmp_path / "x.ckpt")
    if save is raw_pickle:
        pickle.loads((tmp_path / "x.ckpt").read_bytes())
    else:
        torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert (tmp_path / "harmed").is_dir()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@each_format
def test_a_hostile_pickle_does_not_run_its_code(tmp_path, save):
    save({"ema": Hostile(tmp_path / "harmed")}, tmp_path / "x.ckpt")
    message_of(read_released, tmp_path / "x.ckpt")
    assert not (tmp_path / "harmed").exists()


@each_torch_format
def test_a_hostile_pickle_is_told_by_what_it_calls(tmp_path, save):
    save({"ema": Hostile(tmp_path / "harmed")}, tmp_path / "x.ckpt")
    assert f"asks to build or call {os.mkdir.__module__}.mkdir" in message_of(read_released, tmp_path / "x.ckpt")


@each_torch_format
def test_objects_of_other_classes_are_refused(tmp_path, save):
    save({"ema": {"a": torch.zeros(1)}, "args": Harmless()}, tmp_path / "x.ckpt")
    assert "Harmless; refused" in message_of(read_released, tmp_path / "x.ckpt")


@each_torch_format
def test_tensors_and_plain_values_are_read(tmp_path, save):
    save({"ema": {"a": torch.arange(3.0)}, "epoch": 5, "names": ["x", None]}, tmp_path / "x.ckpt")
    loaded = read_released(tmp_path / "x.ckpt")
    assert (loaded["ema"]["a"].tolist(), loaded["epoch"], loaded["names"]) == ([0, 1, 2], 5, ["x", None])


def no_zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"PNG and more bytes"),
        lambda file: file.write_text(json.dumps({"ema": 1})),
        lambda file: file.write_bytes(b"\x80\x02\xff\xff\xff"),
        no_zip,
    ],
    ids=["empty", "bytes", "json", "broken pickle", "another zip"],
)
def test_a_file_that_is_no_checkpoint_is_told(tmp_path, make):
    make(tmp_path / "x.ckpt")
    assert "x.ckpt: is no PyTorch checkpoint, or a damaged one" in message_of(read_released, tmp_path / "x.ckpt")


def test_a_truncated_checkpoint_is_told(tmp_path):
    torch_zip({"ema": {"a": torch.zeros(1000)}}, tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes((tmp_path / "x.ckpt").read_bytes()[:2000])
    assert "damaged" in message_of(read_released, tmp_path / "x.ckpt")


def test_a_checkpoint_that_is_no_dictionary_is_told(tmp_path):
    torch_zip([torch.zeros(1)], tmp_path / "x.ckpt")
    assert "holds a list, expected a dictionary of weights" in message_of(read_released, tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["none.ckpt", "."])
def test_a_checkpoint_that_is_no_file_is_told(tmp_path, name):
    assert "is not a file, expected a released checkpoint" in message_of(read_released, tmp_path / name)


def test_every_kth_checkpoint_is_kept_besides_the_newest(tmp_path):
    for step in (5, 10, 15, 20, 25, 30):
        write_checkpoint(tmp_path, step, {"ema": {"a": torch.zeros(1)}}, {"step": step}, {})
    prune_checkpoints(tmp_path, keep=2, keep_every=10)
    assert [int(path.name[5:]) for path in list_checkpoints(tmp_path)] == [10, 20, 25, 30]
