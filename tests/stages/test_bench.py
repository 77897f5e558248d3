"""``grn bench``: every stage beside its limit, nothing left behind, in a table and in one line."""

import json
import math

import pytest

from grncli.bench import limits, storage_stages

SMALL = """
kind: generator
network: {depth: 2, width: 32, heads: 2, bottleneck: 16, in_context_tokens: 2, in_context_start: 1, channels: 4}
data: {batch: 4}
"""
TOKENIZER = """
kind: tokenizer
network: {channels: 4, encoder_width: 8, decoder_width: 8, multipliers: [1, 1], halve_space: [1], halve_time: [1],
  encoder_blocks: 1, decoder_blocks: 1}
data: {image: {size: 16, batch: 4}, clip: {size: 16, batch: 1, frames: 5}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "generator.yaml").write_text(SMALL)
    (folder / "tokenizer.yaml").write_text(TOKENIZER)
    return folder


@pytest.fixture(scope="module", autouse=True)
def little_work():
    """Sizes at which no figure means anything, and all are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_stages, "SAMPLES", 1 << 12)
        patch.setattr(limits, "PRODUCTS", {"cpu": ((64, 64, 64),)})
        patch.setattr(limits, "COPIED", 1 << 20)
        patch.setattr(limits, "SYNCED", 1 << 20)
        yield


@pytest.fixture(scope="module")
def measured(grn_inside, folder, little_work):
    arguments = ("--folder", folder, "--grid", "1x4x4", "--seconds", 0, "--device", "cpu", "--json")
    done = grn_inside("bench", folder / "generator.yaml", "network.classes=7", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_stage_has_a_rate_and_its_share_of_a_limit(measured):
    names = [stage["name"] for stage in measured["stages"]]
    expected = ["quantize and pack", "store write", "store read, chunks", "store read, random", "training", "sampling"]
    assert list(dict.fromkeys(names)) == expected
    limits = {limit["name"] for limit in measured["limits"]}
    for stage in measured["stages"]:
        assert 0 < stage["value"] < math.inf
        assert 0 < stage["share"] < math.inf
        assert stage["of"] in limits


def test_training_says_how_long_it_waits_and_where_its_time_goes(measured):
    for stage in measured["stages"]:
        if stage["name"] == "training":
            assert 0 <= stage["waiting"] < 1
            assert stage["spent"]
            assert sum(stage["spent"].values()) == pytest.approx(1, abs=0.15)  # the smallest kinds are left out


def test_bfloat16_gains_are_shown_where_both_formats_run(measured):
    formats = {stage["dtype"] for stage in measured["stages"]} - {None}
    wanted = {"products", "training", "sampling"} if "bfloat16" in formats else set()
    assert set(measured["bfloat16_gains"]) == wanted


def test_nothing_is_left_in_the_folder(measured, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["generator.yaml", "tokenizer.yaml"]


def test_a_tokenizer_is_measured_on_pictures_and_clips(grn_inside, folder):
    done = grn_inside("bench", folder / "tokenizer.yaml", "--folder", folder, "--seconds", 0, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert {"encode images", "decode images", "encode frames", "decode frames"} <= {
        line[2:15] for line in done.stdout.splitlines()
    }
    *_, head, line = done.stdout.splitlines()
    assert head == "To paste into an issue:"
    assert line.startswith("grn ")
    assert line.count(" | ") > 5
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.batch=2"], "data.batch=2"),
        (["generator.yaml", "--grid", "4"], "--grid 4: expected TxHxW"),
        (["generator.yaml", "--grid", "1x20000x20000"], "has 400,000,000 tokens, expected at most 1,048,576"),
        (["generator.yaml", "--folder", "none"], "--folder none: there is no such folder"),
        (["generator.yaml", "network.type=text_transformer", "data.type=packed"], "generator.yaml"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(grn, folder, arguments, words):
    done = grn("bench", *arguments, cwd=folder)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
