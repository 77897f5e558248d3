"""The tokenizer network: its sizes, its numbers, and what does not change them (pieces, the 2D path, caching)."""

import copy
from math import ceil

import pytest
import torch
import torch.nn.functional as F

from grncli.hbq import dequantize, quantize, straight_through
from grncli.models import tokenizer as tokenizer_module
from grncli.models.layers import CausalConv3d
from grncli.models.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    patchify,
    to_frames,
    to_input,
    unpatchify,
)

VARIANTS = {
    "released": ({}, (4, 16, 16)),
    "time stride 1": ({"halve_time": ()}, (1, 16, 16)),
    "time stride 2": ({"halve_time": (2,)}, (2, 16, 16)),
    "time stride 8": ({"halve_time": (1, 2, 3)}, (8, 16, 16)),
    "time halved without space": ({"halve_space": (1,)}, (4, 4, 4)),
    "space never halved": ({"halve_space": ()}, (4, 2, 2)),
    "pixels as they are": ({"patch": 1}, (4, 8, 8)),
    "one stage": ({"multipliers": (1,), "halve_space": (), "halve_time": ()}, (1, 2, 2)),
    "no attention": ({"attention": False}, (4, 16, 16)),
}
each_variant = pytest.mark.parametrize(("config", "stride"), VARIANTS.values(), ids=VARIANTS)
TIME_STRIDES = {1: (), 2: (2,), 4: (2, 3)}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny(make_tokenizer):
    return make_tokenizer()


def zero_padded_forward(self, x, history=None):
    """What CausalConv3d stands for: a 3D convolution over time padded with zeros in the past."""
    return F.conv3d(F.pad(x, (0, 0, 0, 0, self.past, 0)), self.weight, self.bias, padding=self.padding)


# Sizes


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def released():
    with torch.device("meta"):
        return Tokenizer(TokenizerConfig(), rounds=4)


def test_released_network_has_703_million_parameters(released):
    assert count(released) == 702_687_612


def test_released_encoder_has_148_million_parameters(released):
    assert count(released.encoder) == 148_521_792


def test_released_decoder_has_554_million_parameters(released):
    assert count(released.decoder) == 554_164_492


@each_variant
def test_stride_follows_from_the_halvings(config, stride):
    assert TokenizerConfig(**config).stride == stride


@each_variant
def test_features_have_one_frame_plus_one_a_stride(make_tokenizer, drawn, config, stride):
    network = make_tokenizer(**config)
    x = drawn((1, 3, 1 + 2 * stride[0], 2 * stride[1], 3 * stride[2]), 0)
    assert network.encode(x).shape == (1, 4, 3, 2, 3)


@each_variant
def test_pixels_come_back_in_the_size_they_had(make_tokenizer, drawn, config, stride):
    shape = (1, 3, 1 + 2 * stride[0], 2 * stride[1], 3 * stride[2])
    assert make_tokenizer(**config).decode(drawn((1, 4, 3, 2, 3), 0)).shape == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"halve_space": (4,)}, "halve_space names stage 4, expected 1 to 3"),
        ({"halve_time": (0, 1)}, "halve_time names stage 0, expected 1 to 3"),
        ({"multipliers": (1, 3, 4, 4)}, "multipliers grow from 1 to 3 in stage 2"),
        ({"multipliers": (1, 2, 4, 8)}, "multipliers grow from 4 to 8 in stage 4"),
        ({"multipliers": (1,) * 10**6}, r"multipliers is \[1, 1, 1, 1, ...\], expected up to 12 numbers"),
        ({"multipliers": (1, 10**9)}, "expected up to 12 numbers, up to 256 each"),
        ({"halve_space": (1,) * 10**6}, r"halve_space is \[1, 1, 1, 1, ...\], expected each stage once"),
        ({"encoder_width": 10**9}, "encoder_width is 1000000000, expected up to 16384"),
        ({"decoder_blocks": 10**8}, "decoder_blocks is 100000000, expected up to 256"),
    ],
)
def test_impossible_sizes_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**config)


