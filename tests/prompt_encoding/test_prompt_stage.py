"""Prompts become a features store: each once, in parts, stopped and resumed with the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_encoder import MOST, PROMPTS, ToyEncoder, run, write

from grncli.prompt_encoding import prompt_stage
from grncli.runtime.errors import GrnError, StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.store.text_features import open_features, verify_features
from grncli.text import prompt_batches
from grncli.text.templates import prompt_digest

HERE = Path(__file__).parent


@pytest.fixture
def prompts(tmp_path):
    return write(tmp_path / "prompts.txt")


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of two or three prompts, each committed."""
    monkeypatch.setattr(prompt_batches, "BATCH_TOKENS", 12)
    monkeypatch.setattr(prompt_stage, "COMMIT_SECONDS", 0)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class StopAfter(Stop):
    """Asks for an end the n-th time it is looked at."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def reason(self):
        self.looks -= 1
        return "--max-time" if self.looks <= 0 else None


def test_features_are_those_of_the_encoder_rounded_to_bfloat16(prompts, tmp_path):
    summary = run(prompts, tmp_path / "f.zarr")
    store, encoder = open_features(tmp_path / "f.zarr"), ToyEncoder()
    assert (summary.made, summary.prompts, summary.stored, store.complete) == (41, 41, 41, True)
    assert (store.encoder, store.width, store.settings.max_tokens) == (encoder.identity, 6, MOST)
    expected = [features.bfloat16().float() for features in encoder([*PROMPTS, ""])]
    for stored, wanted in zip(store.read([prompt_digest(text) for text in [*PROMPTS, ""]]), expected, strict=True):
        torch.testing.assert_close(stored, wanted, rtol=0, atol=0)
    assert verify_features(tmp_path / "f.zarr") == []


def test_rows_are_sorted_by_length_and_digest_and_none_is_there_twice(prompts, tmp_path):
    write(prompts, [*PROMPTS, *PROMPTS, "  red   star 0 ", "red&nbsp;star 0"])
    encoder = ToyEncoder()
    assert run(prompts, tmp_path / "f.zarr", encoder).made == 41
    assert sum(encoder.batches) == 41
    lines = list(open_features(tmp_path / "f.zarr").records())
    keys = [(int(line["tokens"]), prompt_digest(line["prompt"])) for line in lines]
    assert keys == sorted(keys)
    assert lines[0]["prompt"] == ""


def test_a_finished_store_is_left_alone(prompts, tmp_path):
    run(prompts, tmp_path / "f.zarr")
    before, encoder = tree(tmp_path / "f.zarr"), ToyEncoder()
    summary = run(prompts, tmp_path / "f.zarr", encoder)
    assert (summary.made, summary.prompts, encoder.batches) == (0, 41, [])
    assert tree(tmp_path / "f.zarr") == before


def test_more_prompts_are_added_to_those_that_are_there(prompts, tmp_path):
    run(prompts, tmp_path / "f.zarr")
    summary = run(write(tmp_path / "more.txt", ["a dog", PROMPTS[3], "two black cats"]), tmp_path / "f.zarr")
    store = open_features(tmp_path / "f.zarr")
    assert (summary.made, summary.prompts, summary.stored, len(store), store.complete) == (2, 4, 43, 43, True)
    texts = ["two black cats", *PROMPTS, "a dog"]
    for stored, wanted in zip(store.read(list(map(prompt_digest, texts))), ToyEncoder()(texts), strict=True):
        assert torch.equal(stored, wanted.bfloat16().float())
    assert verify_features(tmp_path / "f.zarr") == []


@pytest.mark.parametrize("more", [False, True])
def test_a_stopped_run_is_resumed_with_the_same_bytes(prompts, tmp_path, small_batches, more):
    stores = [tmp_path / "whole.zarr", tmp_path / "stopped.zarr"]
    lists = [prompts]
    if more:
        for store in stores:
            run(prompts, store)
        lists = [write(tmp_path / "more.txt", [f"blue {text}" for text in PROMPTS])]
    run(lists[0], stores[0])
    stops = 0
    while stops < 50:
        try:
            run(lists[0], stores[1], monitor=Monitor(StopAfter(3)))
            break
        except Stopped:
            assert not open_features(stores[1]).complete
            stops += 1
    assert stops > 4
    assert tree(stores[0]) == tree(stores[1])


def test_a_run_that_is_killed_is_resumed_with_the_same_bytes(prompts, tmp_path, small_batches):
    code = (
        "import sys, time; from pathlib import Path; import toy_encoder; from grncli.text import prompt_batches\n"
        "from grncli.prompt_encoding import prompt_stage; prompt_batches.BATCH_TOKENS = 12\n"
        "prompt_stage.COMMIT_SECONDS = 0; encode = toy_encoder.ToyEncoder.encode\n"
        "def slow(*args): print(flush=True); time.sleep(0.01); return encode(*args)\n"
        "toy_encoder.ToyEncoder.encode = slow; toy_encoder.run(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    run(prompts, tmp_path / "whole.zarr")
    environment = os.environ | {"PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, prompts, tmp_path / "f.zarr"], stdout=subprocess.PIPE, env=environment
    )
    for _ in range(6):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < len(open_features(tmp_path / "f.zarr")) < 41
    run(prompts, tmp_path / "f.zarr")
    assert tree(tmp_path / "f.zarr") == tree(tmp_path / "whole.zarr")


def test_parts_divide_the_prompts_whatever_order_they_come_in(prompts, tmp_path):
    made = [run(prompts, tmp_path / "f.zarr", part=part, parts=3) for part in (2, 0)]
    assert not open_features(tmp_path / "f.zarr").complete
    write(prompts, PROMPTS[::-1])
    made.append(run(prompts, tmp_path / "f.zarr", part=1, parts=3))
    store = open_features(tmp_path / "f.zarr")
    assert store.complete
    assert sum(summary.made for summary in made) == len(store) == 41
    assert min(summary.made for summary in made) > 5
    assert prompt_digest("") in store
    for stored, wanted in zip(store.read(list(map(prompt_digest, PROMPTS))), ToyEncoder()(PROMPTS), strict=True):
        assert torch.equal(stored, wanted.bfloat16().float())


def test_overwriting_discards_and_an_interrupted_overwrite_is_resumed(prompts, tmp_path, small_batches):
    out = tmp_path / "f.zarr"
    run(write(tmp_path / "old.txt", ["an old prompt"]), out, ToyEncoder("other"))
    with pytest.raises(Stopped, match=r"--max-time: stopped after \d+ of 41 prompts, all saved"):
        run(prompts, out, overwrite=True, monitor=Monitor(StopAfter(3)))
    saved = len(open_features(out))
    assert 0 < saved < 41
    encoder = ToyEncoder()
    run(prompts, out, encoder, overwrite=True)
    assert sum(encoder.batches) == 41 - saved
    assert prompt_digest("an old prompt") not in open_features(out)


def test_an_interrupted_overwrite_is_not_resumed_with_other_prompts(prompts, tmp_path, small_batches):
    with pytest.raises(Stopped):
        run(prompts, tmp_path / "f.zarr", overwrite=True, monitor=Monitor(StopAfter(9)))
    run(write(tmp_path / "new.txt", ["a new prompt"]), tmp_path / "f.zarr", overwrite=True)
    assert {line["prompt"] for line in open_features(tmp_path / "f.zarr").records()} == {"", "a new prompt"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": ToyEncoder("other")}, r"encoder.name=toy there, other asked, encoder.sha256=\w{12} there"),
        ({"encoder": ToyEncoder(width=8)}, "width=6 there, 8 asked"),
        ({"encoder": ToyEncoder(most=9)}, "max_tokens=8 there, 9 asked"),
        ({"dtype": "bfloat16"}, "dtype=float32 there, bfloat16 asked"),
        ({"parts": 2}, "parts=1 there, 2 asked"),
    ],
)
def test_a_store_made_with_other_settings_is_refused(prompts, tmp_path, changes, words):
    run(prompts, tmp_path / "f.zarr")
    before = tree(tmp_path / "f.zarr")
    with pytest.raises(StoreMismatch, match=words):
        run(prompts, tmp_path / "f.zarr", **changes)
    assert tree(tmp_path / "f.zarr") == before


def test_an_encoder_in_another_folder_is_the_same_encoder(prompts, tmp_path):
    run(prompts, tmp_path / "f.zarr")
    encoder = ToyEncoder()
    encoder.identity["name"] = "moved"
    assert run(prompts, tmp_path / "f.zarr", encoder).made == 0


def recipe(path, text, network="type: text_transformer\n  text_width: 6"):
    path.write_text(f"kind: generator\nnetwork:\n  {network}\ntext:\n{text}")
    return path


def test_the_templates_of_a_recipe_are_applied_and_its_negative_prompt_is_stored(prompts, tmp_path):
    text = "  image: {prefix: '<T2I>', suffix: ' sharp', negative_prompt: 'blurred  bad'}\n  clip: {prefix: '<T2V>'}\n"
    (tmp_path / "run").mkdir()
    recipe(tmp_path / "run/recipe.yaml", text)
    checkpoint = tmp_path / "run/checkpoints/step-00000000"
    checkpoint.mkdir(parents=True)
    (checkpoint / "ema.safetensors").touch()
    for task, place in (("image", tmp_path / "run"), ("image", checkpoint), ("clip", tmp_path / "run/recipe.yaml")):
        run(write(prompts, ["a dog"]), tmp_path / f"{task}.zarr", recipe=place, task=task)
    found = [
        {line["prompt"] for line in open_features(tmp_path / f"{task}.zarr").records()} for task in ("image", "clip")
    ]
    assert found == [{"", "<T2I>a dog sharp", "blurred bad"}, {"", "<T2V>a dog"}]


@pytest.mark.parametrize(
    ("text", "network", "words"),
    [
        (
            "  encoder: {name: umt5, sha256: '3f9c'}",
            "type: text_transformer",
            "was trained with 3f9c",
        ),
        ("  max_tokens: 8", "type: text_transformer\n  text_width: 4096", "features are 6 wide, but .* expects 4096"),
        ("  max_tokens: 4", "type: text_transformer", "has 5 tokens, but .* takes at most 4"),
        ("", "type: class_transformer", "is not for a text-conditional generator"),
        ("  image: {prefx: a}", "type: text_transformer", "prefx"),
    ],
)
def test_what_does_not_fit_the_recipe_is_refused_before_any_work(prompts, tmp_path, text, network, words):
    place = recipe(tmp_path / "recipe.yaml", text, network)
    encoder = ToyEncoder()
    with pytest.raises(UsageError, match=words):
        run(prompts, tmp_path / "f.zarr", encoder, recipe=place)
    assert not encoder.batches
    assert not (tmp_path / "f.zarr").exists()


def test_one_line_says_which_prompts_are_cut_and_where(prompts, tmp_path):
    said = []
    long = [f"{'long ' * 7}{word} end" for word in ("zebra", "yak", "xerus", "wolf", "vole")]
    run(write(prompts, ["short", *long]), tmp_path / "f.zarr", monitor=Monitor(say=said.append))
    assert said == [
        "warning: 5 prompts have more than 8 tokens and are cut: prompt 2 at 'zebra', prompt 3 at 'yak', "
        "prompt 4 at 'xerus', and 2 more"
    ]
    run(write(prompts, ["short", long[0]]), tmp_path / "g.zarr", monitor=Monitor(say=said.append))
    assert said[1:] == ["warning: a prompt has more than 8 tokens and is cut: prompt 2 at 'zebra'"]


def test_an_encoder_whose_features_are_no_numbers_is_refused(prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyEncoder, "features", lambda self, ids: torch.full((len(ids), 6), torch.inf))
    with pytest.raises(GrnError, match="toy: features are not finite"):
        run(prompts, tmp_path / "f.zarr")


def test_nothing_is_written_into_a_bit_store(prompts, tmp_path):
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr/zarr.json").write_text('{"attributes": {"grn": {"format": 1}}, "node_type": "group"}')
    with pytest.raises(StoreError, match="is a bit store, expected a features store"):
        run(prompts, tmp_path / "s.zarr", overwrite=True)
