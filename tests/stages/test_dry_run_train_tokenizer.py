"""A dry run of ``grn train-tokenizer`` tries steps of every kind and keeps nothing."""

import json

import pytest

from grncli.costs.training_costs import StepTrial, _shares
from grncli.runs.checkpoint import list_checkpoints
from grncli.runs.tokenizer_recipe import ClipData, Data, ImageData, TokenizerRecipe, Training

RECIPE = """\
kind: tokenizer
network: {channels: 4, encoder_width: 8, decoder_width: 8, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}
data: {image: {size: 16, batch: 4}, clip: {size: 16, batch: 2, frames: 3, share: 0.25}, workers: 0}
losses: {gan: {weight: 0.1, start: 3}}
discriminator: {width: 4, layers: 1}
training: {steps: 6, checkpoint_every: 4, dtype: float32}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def dry(recipe, media_dir, grn_inside, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    done = grn_inside("train-tokenizer", recipe, "--data", media_dir, "--out", out, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert not out.exists()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(recipe, media_dir, grn_inside, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert grn_inside("train-tokenizer", recipe, "--data", media_dir, "--out", out).returncode == 0
    return out


def test_steps_and_sources_are_counted(dry):
    assert dry["counts"] == {"steps": 6, "images": 14, "clips": 2}


def test_time_memory_and_activations_are_measured(dry):
    assert dry["seconds"] > 0
    assert dry["memory"]["process"] > 50e6
    assert dry["activation_bytes"] > 4 * 4 * 16 * 16 * 8  # what one layer keeps of the images of a batch


def test_checkpoints_take_the_bytes_foretold(dry, trained):
    files = [file for each in list_checkpoints(trained) if not each.is_symlink() for file in each.glob("*.safetensors")]
    assert dry["disk"]["written"] == pytest.approx(sum(file.stat().st_size for file in files), rel=0.3)


def test_losses_that_set_in_later_are_tried(dry):
    assert any("with all losses, from step 3 on" in note for note in dry["notes"])


def test_clips_that_come_later_are_tried_and_count_from_there_on(recipe, media_dir, grn_inside, tmp_path):
    command = ("train-tokenizer", recipe, "--data", media_dir, "--out", tmp_path / "run", "--dry-run", "--json")
    changes = ("losses.gan.weight=0", "data.clip.share=1", "data.clip.start=3", "data.clip.batch=2", "training.steps=6")
    tried = json.loads(grn_inside(*command, *changes).stdout)
    assert tried["rates"][0]["done"] >= 4  # three steps of images, then clips
    later = TokenizerRecipe(
        data=Data(image=ImageData(), clip=ClipData(share=0.5, start=75)), training=Training(steps=100)
    )
    trial = StepTrial({"4x1x8x8x3": 1.0, "2x3x8x8x3": 9.0}, {}, activations=0, whole=True)
    assert _shares(later, trial, left=100) == {"4x1x8x8x3": 0.875, "2x3x8x8x3": 0.125}
    assert _shares(later, trial, left=20) == {"4x1x8x8x3": 0.5, "2x3x8x8x3": 0.5}


def test_a_finished_run_needs_nothing(recipe, media_dir, grn_inside, trained):
    before = (trained / "COMPLETE").stat().st_mtime_ns
    done = grn_inside("train-tokenizer", recipe, "--data", media_dir, "--out", trained, "--dry-run", "--json")
    costs = json.loads(done.stdout)
    assert (costs["counts"]["steps"], costs["seconds"]) == (0, 0)
    assert (trained / "COMPLETE").stat().st_mtime_ns == before


def test_each_kind_of_step_counts_by_its_share():
    trial = StepTrial({"a": 1.0, "b": 5.0}, {"a": 3, "b": 3}, activations=0, whole=True)
    assert trial.seconds_a_step() == 3
    assert trial.seconds_a_step({"a": 0.75, "b": 0.25}) == 2
