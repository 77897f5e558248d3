"""``grn train-gen --text-encoder``: the encoder beside the training, in the place of its stored features."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from grncli.runtime.tensor_files import read_tensors
from grncli.store import Fingerprint, open_part
from grncli.store.captions import Caption, CaptionLine, replace_captions

Grn = Callable[..., subprocess.CompletedProcess[str]]

RECIPE = """\
kind: generator
network: {type: text_transformer, depth: 1, width: 16, heads: 2, key_value_heads: 2, hidden: 16}
data: {type: packed, tokens: 64, sequences: 2, window: 8}
refinement: {condition_dropout: 0.3}
optimization: {learning_rate: 1e-2}
training: {steps: 3, log_every: 1, dtype: float32}
text: {image: {prefix: "A drawing: "}}
"""
SAMPLES = 12
ENCODER = "--text-encoder", "minilm", "--device", "cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, grn: Grn) -> Path:
    """Random bits with one or two captions each, and MiniLM's features of them."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "recipe.yaml").write_text(RECIPE)
    tokenizer = {"name": "toy", "sha256": "3f9c" * 16}
    fingerprint = Fingerprint(
        rounds=2, channels=3, stride=(1, 16, 16), tokenizer=tokenizer, preprocessing={}, labels=(), versions={}
    )
    names = [f"{number:02d}.png" for number in range(SAMPLES)]
    with open_part(folder / "bits.zarr", fingerprint) as writer:
        planes = np.random.default_rng(0).integers(0, 2, (SAMPLES, 1, 2, 2, 2, 3), np.uint8)
        records = [{"key": name, "source": name} for name in names]
        writer.append((1, 2, 2), np.packbits(planes, axis=-1), np.full(SAMPLES, -1), records)
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    words = ("a red star", "a green circle drawn with care")
    lines = [
        CaptionLine(name, tuple(Caption(None, f"{word} {number}") for word in words[: 1 + number % 2]))
        for number, name in enumerate(names)
    ]
    replace_captions({folder / "bits.zarr/part-00000": lines})
    done = grn("encode-text", folder / "bits.zarr", folder / "f.zarr", *ENCODER, "--recipe", folder / "recipe.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "checkpoints/step-00000003/weights.safetensors")


def test_stored_features_and_an_encoder_beside_it_train_the_same_weights_bit_for_bit(
    folder: Path, grn_inside: Grn, tmp_path: Path
) -> None:
    recipe, store = folder / "recipe.yaml", folder / "bits.zarr"
    stored = grn_inside("train-gen", recipe, store, "--text", folder / "f.zarr", "--out", tmp_path / "a", *ENCODER[2:])
    assert stored.returncode == 0, stored.stderr
    online = grn_inside("train-gen", recipe, store, "--out", tmp_path / "b", *ENCODER)
    assert online.returncode == 0, online.stderr
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    recipes = [yaml.safe_load((tmp_path / run / "recipe.yaml").read_text()) for run in "ab"]
    assert recipes[0]["text"]["encoder"]["name"] == "minilm"
    assert recipes[0] == recipes[1]


def test_a_finished_run_is_known_whichever_of_the_two_it_is_asked_with(
    folder: Path, grn_inside: Grn, tmp_path: Path
) -> None:
    recipe, store, out = folder / "recipe.yaml", folder / "bits.zarr", ("--out", tmp_path / "run")
    done = grn_inside("train-gen", recipe, store, *out, "--text", folder / "f.zarr", *ENCODER[2:])
    assert done.returncode == 0, done.stderr
    again = grn_inside("train-gen", recipe, store, *out, *ENCODER)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr


def test_features_of_another_number_format_are_not_taken_for_the_same(
    folder: Path, grn_inside: Grn, tmp_path: Path
) -> None:
    recipe, store, out = folder / "recipe.yaml", folder / "bits.zarr", ("--out", tmp_path / "run")
    done = grn_inside("train-gen", recipe, store, *out, *ENCODER)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["features"] == "float32"
    encode = ("encode-text", store, tmp_path / "f.zarr", *ENCODER, "--recipe", recipe, "--dtype", "bfloat16")
    assert grn_inside(*encode).returncode == 0
    again = grn_inside("train-gen", recipe, store, *out, "--text", tmp_path / "f.zarr", *ENCODER[2:])
    assert again.returncode == 1
    assert "was trained on text features computed in float32, and these are computed in bfloat16" in again.stderr


def test_a_dry_run_counts_the_encoders_tokens(folder: Path, grn_inside: Grn) -> None:
    by_store = grn_inside(
        "train-gen", folder / "recipe.yaml", folder / "bits.zarr", "--dry-run", "--text", folder / "f.zarr", "--json"
    )
    by_encoder = grn_inside("train-gen", folder / "recipe.yaml", folder / "bits.zarr", "--dry-run", "--json", *ENCODER)
    assert by_store.returncode == by_encoder.returncode == 0, by_encoder.stderr
    counted = [json.loads(done.stdout) for done in (by_store, by_encoder)]
    assert [costs.pop("costs")["counts"] for costs in counted] == [{"steps": 3}] * 2
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--text", "f.zarr"], "--text f.zarr: holds features, expected it without --text-encoder minilm"),
        (["text.encoder={name: other, sha256: ffff}"], "the recipe says text.encoder.sha256=ffff"),
        (["network.text_width=7"], "text encoder minilm: its features are 384 wide"),
        (["text.max_tokens=4"], "text encoder minilm: prompts have up to"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(
    folder: Path, grn_inside: Grn, changes: list[str], words: str, tmp_path: Path
) -> None:
    done = grn_inside(
        "train-gen", folder / "recipe.yaml", folder / "bits.zarr", *changes, *ENCODER, "--out", tmp_path / "run"
    )
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_a_recipe_for_classes_takes_no_encoder(folder: Path, grn_inside: Grn, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("kind: generator\n")
    done = grn_inside("train-gen", tmp_path / "classes.yaml", folder / "bits.zarr", *ENCODER, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--text-encoder: is for recipes with network.type=text_transformer" in " ".join(done.stderr.split())
