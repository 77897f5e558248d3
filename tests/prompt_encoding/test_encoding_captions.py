"""The captions of a bit store are encoded with the templates of what they are of."""

import json

import numpy as np
import pytest
from toy_encoder import run

from grncli.runtime.errors import UsageError
from grncli.store import Fingerprint, open_part
from grncli.store.text_features import open_features

RECIPE = """\
kind: generator
network: {type: text_transformer}
text:
  image: {prefix: "<T2I>", negative_prompt: "blurred"}
  clip: {prefix: "<T2V>", suffix: " sharp"}
  first_frame: {prefix: "<I2V>"}
"""
CAPTIONS = {"1.png": ["a  dog", "ein Hund"], "2.png": ["a  dog"], "3.mp4": ["a cat"], "gone.png": ["nothing"]}


@pytest.fixture
def store(tmp_path):
    """Two pictures, one of them mirrored too, and a clip of two windows."""
    made = Fingerprint(rounds=1, channels=8, stride=(4, 4, 4), tokenizer={"name": "t", "sha256": "0"}, preprocessing={})
    with open_part(tmp_path / "s.zarr", made) as writer:
        for grid, source, keys in (((1, 2, 2), "1.png", "ab"), ((1, 2, 2), "2.png", "a"), ((2, 2, 2), "3.mp4", "ab")):
            bits = np.zeros((len(keys), *grid, 1, 1), np.uint8)
            writer.append(grid, bits, None, [{"key": f"{source}{key}", "source": source} for key in keys])
        writer.commit(3, "d", 3)
        writer.finish()
    return tmp_path / "s.zarr"


@pytest.fixture
def captioned(store):
    lines = ({"source": name, "captions": [{"content": text} for text in texts]} for name, texts in CAPTIONS.items())
    (store / "part-00000/captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return store


def prompts_of(features):
    return sorted(line["prompt"] for line in open_features(features).records())


def test_each_distinct_caption_is_encoded_once(captioned, tmp_path):
    assert run(captioned, tmp_path / "f.zarr").distinct == 4
    assert prompts_of(tmp_path / "f.zarr") == ["", "a cat", "a dog", "ein Hund"]
    assert run(captioned, tmp_path / "f.zarr").made == 0


def test_pictures_and_clips_have_the_templates_of_their_tasks(captioned, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run(captioned, tmp_path / "f.zarr", recipe=tmp_path / "recipe.yaml")
    wanted = ["", "<T2I>a dog", "<T2I>ein Hund", "<T2V>a cat sharp", "blurred"]
    assert prompts_of(tmp_path / "f.zarr") == wanted
    run(captioned, tmp_path / "f.zarr", recipe=tmp_path / "recipe.yaml", task="first-frame")
    assert prompts_of(tmp_path / "f.zarr") == sorted([*wanted, "<I2V>a dog", "<I2V>ein Hund", "<I2V>a cat"])


def test_what_the_recipe_draws_while_it_trains_is_encoded_too(captioned, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE + "preview: {prompts: [a bird]}\n")
    run(captioned, tmp_path / "f.zarr", recipe=tmp_path / "recipe.yaml")
    assert {"<T2I>a bird", "<T2V>a bird sharp"} < set(prompts_of(tmp_path / "f.zarr"))


def test_a_store_without_captions_is_refused_with_the_command_that_adds_them(store, tmp_path):
    with pytest.raises(UsageError, match=r"has no captions, expected some; add them with `grn captions .*s\.zarr FILE"):
        run(store, tmp_path / "f.zarr")
    assert not (tmp_path / "f.zarr").exists()


def test_words_of_a_source_stand_in_the_place_of_the_suffix(captioned, tmp_path):
    lines = [
        {"source": "1.png", "captions": [{"content": "a dog"}], "quality_prompt": "not for pictures"},
        {
            "source": "3.mp4",
            "captions": [{"content": "a cat"}],
            "quality_prompt": "There is text.",
            "begin": 0,
            "end": 1,
        },
        {"source": "3.mp4", "captions": [{"content": "a cow"}], "begin": 1, "end": 2},
    ]
    (captioned / "part-00000/captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    changed = RECIPE.replace('suffix: " sharp"', 'suffix: " sharp", suffix_field: quality_prompt')
    (tmp_path / "recipe.yaml").write_text(changed)
    run(captioned, tmp_path / "f.zarr", recipe=tmp_path / "recipe.yaml")
    wanted = ["", "<T2I>a dog", "<T2V>a cat There is text.", "<T2V>a cow sharp", "blurred"]
    assert prompts_of(tmp_path / "f.zarr") == wanted
