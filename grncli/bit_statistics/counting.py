"""Counts over packed bits: ones of each bit, which bits are one together, entropies and correlations from both."""

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 13  # unpacked to 64 KiB, which stay in a core's cache
PLANES_BYTES = 1 << 16

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_ONES_IN_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(axis=1, dtype=np.uint8)
_ONES_IN = np.add.outer(_ONES_IN_BYTE, _ONES_IN_BYTE).reshape(-1)  # of every 16-bit number


def clear_padding(tokens: Bytes, channels: int) -> Bytes:
    """Tokens [n, M, bytes] with the bits behind the last channel at zero, as ``grn tokenize`` writes them anyway."""
    spare = -channels % 8
    if not spare:
        return tokens
    mask = np.full(tokens.shape[-1], 255, np.uint8)
    mask[-1] = 255 << spare & 255
    return tokens & mask


def count_ones(tokens: Bytes, channels: int) -> Counts:
    """Number of tokens [n, M, bytes] in which each bit is one: [M, C], exact.

    Unpacked blocks are added into bytes, which hold up to 255 of them, and those now and then into 64-bit numbers:
    per bit that is one addition of a byte.
    """
    width = tokens[0].size
    length = max(1, BLOCK_BYTES // width) * width
    flat = tokens.reshape(-1)
    whole = len(flat) // length * length
    sums = np.zeros(length * 8, np.int64)
    for start in range(0, whole, 255 * length):
        block = np.zeros(length * 8, np.uint8)
        for at in range(start, min(whole, start + 255 * length), length):
            block += np.unpackbits(flat[at : at + length])
        sums += block
    rest = np.unpackbits(flat[whole:])
    sums[: len(rest)] += rest
    return sums.reshape(-1, tokens.shape[1], tokens.shape[2] * 8).sum(axis=0)[:, :channels]


def count_together(tokens: Bytes, channels: int) -> tuple[Counts, Counts]:
    """How often two bits of one channel [C, M, M], and two bits of one round [M, C, C], are one together; exact.

    Of tokens [n, M, bytes]. Counted in bits, 16 tokens at a time, and not as a product of matrices: on a busy machine
    the threads of a BLAS wait for each other ten times as long as that takes.
    """
    rounds = tokens.shape[1]
    of_rounds = np.zeros((channels, rounds, rounds), np.int64)
    of_channels = np.zeros((rounds, channels, channels), np.int64)
    size = max(16, (PLANES_BYTES * 8 // (rounds * channels)) & ~15)
    for start in range(0, len(tokens), size):
        planes = bit_planes(tokens[start : start + size], channels)
        for r in range(rounds):
            of_rounds[:, r, r:] += (ones_in(planes[r:] & planes[r])).T
        for c in range(channels):
            of_channels[:, c, c:] += ones_in(planes[:, c:] & planes[:, c : c + 1])
    for together in (of_rounds, of_channels):
        together += np.triu(together, 1).swapaxes(-1, -2)
    return of_rounds, of_channels


def bit_planes(tokens: Bytes, channels: int) -> NDArray[np.uint16]:
    """Bits of tokens [n, M, bytes] with the tokens side by side: [M, C, ceil(n / 16)], filled up with zeros."""
    bits = np.unpackbits(tokens, axis=-1, count=channels)
    side_by_side = np.zeros((*bits.shape[1:], -(-len(tokens) // 16) * 16), np.uint8)
    side_by_side[..., : len(tokens)] = bits.transpose(1, 2, 0)
    return np.packbits(side_by_side, axis=-1).view(np.uint16)


def ones_in(planes: NDArray[np.uint16]) -> Counts:
    """Number of ones in each row [..., n]."""
    return _ONES_IN[planes].sum(axis=-1, dtype=np.int64)


def correlation(together: Counts, tokens: int) -> Floats:
    """Correlation coefficients [..., k, k] of bits that are one together ``together`` times in ``tokens`` tokens.

    NaN where one of the two is constant; 1 on the diagonal elsewhere.
    """
    joint = together / max(tokens, 1)
    ones = np.diagonal(joint, axis1=-2, axis2=-1)
    deviation = np.sqrt(ones * (1 - ones))
    covariance = joint - ones[..., :, np.newaxis] * ones[..., np.newaxis, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = covariance / (deviation[..., :, np.newaxis] * deviation[..., np.newaxis, :])
    correlations[~np.isfinite(correlations)] = np.nan
    return np.clip(correlations, -1, 1)


def binary_entropy(share: Floats) -> Floats:
    """Entropy in bits of something that happens with probability ``share``."""
    inner = np.clip(share, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
    entropy = -inner * np.log2(inner) - (1 - inner) * np.log2(1 - inner)
    return np.where((share <= 0) | (share >= 1), 0.0, entropy)


def spread_picks(first: int, count: int, step: int) -> NDArray[np.int64]:
    """Which of ``count`` tokens from number ``first`` on belong to an evenly spread subsample of one in ``step``.

    One of each ``step`` tokens in a row, at a place drawn from the number of the row: so that the subsample depends
    on the tokens' numbers alone, and no fixed distance falls on the same spot of every picture.
    """
    if step == 1:
        return np.arange(count)
    rows = np.arange(first // step, (first + count - 1) // step + 1, dtype=np.uint64)
    drawn = (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        drawn = (drawn ^ (drawn >> np.uint64(shift))) * np.uint64(factor)
    drawn ^= drawn >> np.uint64(31)
    places = (rows * np.uint64(step) + drawn % np.uint64(step)).astype(np.int64) - first
    return places[(places >= 0) & (places < count)]


class Spans:
    """Pieces of a long row of bytes, evenly spread, gathered as the row passes by.

    Parameters
    ----------
    total : bytes of the row; all of it is gathered when it is not longer than ``wanted``
    wanted, pieces : how many bytes to gather, in how many pieces of one length
    """

    def __init__(self, total: int, wanted: int, pieces: int) -> None:
        self._length = total if total <= wanted else wanted // pieces
        self._starts = np.linspace(0, total - self._length, 1 if total <= wanted else pieces).astype(np.int64)
        self._gathered = np.zeros((len(self._starts), self._length), np.uint8)
        self._passed = 0

    def add(self, data: Bytes) -> None:
        """The next bytes of the row, as an array of any shape."""
        flat, first = data.reshape(-1), self._passed
        for start, target in zip((self._starts - first).tolist(), self._gathered, strict=True):
            begin, end = max(0, start), min(len(flat), start + self._length)
            if begin < end:
                target[begin - start : end - start] = flat[begin:end]
        self._passed += len(flat)

    def bytes(self) -> bytes:
        """The pieces behind each other."""
        return self._gathered.tobytes()