def test_growth_that_the_decoder_cannot_undo_is_refused():
    # The decoder goes from 8 to 1 times its width where it doubles only space: 4 channels cannot fill 8.
    with pytest.raises(ValueError, match="multipliers shrink from 8 to 1"):
        TokenizerConfig(multipliers=(1, 1, 8, 8))


@pytest.mark.parametrize(
    "config",
    [{"channels": 0}, {"patch": 0}, {"encoder_width": -160}, {"decoder_blocks": 0}, {"multipliers": ()}],
    ids=str,
)
def test_sizes_that_are_not_positive_are_refused_by_name(config):
    with pytest.raises(ValueError, match=next(iter(config))):
        TokenizerConfig(**config)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 4, 32, 32), "a clip has 4 frames, expected 1 \\+ 4n"),
        ((1, 3, 0, 32, 32), "a clip has 0 frames"),
        ((1, 3, 1, 32, 40), "frames are 32x40, expected multiples of the stride 16x16"),
        ((1, 3, 1, 31, 32), "frames are 31x32"),
        ((1, 1, 1, 32, 32), "expected \\[B, 3, frames, H, W\\]"),
        ((3, 32, 32), "expected \\[B, 3, frames, H, W\\]"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(tiny, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5, 1, 2, 2), (4, 1, 2, 2)])
