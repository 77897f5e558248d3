"""Hierarchical binary quantization (paper section 3.1, Eq. 1-3, Algorithm 1).

Every feature in (-1, 1) walks down a binary tree of buckets for M rounds, one bit a round, coarse to fine.
Three forms of the same M bits are used:

- *index*: the bits read as a binary number, round 1 the most significant (GRN_ind); uint8, same shape as the feature;
- *bits*: one 0/1 channel per bit, round-major: channel = round * C + c (GRN_bit); uint8 ``[B, M * C, ...]``;
- *packed*: eight channels to a byte, most significant bit first, one plane a round, channels last:
  uint8 ``[B, T, H, W, M, ceil(C / 8)]``, the record of the bit store. Its first m planes are the m-round quantization.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

MAX_ROUNDS = 8  # an index is one byte
BLOCK_BYTES = 2**18

# A 64-bit word holds the indices of eight neighbouring channels. Multiplying the lowest bits of its bytes by
# GATHER collects them in the top byte, first channel in the top bit; no two partial products share a bit position.
LOWEST_BITS = 0x0101010101010101
GATHER = 0x8040201008040201 - (1 << 64)  # as a signed 64-bit number


def quantize(feature: Tensor, rounds: int) -> Tensor:
    """Index of the bucket each feature falls into after ``rounds`` binary splits of (-1, 1).

    Parameters
    ----------
    feature : float tensor of any shape, values in [-1, 1] (the tokenizer's tanh output); what lies outside
        falls into the first or last bucket
    rounds : number of splits M, 1 to 8

    Returns
    -------
    uint8 tensor of the same shape, values 0 to 2**M - 1; bit M-1 is the first (coarsest) round.

    Raises
    ------
    ValueError
        If ``feature`` has a NaN or ``rounds`` is out of range.

    Paper: Eq. 1-2 and Algorithm 1. The loop over rounds collapses to one ceil because scaling by a power of two
    is exact in floating point.
    """
    _check_rounds(rounds)
    # aminmax hands a NaN on, so one reduction answers for all elements without a mask of their size.
    if feature.numel() and bool(torch.aminmax(feature.detach()).min.isnan()):
        raise ValueError("the features hold a NaN, expected numbers in [-1, 1]: the tokenizer or its input is broken")
    half = 2 ** (rounds - 1)
    index = torch.empty(feature.shape, dtype=torch.uint8, device=feature.device)
    for source, target in _blocks(feature.detach().reshape(-1), index.view(-1)):
        target.copy_((source * half).ceil_().clamp_(1 - half, half).add_(half - 1))
    return index


def dequantize(index: Tensor, rounds: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centre of each bucket, the sum over rounds of +-2**-round (Eq. 3), in (-1, 1); exact in float32.

    ``index`` is an integer tensor of any shape with values 0 to 2**rounds - 1.
    """
    _check_rounds(rounds)
    return index.to(dtype).mul_(2).add_(1).div_(2**rounds).sub_(1)


def straight_through(feature: Tensor, rounds: int, flips: Tensor | None = None) -> Tensor:
    """Quantized ``feature`` in the forward pass, the identity in the backward pass (Algorithm 1, last lines).

    ``F - stop(F)`` is exactly zero, so the value is exactly the bucket's centre, which
    ``F + stop(Q - F)`` would miss by a rounding error.

    Parameters
    ----------
    flips : uint8 of the same shape, values 0 to 2**rounds - 1: bits of the index that come out wrong, as a generator
        gets some wrong (ours)
    """
    index = quantize(feature.detach(), rounds)
    quantized = dequantize(index if flips is None else index ^ flips, rounds, feature.dtype)
    return quantized + (feature - feature.detach())


def prefix(index: Tensor, rounds: int, keep: int) -> Tensor:
    """Index after only the first ``keep`` of ``rounds`` rounds: the coarse part of a finer quantization."""
    _check_rounds(rounds)
    if not 1 <= keep <= rounds:
        raise ValueError(f"keep is {keep}, expected 1 to {rounds}, the number of rounds there are")
    return index >> (rounds - keep)


def index_to_bits(index: Tensor, rounds: int) -> Tensor:
    """Split indices ``[B, C, ...]`` into 0/1 channels ``[B, M * C, ...]``, round-major, uint8."""
    _check_rounds(rounds)
    return torch.cat([(index >> (rounds - 1 - r)) & 1 for r in range(rounds)], dim=1).to(torch.uint8)


def bits_to_index(bits: Tensor, rounds: int) -> Tensor:
    """Join 0/1 channels ``[B, M * C, ...]``, round-major, into indices ``[B, C, ...]``, uint8."""
    _check_rounds(rounds)
    if bits.shape[1] % rounds:
        raise ValueError(f"{bits.shape[1]} bit channels do not divide into {rounds} rounds")
    planes = bits.to(torch.uint8).chunk(rounds, dim=1)
    index = torch.zeros_like(planes[0])
    for plane in planes:
        index = (index << 1) | plane
    return index


def pack(index: Tensor, rounds: int) -> Tensor:
    """Pack indices ``[B, C, T, H, W]`` (uint8) into the bit store's records.

    Returns
    -------
    uint8 ``[B, T, H, W, M, ceil(C / 8)]``, contiguous; bits of a last incomplete byte are zero.
    """
    _check_rounds(rounds)
    channels = index.shape[1]
    bytes_ = -(-channels // 8)
    channels_last = torch.zeros(*index.shape[:1], *index.shape[2:], 8 * bytes_, dtype=torch.uint8, device=index.device)
    channels_last[..., :channels] = index.movedim(1, -1)
    packed = torch.empty(*channels_last.shape[:-1], rounds, bytes_, dtype=torch.uint8, device=index.device)
    for words, target in _blocks(channels_last.view(torch.int64).view(-1, bytes_), packed.view(-1, rounds, bytes_)):
        for r in range(rounds):
            plane = (words >> (rounds - 1 - r)).bitwise_and_(LOWEST_BITS).mul_(GATHER)
            target[:, r] = plane.bitwise_right_shift_(56)
    return packed


def unpack(packed: Tensor, channels: int, rounds: int | None = None) -> Tensor:
    """Indices ``[B, C, T, H, W]`` (uint8) of packed records, on whatever device they lie.

    Parameters
    ----------
    packed : uint8 ``[B, T, H, W, M, ceil(C / 8)]``
    channels : C, as the last byte may hold fewer than eight
    rounds : use only the first ``rounds`` planes (default: all M); the result then has that many rounds
    """
    rounds = packed.shape[-2] if rounds is None else rounds
    _check_rounds(rounds)
    if rounds > packed.shape[-2]:
        raise ValueError(f"rounds is {rounds}, expected at most {packed.shape[-2]}, the number of planes there are")
    spread = _spread_table(packed.device)
    words = torch.zeros_like(packed[..., 0, :], dtype=torch.int64)
    for r in range(rounds):
        words.bitwise_left_shift_(1).bitwise_or_(spread[packed[..., r, :].int()])
    return words.view(torch.uint8)[..., :channels].movedim(-1, 1).contiguous()


def _blocks(source: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of both side by side, on a CPU as many at a time as keep what is computed from them in its caches.

    Fresh memory costs a CPU more than the arithmetic; a GPU wants everything at once.
    """
    rows = len(source)
    if source.is_cpu and rows:
        rows = max(1, BLOCK_BYTES * rows // (source.numel() * source.element_size()))
    return zip(torch.split(source, rows or 1), torch.split(target, rows or 1), strict=True)


@cache
def _spread_table(device: torch.device) -> Tensor:
    """For each byte the word of its eight bits, one per byte of the word, most significant bit first; int64 [256]."""
    byte = torch.arange(256, device=device)[:, None]
    bits = (byte >> torch.arange(7, -1, -1, device=device)) & 1
    return bits.to(torch.uint8).view(torch.int64).squeeze(1)


def _check_rounds(rounds: int) -> None:
    if not 1 <= rounds <= MAX_ROUNDS:
        raise ValueError(f"rounds is {rounds}, expected 1 to {MAX_ROUNDS}")
