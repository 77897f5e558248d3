"""Exported runs: the same network under the same hash, a card of what the run knows, and files whole or not at all."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from grncli import export_run
from grncli.runs import exporting
from grncli.runs.checkpoint import OFFSETS, write_checkpoint
from grncli.runs.describing import describe
from grncli.runs.exporting import FILES
from grncli.runs.generator_recipe import BitData, Bits, GeneratorOptimization, GeneratorRecipe, GeneratorTraining
from grncli.runs.generators import load_generator, open_generator
from grncli.runs.importing import import_released
from grncli.runs.recipe import dump_recipe
from grncli.runs.rundir import DataRecord, RunRecord, write_record
from grncli.runs.tokenizers import load_tokenizer, open_tokenizer
from grncli.runtime.errors import CheckpointError, LockError, UsageError
from grncli.runtime.folders import ClaimedFolder
from grncli.runtime.monitor import Monitor
from grncli.runtime.tensor_files import open_tensors, read_tensors, sha256_of
from grncli.store import Fingerprint, open_part
from grncli.training.run_setup import PresentRun
from grncli.training.starting_run import begin_from

DATA = DataRecord("3f9c" * 16, 9, "samples")
RECORD = RunRecord(
    command=["grn", "train-gen", "/home/someone/secret"],
    versions={"grn": "1.2.3", "torch": "2.13.0"},
    host="login7",
    began="2026-05-01T10:00:00+00:00",
    resumed="2026-05-02T10:00:00+00:00",
    data=DATA,
)
LOG = [
    {"step": 1, "loss": 0.7, "seconds": 2.0},
    {"step": 2, "loss": 0.5, "accuracy": 0.75, "validation_loss": 0.625, "seconds": 2.0},
    {"step": 3, "loss": 0.25, "waiting_share": 0.1},
    {"step": 4, "loss": 0.125, "validation_loss": 0.0625},
]
TOKENIZER = {"name": "tok", "sha256": "81d0" * 16}
each_layout = pytest.mark.parametrize("layout", list(FILES))


@pytest.fixture(scope="module")
def run(make_generator, tmp_path_factory):
    """A trained run at step 3 of 5, whose log is one step ahead of its checkpoint."""
    return write_trained(tmp_path_factory.mktemp("runs") / "gen", make_generator)


def write_trained(folder, make_generator):
    networks = {name: make_generator(seed=seed) for seed, name in enumerate(("ema", "ema2", "weights"))}
    bits = Bits(
        tokenizer=TOKENIZER,
        stride=(2, 4, 4),
        labels=("ant", "b|`ee`", "cat"),
        grids={"1x4x4": 9},
        stores=("ab" * 32,),
    )
    recipe = GeneratorRecipe(
        network=networks["ema"].config,
        bits=bits,
        data=BitData(validation=4),
        training=GeneratorTraining(steps=5),
        optimization=GeneratorOptimization(ema=(0.75, 0.5)),
    )
    tensors = {name: network.state_dict() for name, network in networks.items()}
    write_checkpoint(folder, 3, tensors, {"step": 3, "averaged": 3}, asdict(recipe.network))
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    write_record(folder, RECORD)
    return folder


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One sample of the bits that the run learned."""
    path = tmp_path_factory.mktemp("stores") / "bits.zarr"
    fingerprint = Fingerprint(
        rounds=2,
        channels=4,
        stride=(2, 4, 4),
        tokenizer=TOKENIZER,
        preprocessing={},
        labels=("ant", "b|`ee`", "cat"),
        versions={},
    )
    with open_part(path, fingerprint, 0, 1) as writer:
        bits = np.zeros((1, 1, 4, 4, 2, 1), np.uint8)
        writer.append((1, 4, 4), bits, np.zeros(1, np.int32), [{"key": "a", "source": "a"}])
        writer.commit(1, "00" * 32, 1)
        writer.finish()
    return path


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], tensor) for name, tensor in other.items())


# What is exported


def test_an_exported_run_opens_as_the_run_does(run, tmp_path):
    made = export_run(run, tmp_path / "out")
    theirs, ours = open_generator(run), open_generator(tmp_path / "out")
    assert same(ours.network.state_dict(), theirs.network.state_dict())
    assert ours.identity == {"name": "out", "sha256": theirs.identity["sha256"]}
    assert (ours.recipe, ours.step, made.sha256) == (theirs.recipe, 3, theirs.identity["sha256"])
    assert made.file.read_bytes() == (run / "checkpoints" / "step-00000003" / "ema.safetensors").read_bytes()
    assert set(files_in(tmp_path / "out")) == {*FILES["grn"], "export.json"}


