"""HBQ against Algorithm 1 written as the loop it is, for every kind of float32."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from grncli import hbq

ALL_ROUNDS = range(1, 9)
rounds_drawn = st.integers(1, 8)
floats = st.floats(-1, 1, width=32, allow_subnormal=True)


def split_by_loop(feature, rounds):
    """Bits [M, ...] and bucket centres of Algorithm 1, in float64, where every centre is exact."""
    feature = np.asarray(feature, dtype=np.float64)
    centre = np.zeros_like(feature)
    bits = []
    for i in range(1, rounds + 1):
        bit = feature > centre
        bits.append(bit)
        centre = centre + np.where(bit, 1.0, -1.0) * 2.0**-i
    return np.stack(bits), centre


def index_by_loop(feature, rounds):
    bits, _ = split_by_loop(feature, rounds)
    return sum(bit.astype(np.int64) << (rounds - 1 - r) for r, bit in enumerate(bits))


def assert_same_index(feature, rounds):
    found = hbq.quantize(torch.from_numpy(np.asarray(feature, dtype=np.float32)), rounds)
    np.testing.assert_array_equal(found.numpy(), index_by_loop(feature, rounds))


def features_of(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


def indices_of(shape, rounds, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**rounds, shape, dtype=np.uint8))


# Quantization


@given(st.lists(floats, min_size=1, max_size=64), rounds_drawn)
def test_index_equals_algorithm_1(values, rounds):
    assert_same_index(values, rounds)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=64, max_size=256), rounds_drawn)
def test_index_equals_algorithm_1_for_random_bit_patterns(patterns, rounds):
    # Keeping the sign and taking the magnitude modulo the pattern of 1.0 gives every float in [-1, 1].
    patterns = np.array(patterns, dtype=np.uint32)
    magnitude = (patterns & 0x7FFFFFFF) % (np.float32(1).view(np.uint32) + np.uint32(1))
    assert_same_index((patterns & 0x80000000 | magnitude).astype(np.uint32).view(np.float32), rounds)


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_neighbours_of_every_bucket_edge_fall_on_their_side(rounds):
    edges = (np.arange(-(2 ** (rounds - 1)), 2 ** (rounds - 1) + 1) / 2 ** (rounds - 1)).astype(np.float32)
    below, above = np.nextafter(edges[1:], np.float32(-2)), np.nextafter(edges[:-1], np.float32(2))
    assert_same_index(np.concatenate([edges, below, above]), rounds)


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_subnormal_above_zero_goes_to_bit_one(rounds):
    smallest = torch.tensor([np.nextafter(np.float32(0), np.float32(1))])
    assert hbq.quantize(smallest, rounds).item() >> (rounds - 1) == 1


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_either_zero_goes_to_bit_zero(rounds, zero):
    assert hbq.quantize(torch.tensor([zero]), rounds).item() == 2 ** (rounds - 1) - 1


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_ends_of_the_range_fall_into_the_outer_buckets(rounds):
    assert hbq.quantize(torch.tensor([-1.0, 1.0]), rounds).tolist() == [0, 2**rounds - 1]


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_what_lies_outside_the_range_falls_into_the_outer_buckets(rounds):
    outside = torch.tensor([-1.5, -math.inf, 1.5, math.inf])
    assert hbq.quantize(outside, rounds).tolist() == [0, 0, 2**rounds - 1, 2**rounds - 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_float_types_give_algorithm_1_too(dtype):
    feature = features_of(4096).to(dtype)
    np.testing.assert_array_equal(hbq.quantize(feature, 8).numpy(), index_by_loop(feature.double().numpy(), 8))


def test_nan_is_refused_wherever_it_lies():
    feature = torch.zeros(3, 1000)
    feature[1, 777] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        hbq.quantize(feature, 4)


def test_quantize_leaves_the_features_alone():
    feature = features_of(100)
    before = feature.clone()
    hbq.quantize(feature, 4)
    assert torch.equal(feature, before)


def test_empty_features_have_an_empty_index():
    assert hbq.quantize(torch.empty(0, 4), 4).shape == (0, 4)


@pytest.mark.parametrize("rounds", [0, 9, -1])
def test_rounds_out_of_range_are_refused(rounds):
    with pytest.raises(ValueError, match="expected 1 to 8"):
        hbq.quantize(torch.zeros(1), rounds)


# Compatibility with the release


@pytest.fixture(scope="module")
def release(data_dir):
    return load_file(data_dir / "hbq.safetensors")


@pytest.mark.parametrize("rounds", [1, 2, 4, 6, 8])
def test_index_equals_the_release(release, rounds):
    assert torch.equal(hbq.quantize(release["feature"], rounds), release[f"index_M{rounds}"])


@pytest.mark.parametrize("rounds", [1, 2, 4, 6, 8])
def test_bits_equal_the_release(release, rounds):
    assert torch.equal(hbq.index_to_bits(release[f"index_M{rounds}"], rounds), release[f"bits_M{rounds}"])


@pytest.mark.parametrize("rounds", [1, 2, 4, 6, 8])
def test_dequantized_equals_the_release(release, rounds):
    assert torch.equal(hbq.dequantize(release[f"index_M{rounds}"], rounds), release[f"quantized_M{rounds}"])


# Back to numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_dequantized_is_exactly_the_sum_over_rounds(rounds, dtype):
    index = torch.arange(2**rounds, dtype=torch.uint8)
    bits = [(np.arange(2**rounds) >> (rounds - i)) & 1 for i in range(1, rounds + 1)]
    expected = sum((2.0 * bit - 1) * 2.0**-i for i, bit in enumerate(bits, start=1))
    np.testing.assert_array_equal(hbq.dequantize(index, rounds, dtype).double().numpy(), expected)


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_quantize_inverts_dequantize(rounds):
    index = torch.arange(2**rounds, dtype=torch.uint8)
    assert torch.equal(hbq.quantize(hbq.dequantize(index, rounds), rounds), index)


@given(st.lists(floats, min_size=1, max_size=64), rounds_drawn)
def test_dequantized_is_within_half_a_bucket(values, rounds):
    feature = torch.tensor(values)
    restored = hbq.dequantize(hbq.quantize(feature, rounds), rounds)
    assert (restored.double() - feature.double()).abs().max().item() <= 2.0**-rounds


@given(st.lists(floats, min_size=1, max_size=64), rounds_drawn)
def test_straight_through_value_is_exactly_the_bucket_centre(values, rounds):
    feature = torch.tensor(values, requires_grad=True)
    _, centre = split_by_loop(values, rounds)
    np.testing.assert_array_equal(hbq.straight_through(feature, rounds).detach().numpy(), centre.astype(np.float32))


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_straight_through_gradient_is_exactly_one(rounds):
    feature = features_of((2, 3, 5)).requires_grad_()
    hbq.straight_through(feature, rounds).sum().backward()
    assert torch.equal(feature.grad, torch.ones_like(feature))


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_flips_change_exactly_the_bits_they_name_and_no_gradient(rounds):
    feature = features_of((2, 3, 5)).requires_grad_()
    flips = torch.arange(30).remainder(2**rounds).to(torch.uint8).view(2, 3, 5)
    wrong = hbq.straight_through(feature, rounds, flips)
    wrong.sum().backward()
    changed = hbq.quantize(wrong.detach(), rounds) ^ hbq.quantize(feature.detach(), rounds)
    assert torch.equal(changed, flips)
    assert torch.equal(feature.grad, torch.ones_like(feature))


# Prefixes and bits


@given(st.lists(floats, min_size=1, max_size=64), st.integers(1, 8), st.data())
def test_prefix_is_the_coarser_quantization(values, rounds, data):
    keep = data.draw(st.integers(1, rounds))
    feature = torch.tensor(values)
    assert torch.equal(hbq.prefix(hbq.quantize(feature, rounds), rounds, keep), hbq.quantize(feature, keep))


@pytest.mark.parametrize("keep", [0, 5])
def test_prefix_refuses_rounds_that_are_not_there(keep):
    with pytest.raises(ValueError, match="expected 1 to 4"):
        hbq.prefix(torch.zeros(1, dtype=torch.uint8), 4, keep)


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_bit_channels_are_round_major(rounds):
    feature = features_of((2, 5, 1, 3, 2))
    by_loop, _ = split_by_loop(feature.numpy(), rounds)
    expected = np.moveaxis(by_loop, 0, 1).reshape(2, rounds * 5, 1, 3, 2)
    np.testing.assert_array_equal(hbq.index_to_bits(hbq.quantize(feature, rounds), rounds).numpy(), expected)


@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_bits_join_to_the_index_they_came_from(rounds):
    index = indices_of((2, 5, 1, 3, 2), rounds)
    assert torch.equal(hbq.bits_to_index(hbq.index_to_bits(index, rounds), rounds), index)


def test_bit_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="10 bit channels"):
        hbq.bits_to_index(torch.zeros(1, 10, 2, dtype=torch.uint8), 4)


# Packed records


def packed_by_numpy(index, rounds):
    """numpy.packbits over the channels of each round-major plane: [B, T, H, W, M, ceil(C / 8)]."""
    planes = np.stack([(index.numpy() >> (rounds - 1 - r)) & 1 for r in range(rounds)], axis=1)
    return np.packbits(np.moveaxis(planes, [1, 2], [-2, -1]), axis=-1)


@pytest.mark.parametrize("channels", range(1, 21))
def test_packed_equals_numpy_packbits(channels):
    index = indices_of((2, channels, 3, 2, 5), 8, seed=channels)
    np.testing.assert_array_equal(hbq.pack(index, 8).numpy(), packed_by_numpy(index, 8))


@pytest.mark.parametrize("shape", [(1, 16, 1, 1, 2), (1, 64, 3, 4, 4), (3, 8, 1, 16, 16), (2, 33, 2, 1, 3)])
@pytest.mark.parametrize("rounds", ALL_ROUNDS)
def test_packed_equals_numpy_packbits_for_all_rounds(shape, rounds):
    index = indices_of(shape, rounds)
    np.testing.assert_array_equal(hbq.pack(index, rounds).numpy(), packed_by_numpy(index, rounds))


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_a_single_token_packs_too(channels):
    index = indices_of((1, channels, 1, 1, 1), 4)
    np.testing.assert_array_equal(hbq.pack(index, 4).numpy(), packed_by_numpy(index, 4))


def test_packing_takes_an_index_that_is_not_contiguous():
    index = indices_of((2, 3, 2, 16, 5), 4).transpose(1, 3)
    np.testing.assert_array_equal(hbq.pack(index, 4).numpy(), packed_by_numpy(index, 4))


def test_packed_records_are_contiguous():
    assert hbq.pack(indices_of((2, 12, 3, 2, 5), 4), 4).is_contiguous()


@settings(max_examples=50)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    rounds_drawn,
    st.integers(0, 2**32 - 1),
)
def test_unpack_inverts_pack(shape, rounds, seed):
    index = indices_of(shape, rounds, seed)
    assert torch.equal(hbq.unpack(hbq.pack(index, rounds), shape[1]), index)


@settings(max_examples=50)
@given(st.integers(1, 20), rounds_drawn, st.data())
def test_first_planes_of_a_record_are_the_coarser_quantization(channels, rounds, data):
    keep = data.draw(st.integers(1, rounds))
    feature = features_of((2, channels, 1, 3, 2), seed=data.draw(st.integers(0, 1000)))
    packed = hbq.pack(hbq.quantize(feature, rounds), rounds)
    assert torch.equal(hbq.unpack(packed, channels, rounds=keep), hbq.quantize(feature, keep))


def test_more_rounds_than_planes_are_refused():
    with pytest.raises(ValueError, match="expected at most 2"):
        hbq.unpack(torch.zeros(1, 1, 1, 1, 2, 1, dtype=torch.uint8), 8, rounds=3)
