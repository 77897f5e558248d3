"""Features of prompts, from an encoder or from a store of what one made."""

import pytest
import torch
from toy_encoder import PROMPTS, ToyEncoder, run, write

from grncli.runtime.errors import UsageError
from grncli.store.text_features import open_features
from grncli.text.prompt_features import EncodedPrompts, StoredPrompts

ASKED = ["red star 0", "", PROMPTS[3], "red star 0"]


def test_an_encoder_gives_the_features_of_each_distinct_prompt_once():
    encoder = ToyEncoder()
    features = EncodedPrompts(encoder).of(ASKED)
    assert sum(encoder.batches) == 3
    assert features[0] is features[3]
    for found, wanted in zip(features, ToyEncoder()(ASKED), strict=True):
        assert torch.equal(found, wanted)


def test_an_encoder_says_what_it_cuts():
    said = []
    EncodedPrompts(ToyEncoder(most=3), said.append).of(["a red star"])
    assert said == ["warning: a prompt has more than 3 tokens and is cut: prompt 'a red star' at 'star'"]


def test_a_store_gives_the_same_to_bfloat16(tmp_path):
    run(write(tmp_path / "p.txt"), tmp_path / "f.zarr")
    source = StoredPrompts(open_features(tmp_path / "f.zarr"))
    assert (source.encoder, source.width) == (ToyEncoder().identity, 6)
    for found, wanted in zip(source.of(ASKED), ToyEncoder()(ASKED), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2**-8, atol=0)


def test_what_a_store_lacks_is_named_with_the_command_that_adds_it(tmp_path):
    run(write(tmp_path / "p.txt"), tmp_path / "f.zarr", dtype="bfloat16")
    source = StoredPrompts(open_features(tmp_path / "f.zarr"), prompts="my p.txt", recipe="runs/t2i 1")
    with pytest.raises(UsageError) as refused:
        source.of(["red star 0", *"abcd", "a"])
    assert str(refused.value) == (
        f"{tmp_path}/f.zarr: lacks 4 of 5 prompts: 'a', 'b', 'c' and 1 more; add them with: "
        f"grn encode-text 'my p.txt' {tmp_path}/f.zarr --text-encoder DIR --recipe 'runs/t2i 1' --dtype bfloat16"
    )
