"""What a token holds in either kind of prediction, and its way to a bit store and back."""

import pytest
import torch

from grncli.hbq import index_to_bits, pack
from grncli.tokens import TokenCodec


def indices(rounds, channels=5):
    generator = torch.Generator().manual_seed(rounds)
    return torch.randint(2**rounds, (2, channels, 1, 3, 2), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("prediction", "categories", "channels"), [("ind", 8, 5), ("bit", 2, 15)])
def test_a_token_has_an_index_or_all_bits_of_each_channel(prediction, categories, channels):
    codec = TokenCodec(prediction, 3, 5)
    assert (codec.categories, codec.token_channels) == (categories, channels)
    tokens = codec.to_tokens(indices(3))
    assert torch.equal(tokens, indices(3) if prediction == "ind" else index_to_bits(indices(3), 3))
    assert tokens.shape[1] == channels
    assert torch.equal(codec.to_index(tokens), indices(3))


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_records_are_those_of_a_bit_store(prediction):
    codec = TokenCodec(prediction, 3, 5)
    tokens = codec.to_tokens(indices(3))
    assert torch.equal(codec.pack(tokens), pack(indices(3), 3))
    assert torch.equal(codec.unpack(codec.pack(tokens)), tokens)


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_fewer_rounds_than_the_records_have_are_their_first(prediction):
    coarse = TokenCodec(prediction, 2, 5)
    assert torch.equal(coarse.to_index(coarse.unpack(pack(indices(4), 4))), indices(4) >> 2)
