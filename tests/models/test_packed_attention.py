"""Packed samples attend as a dense mask over all of them would let them, whatever their lengths."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.models.packed_attention import packed_attention

lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)


def packed(query_lengths, key_lengths, heads=4, key_value_heads=4, width=6, seed=0):
    """Queries, keys and values of samples."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(sum(query_lengths), heads), (sum(key_lengths), key_value_heads), (sum(key_lengths), key_value_heads)]
    return [torch.randn(*size, width, generator=generator) for size in sizes]


def masked(query, key, value, query_lengths, key_lengths):
    """The definition: one softmax over all keys, those of other samples masked."""
    sample_of_query, sample_of_key = (
        torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in (query_lengths, key_lengths)
    )
    group = query.shape[1] // key.shape[1]
    heads = []
    for head in range(query.shape[1]):
        score = query[:, head] @ key[:, head // group].T / math.sqrt(query.shape[2])
        score = score.masked_fill(sample_of_query[:, None] != sample_of_key, -math.inf)
        heads.append(score.softmax(dim=1) @ value[:, head // group])
    return torch.stack(heads, dim=1)


@settings(max_examples=40)
@given(lengths, st.sampled_from([1, 2, 4]))
def test_a_sample_attends_to_itself_alone(pairs, key_value_heads):
    query_lengths, key_lengths = zip(*pairs, strict=True)
    arguments = packed(query_lengths, key_lengths, key_value_heads=key_value_heads)
    mixed = packed_attention(*arguments, query_lengths, key_lengths)
    torch.testing.assert_close(mixed, masked(*arguments, query_lengths, key_lengths), atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(lengths)
def test_in_float32_a_sample_does_not_depend_on_its_neighbours(pairs):
    query_lengths, key_lengths = zip(*pairs, strict=True)
    query, key, value = packed(query_lengths, key_lengths, width=8)
    mixed = packed_attention(query, key, value, query_lengths, key_lengths)
    n, m = query_lengths[-1], key_lengths[-1]
    assert torch.equal(mixed[-n:], packed_attention(query[-n:], key[-m:], value[-m:], [n], [m]))


def test_gradients_are_those_of_the_definition():
    lengths = ([3, 1, 5], [2, 7, 5])
    ours, theirs = (
        [x.double().requires_grad_() for x in packed(*lengths, key_value_heads=2)],
        [x.double().requires_grad_() for x in packed(*lengths, key_value_heads=2)],
    )
    packed_attention(*ours, *lengths).square().sum().backward()
    masked(*theirs, *lengths).square().sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


def test_lengths_that_do_not_add_up_are_an_error():
    with pytest.raises(RuntimeError, match="split"):
        packed_attention(*packed([3], [4]), [2], [4])