def test_an_exported_run_is_described_as_the_run(run, tmp_path):
    export_run(run, tmp_path / "out")
    own = {"name": "out", "checkpoint": "out", "problems": []}
    assert describe(tmp_path / "out", verify=True) == {**describe(run), **own}


@pytest.mark.parametrize(("weights", "seed"), [("ema", 0), ("ema2", 1), ("weights", 2)])
def test_any_of_the_weights_is_what_the_export_is_used_by(run, tmp_path, make_generator, weights, seed):
    export_run(run, tmp_path / "out", weights=weights)
    assert same(load_generator(tmp_path / "out").state_dict(), make_generator(seed=seed).state_dict())


def test_weights_that_are_not_there_are_refused_with_those_that_are(tokenizer, tmp_path):
    with pytest.raises(UsageError, match="has no weights called ema2, expected one of ema"):
        export_run(tokenizer, tmp_path / "out", weights="ema2")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_can_be_exported_by_its_own_name(run, tmp_path):
    export_run(run / "checkpoints" / "step-00000003", tmp_path / "out")
    assert open_generator(tmp_path / "out").identity["sha256"] == open_generator(run).identity["sha256"]


def test_an_export_can_be_exported(tokenizer, tmp_path):
    export_run(tokenizer, tmp_path / "one")
    export_run(tmp_path / "one", tmp_path / "two")
    assert open_tokenizer(tmp_path / "two").identity["sha256"] == open_tokenizer(tokenizer).identity["sha256"]


def test_bfloat16_halves_the_file_and_rounds_the_weights(run, tmp_path):
    made = export_run(run, tmp_path / "out", dtype="bfloat16")
    weights = read_tensors(made.file)
    assert same(weights, {name: each.bfloat16() for name, each in load_generator(run).state_dict().items()})
    assert made.dtype == "bfloat16"
    assert same(load_generator(tmp_path / "out").state_dict(), {name: each.float() for name, each in weights.items()})


def test_a_rounded_tokenizer_is_told_to_make_other_bits(tokenizer, tmp_path):
    said = []
    export_run(tokenizer, tmp_path / "same", progress=Monitor(say=said.append))
    assert said == []
    export_run(tokenizer, tmp_path / "out", dtype="bfloat16", progress=Monitor(say=said.append))
    assert "stores of the one do not fit the other" in said[0]


def test_an_unfinished_training_is_told(run, tmp_path):
    said = []
    export_run(run, tmp_path / "out", progress=Monitor(say=said.append))
    assert said == [f"{run}: is at step 3 of 5, its training is not finished"]


def test_weights_that_are_no_numbers_are_refused(run, tmp_path, make_generator):
    spoilt = make_generator().state_dict()
    spoilt["head.linear.bias"][1] = float("nan")
    broken = write_trained(tmp_path / "gen", make_generator)
    config = asdict(open_generator(run).recipe.network)
    write_checkpoint(broken, 4, {"ema": spoilt}, {"step": 4}, config)
    with pytest.raises(CheckpointError, match=r"head\.linear\.bias has values that are no finite numbers"):
        export_run(broken, tmp_path / "out")
    with pytest.raises(CheckpointError, match="expected a run directory"):
        load_generator(tmp_path / "out")


def test_progress_counts_the_bytes_of_the_weights(run, tmp_path):
    heard = []
    export_run(run, tmp_path / "out", progress=lambda done, total, note: heard.append((done, total)))
    size = sum(4 * weight.numel() for weight in load_generator(run).parameters())
    assert heard[-1] == (size, size)


def shard(checkpoint, processes):
    """Put the weights of a checkpoint into files of several processes, as sharded training leaves them."""
    whole, records = read_tensors(checkpoint / "ema.safetensors"), {}
    with open_tensors(checkpoint / "ema.safetensors") as opened:
        header = {**opened.metadata(), "step": "3"}
    (checkpoint / "ema").mkdir()
    for rank in range(processes):
        parts = {name: each.chunk(processes) for name, each in whole.items()}
        own = {name: each[rank].contiguous() for name, each in parts.items() if rank < len(each)}
        offsets = {
            name: {"saved_offsets": [rank * len(parts[name][0]), *[0] * (each.dim() - 1)]} for name, each in own.items()
        }
        file = checkpoint / "ema" / f"rank-{rank:05d}.safetensors"
        save_file(own, file, {**header, OFFSETS: json.dumps(offsets)})
        records[file.name] = {"bytes": file.stat().st_size, "tensors": len(own)}
    (checkpoint / "ema.safetensors").unlink()
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({**state, "shards": {"ema": records}}))


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_become_the_one_file_that_one_process_would_have_written(run, make_generator, tmp_path, processes):
    sharded = write_trained(tmp_path / "gen", make_generator)
    shard(sharded / "checkpoints" / "step-00000003", processes)
    made = export_run(sharded, tmp_path / "out")
    assert made.file.read_bytes() == (run / "checkpoints" / "step-00000003" / "ema.safetensors").read_bytes()
    assert open_generator(sharded).identity["sha256"] == made.sha256
    released = [export_run(each, tmp_path / each.parent.name, layout="release") for each in (run, sharded)]
    assert released[0].sha256 == released[1].sha256