def test_features_that_do_not_fit_are_refused(tiny, shape):
    with pytest.raises(ValueError, match="expected \\[B, 4, 1\\+T, h, w\\]"):
        tiny.decode(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected \\[B, 4, 1\\+T, h, w\\]"):
        tiny.decode_frames(torch.zeros(shape))


# Numbers


@pytest.fixture(scope="module", params=["image", "clip"])
def media(request, drawn):
    return request.param, {"image": drawn((2, 3, 1, 32, 48), 1), "clip": drawn((1, 3, 9, 16, 32), 2)}[request.param]


def test_features_equal_the_golden_ones(tiny, golden, media):
    """The implementation that wrote them agreed with the release's outputs within 1e-5 (GRN_FIXTURES, below)."""
    name, x = media
    torch.testing.assert_close(tiny.encode(x), golden[f"{name}_feature"], atol=1e-4, rtol=0)


def test_pixels_equal_the_golden_ones(tiny, golden, media):
    """Decoded from the golden features quantized to 4 rounds; see above for where the numbers come from."""
    name, _ = media
    quantized = dequantize(quantize(golden[f"{name}_feature"], 4), 4)
    torch.testing.assert_close(tiny.decode(quantized, clamp=False), golden[f"{name}_decoded"], atol=1e-4, rtol=0)


def test_features_lie_between_minus_one_and_one(make_tokenizer, drawn):
    network = make_tokenizer()
    network.to_moments.weight.mul_(50)
    assert network.encode(drawn((1, 3, 1, 32, 32), 0)).abs().max() <= 1


def test_a_batch_gives_what_its_members_give_alone(tiny, drawn):
    x = drawn((3, 3, 5, 32, 16), 0)
    alone = torch.cat([tiny.encode(member) for member in x.split(1)])
    torch.testing.assert_close(tiny.encode(x), alone, atol=1e-5, rtol=0)


def test_decoded_pixels_are_clamped(tiny, golden):
    assert tiny.decode(golden["clip_feature"] * 10).abs().max() == 1


def test_clamping_changes_nothing_else(tiny, golden):
    feature = golden["clip_feature"] * 10
    assert torch.equal(tiny.decode(feature), tiny.decode(feature, clamp=False).clamp(-1, 1))


def test_unclamped_pixels_may_leave_the_range(tiny, golden):
    assert tiny.decode(golden["clip_feature"] * 10, clamp=False).abs().max() > 1


def test_attention_changes_the_features(make_tokenizer, drawn):
    x = drawn((1, 3, 1, 32, 32), 0)
    with_it = make_tokenizer()
    without = make_tokenizer(attention=False)
    without.load_state_dict(with_it.state_dict(), strict=False)
    assert (with_it.encode(x) - without.encode(x)).abs().max() > 1e-3


# Pieces


@pytest.mark.parametrize("piece", [1, 2, 3, 4])
@pytest.mark.parametrize("time", TIME_STRIDES)
def test_features_in_pieces_equal_the_whole_clip(make_tokenizer, drawn, time, piece):
    network = make_tokenizer(halve_time=TIME_STRIDES[time])
    x = drawn((2, 3, 1 + 5 * time, 16, 32), 0)
    torch.testing.assert_close(network.encode(x, piece=piece), network.encode(x, piece=5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("piece", [1, 2, 3, 4])
@pytest.mark.parametrize("time", TIME_STRIDES)
def test_pixels_in_pieces_equal_the_whole_clip(make_tokenizer, drawn, time, piece):
    network = make_tokenizer(halve_time=TIME_STRIDES[time])
    feature = drawn((2, 4, 6, 1, 2), 0)
    whole = network.decode(feature, piece=5, clamp=False)
    torch.testing.assert_close(network.decode(feature, piece=piece, clamp=False), whole, atol=1e-4, rtol=0)


@pytest.fixture
def pixels_seen(tiny):
    """Input pixels (batch x frames x height x width) of every pass through the encoder and out of the decoder."""
    seen = []

    def measure(x):
        seen.append(x.shape[0] * x.shape[2] * x.shape[3] * x.shape[4] * tiny.config.patch**2)

    hooks = [
        tiny.encoder.stem.register_forward_hook(lambda _, inputs, __: measure(inputs[0])),
        tiny.decoder.head.register_forward_hook(lambda _, __, output: measure(output)),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


PER_FRAME = 2 * 16 * 32


def test_long_clips_are_encoded_in_pieces_of_bounded_memory(tiny, drawn, pixels_seen, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 8 * PER_FRAME)
    tiny.encode(drawn((2, 3, 25, 16, 32), 0))
    assert pixels_seen == [9 * PER_FRAME, 8 * PER_FRAME, 8 * PER_FRAME]


def test_long_clips_are_decoded_in_pieces_of_bounded_memory(tiny, drawn, pixels_seen, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 8 * PER_FRAME)
    tiny.decode(drawn((2, 4, 7, 1, 2), 0))
    assert pixels_seen == [9 * PER_FRAME, 8 * PER_FRAME, 8 * PER_FRAME]


def test_frames_above_the_bound_pass_one_stride_at_a_time(tiny, drawn, pixels_seen, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 1)
    tiny.encode(drawn((2, 3, 9, 16, 32), 0))
    assert pixels_seen == [5 * PER_FRAME, 4 * PER_FRAME]


def test_short_clips_pass_whole(tiny, drawn, pixels_seen):
    tiny.encode(drawn((2, 3, 25, 16, 32), 0))
    tiny.decode(drawn((2, 4, 7, 1, 2), 0))
    assert pixels_seen == [25 * PER_FRAME] * 2


def test_batches_of_frames_pass_in_groups_of_bounded_memory(tiny, drawn, pixels_seen, monkeypatch):
    frames = torch.arange(5 * 16 * 32 * 3).view(5, 1, 16, 32, 3).to(torch.uint8)
    feature = tiny.encode_frames(frames)
    pixels = tiny.decode_frames(feature)
    pixels_seen.clear()
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 2 * 16 * 32)
    torch.testing.assert_close(tiny.encode_frames(frames), feature, atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny.decode_frames(feature), pixels, atol=1, rtol=0)
    assert pixels_seen == [PER_FRAME, PER_FRAME, PER_FRAME // 2] * 2


def test_frames_pass_as_their_floats_do(tiny, drawn):
    frames = torch.arange(9 * 16 * 32 * 3).view(1, 9, 16, 32, 3).to(torch.uint8)
    feature = tiny.encode(to_input(frames))
    assert torch.equal(tiny.encode_frames(frames), feature)
    assert torch.equal(tiny.decode_frames(feature), to_frames(tiny.decode(feature)))


def test_reconstruction_without_gradients_is_bounded_too(tiny, drawn, pixels_seen, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "WHOLE_CLIP_PIXELS", 8 * PER_FRAME)
    x = drawn((2, 3, 25, 16, 32), 0)
    bounded = tiny(x)
    assert pixels_seen == [9 * PER_FRAME, 8 * PER_FRAME, 8 * PER_FRAME] * 2
    with torch.enable_grad():
        whole = tiny(x)
    torch.testing.assert_close(bounded, whole.detach(), atol=1e-4, rtol=0)


# Time


@pytest.mark.parametrize("changed", [1, 4, 5, 8, 9, 12])
def test_no_feature_depends_on_later_frames(tiny, drawn, changed):
    x = drawn((1, 3, 13, 16, 32), 0)
    other = x.clone()
    other[:, :, changed:] = drawn((1, 3, 13 - changed, 16, 32), 1)
    unaffected = ceil(changed / 4)
    torch.testing.assert_close(
        tiny.encode(other)[:, :, :unaffected], tiny.encode(x)[:, :, :unaffected], atol=1e-6, rtol=0
    )


def test_features_depend_on_earlier_frames(tiny, drawn):
    x = drawn((1, 3, 9, 16, 32), 0)
    other = x.clone()
    other[:, :, 1:5] = drawn((1, 3, 4, 16, 32), 1)
    assert (tiny.encode(other) - tiny.encode(x))[:, :, 2].abs().max() > 1e-4


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_no_pixel_depends_on_later_features(tiny, drawn, changed):
    feature = drawn((1, 4, 4, 1, 2), 0)
    other = feature.clone()
    other[:, :, changed:] = drawn((1, 4, 4 - changed, 1, 2), 1)
    unaffected = 1 + 4 * (changed - 1)
    torch.testing.assert_close(
        tiny.decode(other)[:, :, :unaffected], tiny.decode(feature)[:, :, :unaffected], atol=1e-6, rtol=0
    )


def test_first_frame_of_a_clip_has_the_features_of_the_image(tiny, drawn):
    x = drawn((1, 3, 9, 32, 32), 0)
    torch.testing.assert_close(tiny.encode(x)[:, :, :1], tiny.encode(x[:, :, :1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 9])
def test_encoding_equals_3d_convolutions_over_zero_padded_time(tiny, drawn, frames, monkeypatch):
    x = drawn((2, 3, frames, 32, 16), 0)
    fast = tiny.encode(x)
    monkeypatch.setattr(CausalConv3d, "forward", zero_padded_forward)
    torch.testing.assert_close(fast, tiny.encode(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 3])
def test_decoding_equals_3d_convolutions_over_zero_padded_time(tiny, drawn, frames, monkeypatch):
    feature = drawn((2, 4, frames, 2, 1), 0)
    fast = tiny.decode(feature, clamp=False)
    monkeypatch.setattr(CausalConv3d, "forward", zero_padded_forward)
    torch.testing.assert_close(fast, tiny.decode(feature, clamp=False), atol=1e-5, rtol=0)


# Weights that change


def change_in_place(network, other):
    for parameter, value in zip(network.parameters(), other.parameters(), strict=True):
        parameter.copy_(value)


def change_by_optimizer(network, other):
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
        network(torch.ones(1, 3, 1, 16, 16)).square().mean().backward()
        optimizer.step()


def change_in_inference_mode(network, other):
    with torch.inference_mode():
        change_in_place(network, other)


WAYS_TO_CHANGE = {
    "in place": change_in_place,
    "in place, in inference mode": change_in_inference_mode,
    "optimizer": change_by_optimizer,
    "load_state_dict": lambda network, other: network.load_state_dict(other.state_dict()),
    "load_state_dict, assigned": lambda network, other: network.load_state_dict(other.state_dict(), assign=True),
    "to float64 and back": lambda network, other: (change_in_place(network, other), network.double().float()),
}


@pytest.mark.parametrize("change", WAYS_TO_CHANGE.values(), ids=WAYS_TO_CHANGE)
def test_changed_weights_count_from_the_next_image_on(make_tokenizer, drawn, change):
    network, other = make_tokenizer(seed=0), make_tokenizer(seed=1)
    x = drawn((1, 3, 1, 32, 32), 0)
    before = network.encode(x)
    change(network, other)
    fresh = make_tokenizer(seed=2)
    fresh.load_state_dict(copy.deepcopy(network.state_dict()))
    assert torch.equal(network.encode(x), fresh.encode(x))
    assert not torch.equal(network.encode(x), before)


def test_a_copy_does_not_share_its_cached_weights(make_tokenizer, drawn):
    network = make_tokenizer(seed=0)
    x = drawn((1, 3, 1, 32, 32), 0)
    before = network.encode(x)
    change_in_place(copy.deepcopy(network), make_tokenizer(seed=1))
    assert torch.equal(network.encode(x), before)


# Training


@pytest.fixture(scope="module")
def trained(make_tokenizer, drawn):
    network = make_tokenizer()
    with torch.enable_grad():
        network(drawn((1, 3, 9, 32, 32), 0)).sub(drawn((1, 3, 9, 32, 32), 1)).square().mean().backward()
    return network


def test_gradients_reach_every_parameter(trained):
    without = [n for n, p in trained.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_the_unused_half_of_the_moments_has_no_gradient(trained):
    assert trained.to_moments.weight.grad[4:].abs().max() == 0


def test_reconstruction_goes_through_the_quantizer(tiny, drawn):
    x = drawn((1, 3, 5, 32, 32), 0)
    expected = tiny.decode(straight_through(tiny.encode(x), 4), clamp=False)
    torch.testing.assert_close(tiny(x), expected, atol=1e-5, rtol=0)


def test_continuous_baseline_leaves_the_quantizer_out(make_tokenizer, drawn):
    network = make_tokenizer(rounds=None)
    x = drawn((1, 3, 5, 32, 32), 0)
    torch.testing.assert_close(network(x), network.decode(network.encode(x), clamp=False), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 9])
def test_features_under_bfloat16_autocast_stay_close(tiny, drawn, frames):
    x = drawn((1, 3, frames, 32, 32), 0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = tiny.encode(x)
    torch.testing.assert_close(rough.float(), tiny.encode(x), atol=0.03, rtol=0)


def test_gradients_under_bfloat16_autocast_are_finite(make_tokenizer, drawn):
    network = make_tokenizer()
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        loss = network(drawn((1, 3, 5, 32, 32), 0)).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


# Pixels


def test_patch_channels_are_ordered_by_colour_then_x_then_y():
    x = torch.arange(12).view(1, 3, 1, 2, 2)
    assert patchify(x, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unpatchify_inverts_patchify(drawn, patch):
    x = drawn((2, 3, 3, 8, 12), 0)
    assert torch.equal(unpatchify(patchify(x, patch), patch), x)


def test_every_pixel_level_survives_the_way_to_floats_and_back():
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).repeat(1, 2, 1, 1, 3)
    assert torch.equal(to_frames(to_input(frames)), frames)


def test_pixels_are_mapped_to_minus_one_and_one():
    frames = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 1, 3)
    torch.testing.assert_close(to_input(frames).flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_pixels_outside_the_range_are_limited_not_wrapped():
    x = torch.tensor([-1.5, 1.5, 0.0]).view(1, 3, 1, 1, 1)
    assert to_frames(x).flatten().tolist() == [0, 255, 128]
