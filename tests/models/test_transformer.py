"""Layers of the transformers against their definitions, and positions in space and time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.models.transformer import (
    Attention,
    RatioEmbedding,
    RMSNorm,
    SwiGLU,
    position_embedding,
    rotary,
    rotate,
)
from grncli.runtime.tensor_files import read_released


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def frequency(number, count):
    return 10000 ** (-number / count)


# Norm and MLP


def test_the_norm_is_that_of_its_definition(filled, drawn):
    norm, x = filled(RMSNorm(6)), drawn((2, 3, 6), 0)
    expected = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.gain
    torch.testing.assert_close(norm(x), expected)


def test_the_norm_of_zeros_is_zero():
    assert RMSNorm(6)(torch.zeros(2, 6)).tolist() == [[0] * 6] * 2


def test_the_norm_keeps_the_number_format(drawn):
    assert RMSNorm(6)(drawn((2, 6), 0).bfloat16()).dtype == torch.bfloat16


def test_the_mlp_is_gated_by_its_first_half(filled, drawn):
    mlp, x = filled(SwiGLU(4, 7)), drawn((2, 3, 4), 0)
    both = x @ mlp.gate_and_up.weight.T + mlp.gate_and_up.bias
    gate, up = both[..., :7], both[..., 7:]
    expected = (gate / (1 + (-gate).exp()) * up) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(x), expected)


# Selection ratio


def test_the_ratio_enters_as_cosines_then_sines(filled):
    embed = filled(RatioEmbedding(5))
    waves = [[wave(0.3 * frequency(i, 128)) for wave in (math.cos, math.sin) for i in range(128)]]
    hidden = torch.tensor(waves) @ embed.first.weight.T + embed.first.bias
    expected = (hidden * hidden.sigmoid()) @ embed.second.weight.T + embed.second.bias
    torch.testing.assert_close(embed(torch.tensor([0.3])), expected, atol=1e-5, rtol=1e-5)


def test_each_sample_has_its_own_ratio(filled):
    embed, ratio = filled(RatioEmbedding(5)), torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(embed(ratio)[1:2], embed(ratio[1:2]))


# Rotation

angles = st.lists(st.floats(-10, 10), min_size=3, max_size=3)


@settings(max_examples=30)
@given(angles)
def test_pairs_of_neighbours_turn_as_complex_numbers_do(angle):
    x = torch.arange(12, dtype=torch.float64).view(1, 2, 1, 6)
    turn = torch.tensor(angle, dtype=torch.float64)
    turned = rotate(x, torch.stack([turn.cos(), turn.sin()])[:, None])
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (3, 2))) * torch.polar(turn * 0 + 1, turn))
    torch.testing.assert_close(turned, expected.flatten(-2))


def test_a_rotation_keeps_lengths(drawn):
    x = drawn((2, 3, 24, 8), 0)
    torch.testing.assert_close(rotate(x, rotary((2, 3, 4), 8)).norm(dim=-1), x.norm(dim=-1))


def test_a_rotation_keeps_the_number_format(drawn):
    assert rotate(drawn((1, 2, 12, 8), 0).bfloat16(), rotary((1, 3, 4), 8)).dtype == torch.bfloat16


def test_rows_turn_the_first_half_of_a_head_and_columns_the_second():
    cos, sin = rotary((1, 3, 5), 16)
    for row in range(3):
        for column in range(5):
            angle = torch.tensor([place * frequency(i, 4) for place in (row, column) for i in range(4)])
            torch.testing.assert_close(cos[row * 5 + column], angle.cos())
            torch.testing.assert_close(sin[row * 5 + column], angle.sin())


@pytest.mark.parametrize("context", [0, 1, 4])
def test_tokens_in_front_are_not_turned(context):
    cos, sin = rotary((2, 3, 4), 8, context)
    assert cos[:context].tolist() == [[1] * 4] * context
    assert sin[:context].tolist() == [[0] * 4] * context


def test_tokens_in_front_do_not_move_the_others():
    assert torch.equal(rotary((2, 3, 4), 8, context=5)[:, 5:], rotary((2, 3, 4), 8))


def test_the_first_frame_of_a_clip_turns_as_a_lone_one():
    assert torch.equal(rotary((3, 4, 5), 16)[:, :20], rotary((1, 4, 5), 16))


def test_attention_sees_differences_of_positions_only(drawn):
    query, key = drawn((1, 1, 1, 16), 0), drawn((1, 1, 1, 16), 1)
    turns = rotary((3, 4, 5), 16).view(2, 3, 4, 5, 8)

    def score(a, b):
        turned = [rotate(x, turns[(slice(None), *place)][:, None]) for x, place in ((query, a), (key, b))]
        return float((turned[0] * turned[1]).sum())

    assert score((0, 1, 2), (1, 3, 0)) == pytest.approx(score((1, 0, 4), (2, 2, 2)), abs=1e-5)


@pytest.mark.parametrize("head_width", [8, 64])
def test_no_two_places_of_a_clip_turn_alike(head_width):
    turns = torch.cat(list(rotary((5, 6, 6), head_width)), dim=1)
    assert float((torch.cdist(turns, turns) + 9 * torch.eye(180)).min()) > 0.01


# Position embedding


def test_positions_are_those_of_the_release(release_fixtures):
    theirs = read_released(release_fixtures / "c2i_ind.pth")["model_ema1"]["net.pos_embed"]
    torch.testing.assert_close(position_embedding((1, 4, 4), 32)[None], theirs, atol=1e-6, rtol=0)


def test_positions_are_sines_and_cosines_of_column_then_row():
    found = position_embedding((1, 3, 5), 16)
    for row in range(3):
        for column in range(5):
            waves = [
                wave(place * frequency(i, 4))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for i in range(4)
            ]
            assert found[row * 5 + column].tolist() == pytest.approx(waves, abs=1e-6)


def test_the_first_frame_of_a_clip_has_the_positions_of_a_lone_one():
    assert torch.equal(position_embedding((3, 4, 5), 16)[:20], position_embedding((1, 4, 5), 16))


def test_no_two_places_of_a_clip_have_the_same_position():
    places = position_embedding((5, 6, 6), 32)
    assert float((torch.cdist(places, places) + 9 * torch.eye(180)).min()) > 0.1


@pytest.mark.parametrize("shape_of", [position_embedding, lambda *size: rotary(*size).transpose(0, 1)])
def test_there_is_one_position_for_each_token_in_float32(shape_of):
    positions = shape_of((2, 3, 4), 16)
    assert (len(positions), positions.dtype) == (24, torch.float32)


# Attention


def plain_attention(layer, x, rotation):
    """Token by token and head by head, from the definition."""
    parts = (x @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in parts)
    query, key = rotate(layer.query_norm(query), rotation), rotate(layer.key_norm(key), rotation)
    weight = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    mixed = torch.cat(list((weight @ value).unbind(1)), dim=-1)
    return mixed @ layer.projection.weight.T + layer.projection.bias


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_that_of_its_definition(filled, drawn, heads):
    layer, x = filled(Attention(16, heads)), drawn((2, 14, 16), 0)
    rotation = rotary((1, 3, 4), 16 // heads, context=2)
    torch.testing.assert_close(layer(x, rotation), plain_attention(layer, x, rotation), atol=1e-5, rtol=0)


def test_attention_does_not_care_for_the_order_of_tokens_and_their_positions(filled, drawn):
    layer, x, rotation = filled(Attention(16, 2)), drawn((2, 12, 16), 0), rotary((1, 3, 4), 8)
    order = torch.arange(12).roll(5)
    torch.testing.assert_close(layer(x[:, order], rotation[:, order]), layer(x, rotation)[:, order])