def test_a_missing_shard_gets_one_sentence_and_leaves_nothing(make_generator, tmp_path):
    sharded = write_trained(tmp_path / "gen", make_generator)
    shard(sharded / "checkpoints" / "step-00000003", 2)
    (sharded / "checkpoints" / "step-00000003" / "ema" / "rank-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rank-00001\.safetensors: cannot be read"):
        export_run(sharded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The card


@each_layout
def test_the_card_says_what_the_run_knows(run, tmp_path, layout):
    made = export_run(run, tmp_path / "out", layout=layout)
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (
        "# out\n",
        "A class-conditional generator of Generative Refinement Networks (GRN_bit",
        "2 rounds x 4 channels a token of 2x4x4 pixels",
        "moving average with a decay of 0.75 a step (ema)",
        "| step | 3 of 5, not finished |",
        made.sha256,
        "2026-05-01T10:00:00+00:00",
        "grn 1.2.3, torch 2.13.0",
        f"trained on 9 samples; digest of the hashes of the stores' bits and captions: `{DATA.digest}`",
        "`tok`, sha256 `81d0",
        "3 classes: `ant`, `` b|`ee` ``, `cat`",
        "https://arxiv.org/abs/2604.13030",
    ):
        assert text in card, text


def test_figures_are_those_of_the_step_that_is_exported(run, tmp_path):
    export_run(run, tmp_path / "out")
    figures = (tmp_path / "out" / "README.md").read_text().partition("## Figures")[2].partition("## Use")[0]
    assert "Of 4 samples that were held out, after step 2:" in figures
    assert "| `validation_loss` | 0.625 |" in figures
    assert "up to step 3:" in figures
    assert "| `loss` | 0.25 |" in figures
    assert "0.0625" not in figures
    assert "waiting" not in figures


def test_nothing_of_the_machine_is_published(run, tmp_path):
    export_run(run, tmp_path / "out")
    published = b"".join(files_in(tmp_path / "out").values())
    for private in (b"secret", b"login7", str(run.parent).encode()):
        assert private not in published


def test_a_run_without_figures_has_none_in_its_card(tokenizer, tmp_path):
    export_run(tokenizer, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Figures\n\nNone were recorded.\n" in card
    assert "what it was trained on is not recorded" in card
    assert "imported: file `drawn`" in card


def test_the_front_matter_and_the_recipe_of_a_card_are_yaml(run, tmp_path):
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "grncli"
    fence = card.partition("## Recipe\n\n")[2].partition("\n\n## Paper")[0].splitlines()
    assert len({fence[0].removesuffix("yaml"), fence[-1]}) == 1
    assert yaml.safe_load("\n".join(fence[1:-1])) == yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())


# Again, and over what is there


@each_layout
def test_a_finished_export_is_left_alone(run, tmp_path, layout):
    first = export_run(run, tmp_path / "out", layout=layout)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = export_run(run, tmp_path / "out", layout=layout)
    assert (first.present, again) == (False, replace(first, present=True))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "bfloat16"}, "dtype=float32 there, bfloat16 asked"),
        ({"layout": "release"}, "layout=grn there, release asked"),
        ({"weights": "ema2"}, "weights=ema there, ema2 asked"),
    ],
)
def test_another_export_is_replaced_only_when_asked(run, tmp_path, options, words):
    export_run(run, tmp_path / "out")
    (tmp_path / "out" / "LICENSE").write_text("mine")
    before = files_in(tmp_path / "out")
    with pytest.raises(UsageError, match=words):
        export_run(run, tmp_path / "out", **options)
    assert files_in(tmp_path / "out") == before
    export_run(run, tmp_path / "out", **options, overwrite=True)
    export_run(run, tmp_path / "fresh", **options)
    fresh, replaced = files_in(tmp_path / "fresh"), files_in(tmp_path / "out")
    assert replaced.pop("LICENSE") == b"mine"
    assert replaced.keys() == fresh.keys()
    assert all(replaced[name] == fresh[name] for name in fresh if name != "README.md")  # which has the folder's name


