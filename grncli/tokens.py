"""What a token holds: the indices of its channels (GRN_ind), or all their bits (GRN_bit) (paper section 3.2)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from grncli.hbq import bits_to_index, index_to_bits, pack, unpack

Prediction = Literal["ind", "bit"]


@dataclass(frozen=True)
class TokenCodec:
    """From HBQ indices to the categories that a generator predicts, and back.

    Parameters
    ----------
    prediction : *ind* predicts each channel's index, one of 2**M categories; *bit* each bit, one of two
    rounds : M
    channels : C, of the tokenizer
    """

    prediction: Prediction
    rounds: int
    channels: int

    @property
    def categories(self) -> int:
        """K, what each channel of a token is one of."""
        return 2 if self.prediction == "bit" else 2**self.rounds

    @property
    def token_channels(self) -> int:
        """Channels of a token: C indices, or M * C bits, round-major."""
        return self.channels * (self.rounds if self.prediction == "bit" else 1)

    def to_tokens(self, index: Tensor) -> Tensor:
        """Token map uint8 ``[B, token_channels, ...]`` of HBQ indices ``[B, C, ...]``."""
        return index_to_bits(index, self.rounds) if self.prediction == "bit" else index

    def to_index(self, tokens: Tensor) -> Tensor:
        """HBQ indices uint8 ``[B, C, ...]`` of a token map ``[B, token_channels, ...]``."""
        return bits_to_index(tokens, self.rounds) if self.prediction == "bit" else tokens

    def pack(self, tokens: Tensor) -> Tensor:
        """A bit store's records, as ``hbq.pack`` makes them, of a token map ``[B, token_channels, T, h, w]``."""
        return pack(self.to_index(tokens), self.rounds)

    def unpack(self, packed: Tensor) -> Tensor:
        """Token map ``[B, token_channels, T, h, w]`` of a bit store's records; of more rounds the first M are used."""
        return self.to_tokens(unpack(packed, self.channels, self.rounds))
