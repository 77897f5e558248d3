"""Released tokenizer checkpoints: names, sizes from the weights alone, and the release's own outputs."""

import pytest
import torch
from safetensors.torch import load_file

from grncli.models.tokenizer import Tokenizer
from grncli.runs.released_names import tokenizer_config, tokenizer_weights
from grncli.runtime.tensor_files import read_released

SIZES = [
    {},
    {"channels": 6, "encoder_width": 8, "decoder_width": 4},
    {"encoder_blocks": 1, "decoder_blocks": 2},
    {"halve_time": (2,)},
    {"multipliers": (1, 1, 1, 1), "halve_space": (1, 3), "halve_time": (1, 3)},
    {"patch": 1},
    {"multipliers": (1, 2, 2), "halve_space": (1, 2), "halve_time": (2,)},
    {"attention": False},
]


@pytest.mark.parametrize("config", SIZES, ids=str)
def test_sizes_are_read_off_the_weights(make_tokenizer, in_released_layout, config):
    network = make_tokenizer(**config)
    assert tokenizer_config(tokenizer_weights(in_released_layout(network))) == network.config


def test_weights_come_back_from_the_released_layout(make_tokenizer, in_released_layout):
    network = make_tokenizer()
    weights = tokenizer_weights(in_released_layout(network))
    ours = network.state_dict()
    assert weights.keys() == ours.keys()
    assert all(torch.equal(weights[name], ours[name]) for name in ours)


def test_weights_of_half_precision_are_read_in_float32(make_tokenizer, in_released_layout):
    released = {name: tensor.half() for name, tensor in in_released_layout(make_tokenizer()).items()}
    assert {tensor.dtype for tensor in tokenizer_weights(released).values()} == {torch.float32}


def test_an_unknown_name_is_refused_by_name(make_tokenizer, in_released_layout):
    released = {**in_released_layout(make_tokenizer()), "encoder.extra.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"'encoder\.extra\.weight', which no released tokenizer has"):
        tokenizer_weights(released)


def test_a_missing_layer_is_named(make_tokenizer, in_released_layout):
    weights = tokenizer_weights(in_released_layout(make_tokenizer()))
    del weights["decoder.head.conv.weight"]
    with pytest.raises(ValueError, match=r"have no 'decoder\.head\.conv\.weight'"):
        tokenizer_config(weights)


# With the release's outputs


@pytest.fixture(scope="module")
def released(release_fixtures):
    weights = tokenizer_weights(read_released(release_fixtures / "tokenizer.ckpt")["ema"])
    network = Tokenizer(tokenizer_config(weights), rounds=4)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def outputs(release_fixtures):
    return load_file(release_fixtures / "tokenizer_io.safetensors")


@pytest.mark.parametrize("media", ["image", "video"])
def test_features_equal_the_release(released, outputs, media):
    torch.testing.assert_close(released.encode(outputs[media]), outputs[f"{media}_feature"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("media", ["image", "video"])
def test_pixels_equal_the_release(released, outputs, media):
    decoded = released.decode(outputs[f"{media}_quantized_M4"], clamp=False)
    torch.testing.assert_close(decoded, outputs[f"{media}_decoded"], atol=1e-4, rtol=0)


def test_clip_in_pieces_equals_the_release(released, outputs):
    feature = released.encode(outputs["video"], piece=1)
    torch.testing.assert_close(feature, outputs["video_feature"], atol=1e-4, rtol=0)


def test_names_go_back_to_the_released_ones(released, release_fixtures, in_released_layout):
    theirs = read_released(release_fixtures / "tokenizer.ckpt")["ema"]
    ours = in_released_layout(released)
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
