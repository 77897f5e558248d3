"""Checkpoints in shards: whole or absent, written while the training goes on, resumed by any number of processes."""

import json
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from toy_processes import network_with_empty, run_together
from toy_training import Toy, files, launch, metrics, network

from grncli.runs.checkpoint import list_checkpoints, read_state, write_shard
from grncli.runs.stored_tensors import check_checkpoint, open_stored
from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.errors import CheckpointError
from grncli.runtime.processes import SINGLE_PROCESS
from grncli.training import sharded_checkpointer
from grncli.training.restoring import Position
from grncli.training.sharded_checkpointer import ShardedCheckpointer
from grncli.training.training_state import TrainingState

ROUNDING = 1e-6


def make_state():
    objective = Toy()
    objective.module, objective.optimization = network(), Optimization()
    return TrainingState(*objective.trainables(), torch.device("cpu"), SINGLE_PROCESS)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A folder of runs of two, three and four processes, and what each of these told."""
    folder = tmp_path_factory.mktemp("sharded")
    launch(folder / "mixed", steps=4)
    return folder, run_together(
        folder,
        (4, "four", "copies"),
        (2, "chain_begun", "four_resumed", "mixed", "stopped", "slow", "full", "apart", "empty"),
        (3, "chain_resumed"),
        (2, "killed"),
    )


@pytest.fixture
def folder(told):
    return told[0]


def assert_same_end(run, other):
    """As far as sums over several processes are those of one."""
    assert list_checkpoints(run)[-1].name == list_checkpoints(other)[-1].name
    left, right = files(run), files(other)
    for name in left:
        assert left[name].keys() == right[name].keys()
        for key, tensor in left[name].items():
            torch.testing.assert_close(right[name][key], tensor, atol=ROUNDING, rtol=1e-4, msg=f"{name} {key}")
    assert [line["step"] for line in metrics(run)] == [line["step"] for line in metrics(other)]


# Resuming


def test_a_run_of_four_processes_is_resumed_by_two(folder, whole):
    assert_same_end(whole, folder / "four")


def test_a_run_of_two_processes_is_resumed_by_three_and_then_by_one(folder, whole, tmp_path):
    run = shutil.copytree(folder / "chain", tmp_path / "chain", symlinks=True)
    assert len(read_state(list_checkpoints(run)[-1]).shards["weights"]) == 3
    launch(run, module=network(seed=99))
    assert read_state(list_checkpoints(run)[-1]).shards == {}
    assert_same_end(whole, run)


def test_a_run_of_whole_files_is_resumed_in_shards(folder, whole):
    first, last = map(read_state, list_checkpoints(folder / "mixed"))
    assert (first.step, first.shards, last.step, len(last.shards["ema"])) == (4, {}, 8, 2)
    assert_same_end(whole, folder / "mixed")


def test_machines_that_hold_copies_write_them_once_and_resume(folder, whole):
    checkpoint = list_checkpoints(folder / "copies")[0]
    assert list(check_checkpoint(checkpoint).shards["weights"]) == ["rank-00000.safetensors", "rank-00001.safetensors"]
    assert_same_end(whole, folder / "copies")


def test_a_process_without_rows_writes_what_it_has(folder):
    checkpoint = list_checkpoints(folder / "four")[0]
    counts = [record.tensors for record in read_state(checkpoint).shards["weights"].values()]
    assert counts == [4, 4, 4, 2]  # the last layer has three rows
    with open_stored(checkpoint, "weights") as stored:
        assert stored.sizes["2.weight"].shape == (3, 16)


def test_parameters_without_elements_are_saved_and_resumed(folder, tmp_path):
    run = shutil.copytree(folder / "empty", tmp_path / "run", symlinks=True)
    with open_stored(list_checkpoints(run)[-1], "weights") as stored:
        assert stored.read("empty").shape == (0, 4)
    launch(run, module=network_with_empty(seed=99), steps=6)
    assert check_checkpoint(list_checkpoints(run)[-1]).step == 6


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_reader_of_pytorch_reads_a_folder_of_shards(folder):
    checkpoint = list_checkpoints(folder / "four")[0]
    read = {name: torch.zeros_like(tensor) for name, tensor in network().state_dict().items()}
    dcp.load(read, storage_reader=dcp.HuggingFaceStorageReader(str(checkpoint / "ema")), no_dist=True)
    with open_stored(checkpoint, "ema") as stored:
        assert all(torch.equal(read[name], stored.read(name)) for name in stored.sizes)


# Saving


def test_the_training_goes_on_while_a_checkpoint_is_written(told, whole):
    folder, results = told
    assert results["slow"] == [1, 1]  # one save at a time
    assert [path.name for path in list_checkpoints(folder / "slow")] == [f"step-0000000{step}" for step in (3, 6, 8)]
    assert_same_end(whole, folder / "slow")


def test_what_is_saved_is_the_state_of_its_step(folder, tmp_path):
    launch(tmp_path, steps=3, checkpoint_every=3)
    slow = shutil.copytree(folder / "slow", tmp_path / "slow", symlinks=True)
    for later in list_checkpoints(slow)[1:]:
        shutil.rmtree(later)
    saved, expected = files(slow), files(tmp_path)
    for name in ("weights", "optimizer"):
        for key, tensor in expected[name].items():
            torch.testing.assert_close(saved[name][key], tensor, atol=ROUNDING, rtol=1e-4)


def test_a_stopped_run_is_saved(told):
    folder, results = told
    reasons = ["another process", "SIGTERM"]
    assert results["stopped"] == [f"{reason}: stopped after step 3 of 8, with everything saved" for reason in reasons]
    (checkpoint,) = list_checkpoints(folder / "stopped")
    assert check_checkpoint(checkpoint).step == 3


def test_a_full_disk_of_one_process_ends_all_at_the_same_step_with_one_sentence(told):
    folder, results = told
    first, second = results["full"]
    assert first == second
    assert first["begun"] < 100
    run = folder / "full"
    assert first["error"].startswith(f"{run}/checkpoints/step-00000004: cannot be written (process 1 on ")
    assert first["error"].endswith("File too large); earlier checkpoints are untouched")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step-00000002"]
    assert check_checkpoint(run / "checkpoints/latest").step == 2


def test_processes_killed_during_a_save_leave_the_checkpoint_before_it(folder, whole, tmp_path):
    run = shutil.copytree(folder / "killed", tmp_path / "killed", symlinks=True)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == [".step-00000004.partial", "latest", "step-00000002"]
    said = []
    launch(run, module=network(seed=99), say=said.append)
    assert said == []
    assert_same_end(whole, run)
    assert not (run / "checkpoints/.step-00000004.partial").exists()


def test_processes_that_do_not_share_the_run_directory_are_told_before_the_first_step(told):
    folder, results = told
    (sentence,) = set(results["apart"])
    assert sentence.startswith("run: is not the same directory for process 1 as for process 0")
    assert list((folder / "machine-0/run/checkpoints").iterdir()) == []
    assert not (folder / "machine-1/run").exists()


def own_checkpointer(run):
    return ShardedCheckpointer(run, {}, SINGLE_PROCESS, keep=2, keep_every=None, say=lambda text: None)


def test_a_run_that_was_moved_gets_no_checkpoint(tmp_path, monkeypatch):
    here = own_checkpointer(tmp_path / "run")

    def move(*arguments):
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        return write_shard(*arguments)

    monkeypatch.setattr(sharded_checkpointer, "write_shard", move)
    here.save(Position(1), [make_state()])
    for save in (here.finish, lambda: here.save(Position(2), [make_state()])):
        with pytest.raises(CheckpointError, match="was moved, removed or replaced while it was being trained"):
            save()
    assert not (tmp_path / "run").exists()
    assert list_checkpoints(tmp_path / "elsewhere") == []


def test_a_failure_is_told_once_and_the_next_save_may_do_well(tmp_path, monkeypatch):
    here = own_checkpointer(tmp_path)

    def fail(*arguments):
        raise MemoryError("no memory is left")

    monkeypatch.setattr(sharded_checkpointer, "write_shard", fail)
    here.save(Position(1), [make_state()])
    here.leave()
    assert here.failed
    with pytest.raises(CheckpointError, match=r"cannot be written \(process 0 on .*: no memory is left\)"):
        here.finish()
    assert not here.failed
    monkeypatch.undo()
    here.save(Position(2), [make_state()])
    assert here.newest().name == "step-00000002"  # which waits


# Damage


def another_step(file):
    other = file.read_bytes().replace(b'"step":"8"', b'"step":"9"')
    assert other != file.read_bytes()
    file.write_bytes(other)


def another_network(file):
    file.write_bytes(file.read_bytes().replace(b'width\\": 16', b'width\\": 17'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.unlink(), "No such file or directory), expected one of the 2 shards that state.json lists"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2]), "bytes, expected "),
        (lambda file: file.write_bytes(b"\xff" * file.stat().st_size), "cannot be read as safetensors"),
        (another_step, "is of step 9, expected 8"),
        (another_network, "is of another network than rank-00000.safetensors"),
    ],
    ids=["missing", "cut", "overwritten", "another step", "another network"],
)
def test_a_damaged_shard_is_named_and_the_checkpoint_before_it_taken(folder, whole, tmp_path, damage, words):
    run, said = shutil.copytree(folder / "mixed", tmp_path / "run", symlinks=True), []
    damage(run / "checkpoints/step-00000008/weights/rank-00001.safetensors")
    launch(run, say=said.append)
    (sentence,) = said
    assert sentence.startswith(f"{run}/checkpoints/step-00000008/weights/rank-00001.safetensors: ")
    assert words in sentence
    assert sentence.endswith("; resuming from the checkpoint before it")
    assert_same_end(whole, run)


def test_a_damaged_shard_of_the_only_checkpoint_is_an_error(folder, tmp_path):
    run = shutil.copytree(folder / "stopped", tmp_path / "run", symlinks=True)
    state = run / "checkpoints/step-00000003/state.json"
    document = json.loads(state.read_text())
    del document["shards"]["ema"]["rank-00000.safetensors"]
    state.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"/ema: the shards do not hold all of 0\.bias once"):
        launch(run)
