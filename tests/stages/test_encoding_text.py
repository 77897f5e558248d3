"""``grn encode-text`` with a real encoder: stopped and resumed, shown by ``grn info``, refused in one sentence."""

import json
import re
import signal
import time

import pytest
import torch

from grncli.store.text_features import open_features
from grncli.text.encoders import load_text_encoder
from grncli.text.templates import prompt_digest

ENCODER = ("--text-encoder", "minilm")
PROMPTS = [f"a photo of {number} red stars over quiet hills {'at dawn, ' * (number % 9)}" for number in range(60)]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "p.txt"
    path.write_text("\n".join(PROMPTS))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory, grn_inside):
    """Two prompts, and the empty one."""
    path = tmp_path_factory.mktemp("store")
    (path / "p.txt").write_text("two dogs\na red star\n")
    made = grn_inside("encode-text", path / "p.txt", path / "f.zarr", *ENCODER, "--json")
    assert json.loads(made.stdout)["made"] == 3
    return path / "f.zarr"


def test_a_store_holds_what_the_encoder_gives_and_info_shows_it(store, grn_inside):
    encoder = load_text_encoder("minilm")
    found = open_features(store).read([prompt_digest("a red star"), prompt_digest("")])
    for stored, wanted in zip(found, encoder(["a red star", ""]), strict=True):
        torch.testing.assert_close(stored, wanted, rtol=2**-8, atol=1e-5)
    facts = json.loads(grn_inside("info", store, "--verify", "--json").stdout)
    assert (facts["kind"], facts["complete"], facts["problems"]) == ("features", True, [])
    assert (facts["lengths"], facts["tokens"], facts["width"]) == ({"2": 1, "4": 1, "5": 1}, 11, 384)
    assert facts["encoder"] == encoder.identity
    assert facts["examples"] == ["a red star", "two dogs"]
    shown = grn_inside("info", store).stdout
    assert "features store, complete" in shown
    assert "3, 11 tokens" in shown
    assert "2 (1), 4 (1), 5 (1)" in shown


def test_info_finds_a_changed_byte(tmp_path, grn_inside):
    (tmp_path / "p.txt").write_text("a dog")
    grn_inside("encode-text", tmp_path / "p.txt", tmp_path / "f.zarr", *ENCODER)
    chunk = tmp_path / "f.zarr/part-00000/4/features/c.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[7] ^= 1
    chunk.write_bytes(content)
    done = grn_inside("info", tmp_path / "f.zarr", "--verify")
    assert done.returncode == 1
    assert str(chunk) in done.stderr


def test_a_signal_ends_it_with_everything_saved_and_it_resumes(prompts, tmp_path, start_grn, grn_inside, read_tree):
    arguments = ["encode-text", prompts, tmp_path / "f.zarr", *ENCODER]
    process = start_grn(*arguments)
    end = time.monotonic() + 60
    while not (tmp_path / "f.zarr/part-00000/2").exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "all saved. Run the same command again to resume." in said
    assert 0 < len(open_features(tmp_path / "f.zarr")) < 61
    assert grn_inside(*arguments).returncode == 0
    done = grn_inside(*arguments)
    assert "nothing to do, all 61 prompts are there" in done.stderr
    assert grn_inside("encode-text", prompts, tmp_path / "whole.zarr", *ENCODER).returncode == 0
    resumed, whole = (read_tree(tmp_path / name) for name in ("f.zarr", "whole.zarr"))
    assert resumed.keys() == whole.keys()
    assert resumed["part-00000/samples.jsonl"] == whole["part-00000/samples.jsonl"]
    # Not byte for byte: the process that was stopped computed with as many threads as it liked.
    digests = [prompt_digest(line["prompt"]) for line in open_features(tmp_path / "f.zarr").records()]
    stores = [open_features(tmp_path / name).read(digests) for name in ("f.zarr", "whole.zarr")]
    torch.testing.assert_close(*map(torch.cat, stores), rtol=2**-7, atol=1e-4)


def test_prompts_come_from_standard_input_too(tmp_path, grn):
    done = grn("encode-text", "-", tmp_path / "f.zarr", *ENCODER, input="a cat\n\ntwo cats\n")
    assert done.returncode == 0, done.stderr
    assert len(open_features(tmp_path / "f.zarr")) == 3


def test_the_last_line_tells_what_is_new(tmp_path, grn_inside):
    def said(part="0/1"):
        done = grn_inside("encode-text", tmp_path / "p.txt", tmp_path / f"{part[2]}.zarr", *ENCODER, "--part", part)
        return re.sub(r" in [0-9.]+s", "", done.stderr.replace(f"{tmp_path}/", ""))

    (tmp_path / "p.txt").write_text("")
    assert "has no prompt" in said()
    (tmp_path / "p.txt").write_text("a cat")
    assert said() == "1.zarr: encoded 2 prompts\n"
    (tmp_path / "p.txt").write_text("two cats")
    assert said() == "1.zarr: encoded 1 prompt, 1 more was there already\n"
    assert said() == "1.zarr: nothing to do, all 2 prompts are there\n"
    assert said("0/9") == "9.zarr, part 0/9: nothing to do, no prompt falls to it\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{prompts}", "{out}", "--text-encoder", "{out}"], 1, "f.zarr"),
        (["{prompts}", "{out}", *ENCODER, "--dtype", "float16"], 2, "--dtype float16: expected float32 or bfloat16"),
        (["{prompts}", "{out}", *ENCODER, "--task", "song"], 2, "--task song: expected image or clip or first-frame"),
        (["{prompts}", "{out}", *ENCODER, "--part", "2/2"], 2, "--part 2/2"),
        (["{prompts}", "{out}", *ENCODER, "--recipe", "{prompts}"], 2, "p.txt: "),
        (["{out}/none", "{out}", *ENCODER], 2, "none: cannot be read"),
        (["{prompts}", "{store}", *ENCODER, "--dtype", "bfloat16"], 1, "dtype=float32 there, bfloat16 asked"),
    ],
)
def test_a_refusal_is_one_sentence(arguments, code, words, prompts, store, tmp_path, grn_inside):
    places = {"prompts": prompts, "out": tmp_path / "f.zarr", "store": store}
    done = grn_inside("encode-text", *(argument.format(**places) for argument in arguments))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize("inner", ["part-00000", "part-00000/4"])
def test_info_of_a_part_of_a_store_names_the_store(store, grn_inside, inner):
    done = grn_inside("info", store / inner)
    assert done.returncode == 1
    assert f"it lies in the store {store}, give that" in done.stderr


def test_a_features_store_is_no_bit_store(store, tmp_path, grn_inside):
    done = grn_inside("decode", store, tmp_path / "out", "--tokenizer", tmp_path)
    assert done.returncode == 1
    assert "is a features store but not a bit store" in done.stderr