def test_a_folder_of_anything_else_is_never_written_into(run, tokenizer, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("dear")
    for folder in (tmp_path / "photos", tokenizer):
        before = files_in(tmp_path / "photos"), sorted(tokenizer.iterdir())
        with pytest.raises(UsageError, match="holds files that grn export did not write"):
            export_run(run, folder, overwrite=True)
        assert (files_in(tmp_path / "photos"), sorted(tokenizer.iterdir())) == before
    with pytest.raises(UsageError, match="is the run itself"):
        export_run(run, run, overwrite=True)


def test_two_exports_to_one_folder_wait_for_each_other(run, tmp_path):
    (tmp_path / "out").mkdir()
    with ClaimedFolder(tmp_path / "out"), pytest.raises(LockError, match="is being written by"):
        export_run(run, tmp_path / "out")
    export_run(run, tmp_path / "out")


def test_a_full_disk_leaves_what_was_exported_before(run, tmp_path, monkeypatch):
    export_run(run, tmp_path / "out")
    before = files_in(tmp_path / "out")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(exporting, "write_tensors", full)
        words = r"out/ema\.safetensors: cannot be written \(No space left on device\); choose another DIR, or free"
        with pytest.raises(CheckpointError, match=words):
            export_run(run, tmp_path / "out", weights="ema2", overwrite=True)
    assert files_in(tmp_path / "out") == before


@pytest.mark.parametrize("marker", ['{"layout": []}', '{"layout": {"grn": 1}}', "{}"])
def test_a_mark_that_says_nothing_is_that_of_an_unfinished_export(run, tmp_path, marker):
    export_run(run, tmp_path / "out")
    (tmp_path / "out" / "export.json").write_text(marker)
    assert not export_run(run, tmp_path / "out").present
    assert export_run(run, tmp_path / "out").present


@pytest.mark.parametrize("marker", ["[]", "{", "7"])
def test_a_damaged_mark_is_named(run, tmp_path, marker):
    export_run(run, tmp_path / "out")
    (tmp_path / "out" / "export.json").write_text(marker)
    with pytest.raises(UsageError, match=r"out/export\.json: .*; choose another DIR"):
        export_run(run, tmp_path / "out")


class Killed(BaseException):
    """What no handler of ours catches, as little as it catches a kill."""


def die(*_, **__):
    raise Killed


MOMENTS = ["write_tensors", "remove", "sha256_of", "model_card", "replace_file"]


@each_layout
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_export_opens_as_nothing_and_can_be_repeated(run, tmp_path, monkeypatch, moment, layout):
    with monkeypatch.context() as patched:
        patched.setattr(exporting, moment, die)
        with pytest.raises(Killed):
            export_run(run, tmp_path / "out", layout=layout)
    with pytest.raises(CheckpointError):
        load_generator(tmp_path / "out")
    made = export_run(run, tmp_path / "out", layout=layout)
    assert made.sha256 == sha256_of(made.file)
    assert set(files_in(tmp_path / "out")) == {*FILES[layout], "export.json"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_replacement_is_the_old_export_or_none(run, tmp_path, monkeypatch, moment):
    export_run(run, tmp_path / "out")
    before = files_in(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(exporting, moment, die)
        with pytest.raises(Killed):
            export_run(run, tmp_path / "out", weights="ema2", overwrite=True)
    if moment in ("write_tensors", "remove"):
        assert files_in(tmp_path / "out") == before
    else:
        with pytest.raises(CheckpointError):
            load_generator(tmp_path / "out")
    export_run(run, tmp_path / "out", weights="ema2", overwrite=True)
    assert open_generator(tmp_path / "out").identity["sha256"] == open_generator(run, "ema2").identity["sha256"]


# What is done with it


def test_nothing_is_trained_or_imported_into_an_export(run, tmp_path):
    export_run(run, tmp_path / "out")
    recipe = open_generator(run).recipe
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="was made by grn export"):
            PresentRun(tmp_path / "out").steps_done(recipe, DATA, overwrite=overwrite)
        with pytest.raises(CheckpointError, match="was made by grn export"):
            import_released(tmp_path / "any.ckpt", tmp_path / "out", overwrite=overwrite)


@pytest.mark.parametrize("keep", [False, True])
def test_a_training_begins_with_an_export_as_with_an_average(run, tmp_path, keep, store):
    export_run(run, tmp_path / "out")
    recipe = open_generator(run).recipe
    _, first = begin_from(recipe, tmp_path / "out", store, keep=keep)
    assert same(first.weights, load_generator(run).state_dict())
    assert (first.average is not None and first.average.steps) == (3 if keep else False)


def test_an_exported_tokenizer_makes_the_same_features(tokenizer, tmp_path, drawn):
    export_run(tokenizer, tmp_path / "out")
    x = drawn((1, 3, 3, 16, 16), 0)
    assert torch.equal(load_tokenizer(tmp_path / "out").encode(x), load_tokenizer(tokenizer).encode(x))
