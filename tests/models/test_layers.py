"""Layers against the definitions they are shortcuts for."""

import pytest
import torch
import torch.nn.functional as F

from grncli.models.layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    Upsample,
    fold_shortcut,
    unfold_shortcut,
)
from grncli.models.streaming import History


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_causal_convolution_is_a_3d_one_over_zero_padded_time(filled, drawn, kernel, frames):
    conv = filled(CausalConv3d(3, 5, kernel))
    x = drawn((2, 3, frames, 4, 6), 0)
    padded = F.pad(x, (0, 0, 0, 0, kernel[0] - 1, 0))
    expected = F.conv3d(padded, conv.weight, conv.bias, padding=(0, kernel[1] // 2, kernel[2] // 2))
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cuts", [[1, 6], [1, 1, 5], [1, 2, 4], [3, 4], [2, 1, 1, 3]])
def test_causal_convolution_remembers_what_it_saw(filled, drawn, cuts):
    conv = filled(CausalConv3d(3, 5, (3, 3, 3)))
    x = drawn((2, 3, 7, 4, 6), 0)
    history = History()
    in_pieces = torch.cat([conv(piece, history) for piece in x.split(cuts, dim=2)], dim=2)
    torch.testing.assert_close(in_pieces, conv(x), atol=1e-5, rtol=0)


def test_history_does_not_keep_whole_parts_alive(drawn):
    history = History()
    layer = CausalConv3d(1, 1, (3, 1, 1))
    history.extend(layer, drawn((1, 1, 50, 8, 8), 0), 2)
    assert history._frames[layer].untyped_storage().nbytes() == 2 * 8 * 8 * 4


def test_norm_scales_every_pixel_to_root_of_channels(drawn):
    normed = ChannelNorm(12)(drawn((2, 12, 3, 4, 5), 0))
    torch.testing.assert_close(normed.norm(dim=1), torch.full((2, 3, 4, 5), 12**0.5))


def test_norm_applies_its_gain_per_channel(filled, drawn):
    norm = filled(ChannelNorm(12))
    x = drawn((2, 12, 4, 5), 0)
    expected = F.normalize(x, dim=1) * 12**0.5 * norm.gain.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=0)


def test_norm_of_a_black_pixel_is_zero():
    assert torch.equal(ChannelNorm(4)(torch.zeros(1, 4, 1, 2, 2)), torch.zeros(1, 4, 1, 2, 2))


def test_attention_mixes_the_pixels_of_a_frame_and_no_others(filled, drawn):
    attention = filled(FrameAttention(8))
    x = drawn((1, 8, 3, 2, 4), 0)
    other = x.clone()
    other[:, :, 1, 0, 0] += 1
    changed = (attention(other) - attention(x)).abs().amax(dim=(0, 1)) > 1e-7
    assert changed.flatten(1).all(dim=1).tolist() == [False, True, False]
    assert not changed[0].any()
    assert not changed[2].any()


def test_attention_equals_its_definition(filled, drawn):
    attention = filled(FrameAttention(8))
    x = drawn((1, 8, 1, 3, 4), 0)
    q, k, v = attention.qkv(attention.norm(x[:, :, 0])).flatten(2)[0].split(8)
    mixed = torch.softmax(q.T @ k / 8**0.5, dim=1) @ v.T
    expected = x[:, :, 0] + attention.projection(mixed.T.reshape(1, 8, 3, 4))
    torch.testing.assert_close(attention(x)[:, :, 0], expected, atol=1e-5, rtol=0)


def test_halving_time_passes_the_first_frame_through(filled, drawn):
    down = filled(Downsample(4, space=False, time=True))
    x = drawn((1, 4, 5, 2, 2), 0)
    assert torch.equal(down(x)[:, :, :1], x[:, :, :1])


def test_halving_time_looks_at_three_frames_without_padding(filled, drawn):
    down = filled(Downsample(4, space=False, time=True))
    x = drawn((1, 4, 5, 2, 2), 0)
    expected = F.conv3d(x, down.time.weight, down.time.bias, stride=(2, 1, 1))
    torch.testing.assert_close(down(x)[:, :, 1:], expected)


def test_halving_space_pads_right_and_bottom(filled, drawn):
    down = filled(Downsample(4, space=True, time=False))
    x = drawn((1, 4, 1, 4, 6), 0)
    expected = F.conv2d(F.pad(x[:, :, 0], (0, 1, 0, 1)), down.space.weight, down.space.bias, stride=2)
    torch.testing.assert_close(down(x)[:, :, 0], expected)


def test_doubling_time_passes_the_first_frame_through(filled, drawn):
    up = filled(Upsample(4, space=False, time=True))
    x = drawn((1, 4, 3, 2, 2), 0)
    assert torch.equal(up(x)[:, :, :1], x[:, :, :1])


def test_doubling_time_does_not_see_the_first_frame(filled, drawn):
    up = filled(Upsample(4, space=False, time=True))
    x = drawn((1, 4, 3, 2, 2), 0)
    other = x.clone()
    other[:, :, 0] += 1
    torch.testing.assert_close(up(other)[:, :, 1:], up(x)[:, :, 1:])


def test_doubling_time_makes_two_frames_of_the_channel_halves(filled, drawn):
    up = filled(Upsample(4, space=False, time=True))
    x = drawn((1, 4, 2, 2, 2), 0)
    both = F.conv2d(x[:, :, 1], up.time.weight[:, :, -1], up.time.bias)
    torch.testing.assert_close(up(x)[:, :, 1:], torch.stack([both[:, :4], both[:, 4:]], dim=2))


def test_doubling_space_repeats_each_pixel_before_the_convolution(filled, drawn):
    up = filled(Upsample(4, space=True, time=False))
    x = drawn((1, 4, 1, 2, 3), 0)
    nearest = x[:, :, 0].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x)[:, :, 0], F.conv2d(nearest, up.space.weight, up.space.bias, padding=1))


def test_folding_shortcut_averages_blocks_of_pixels(drawn):
    x = drawn((1, 4, 1, 4, 6), 0)
    expected = F.avg_pool2d(x[:, :, 0], 2).unsqueeze(2)
    torch.testing.assert_close(fold_shortcut(x, 4, space=2, time=1, history=None), expected)


def test_folding_shortcut_takes_zeros_for_the_frame_before_the_first(drawn):
    x = drawn((1, 4, 3, 2, 2), 0)
    expected = torch.stack([x[:, :, 0] / 2, (x[:, :, 1] + x[:, :, 2]) / 2], dim=2)
    torch.testing.assert_close(fold_shortcut(x, 4, space=1, time=2, history=None), expected)


def test_unfolding_shortcut_repeats_pixels_where_channels_stay(drawn):
    x = drawn((1, 4, 1, 2, 3), 0)
    expected = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    assert torch.equal(unfold_shortcut(x, 4, space=2, time=1, history=None), expected)


def test_unfolding_shortcut_drops_the_frame_before_the_first(drawn):
    x = drawn((1, 4, 2, 2, 2), 0)
    assert torch.equal(unfold_shortcut(x, 4, space=1, time=2, history=None), x[:, :, [0, 1, 1]])
