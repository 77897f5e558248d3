"""Random numbers that depend on what they are for, and on nothing that was drawn before.

Each number is a hash of (seed, sample, step, purpose, place), so a sample or a training step draws the same whatever
else is in its batch, on whatever device, and after whatever interruption. The hash is SplitMix64 (Steele et al. 2014):
a counter times an odd constant, through two rounds of xor-shift and multiplication.
"""

from enum import IntEnum

import torch
from torch import Tensor

MAX_SEED = (1 << 63) - 1  # of a signed 64-bit number
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as signed 64-bit numbers, which wrap round
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_FLOAT_BITS = 24  # of a float32's significand: every number below 1 is exact


class Purpose(IntEnum):
    """What a number is drawn for; no two share any."""

    RATIO = 1  # selection ratio of a training sample
    SELECTION = 2  # the binary selection map
    NOISE = 3  # the random token map
    PREDICTION = 4  # categories out of the predicted distribution
    CONDITION_DROPOUT = 5
    SPLIT = 6  # of pictures, for the Inception Score
    CAPTION = 7  # which of a training sample's captions it is trained with
    FIRST_FRAME = 8  # whether a training clip has a clean first frame
    BIT_ERRORS = 9  # which bits a tokenizer's decoder gets wrong in training


def uniform(seed: int, sample: Tensor, step: Tensor | int, purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
    """Independent uniform numbers in [0, 1) for each sample of a batch.

    Parameters
    ----------
    sample : int64 ``[B]``, the samples' own numbers
    step : int64 ``[B]`` or one number
    shape : of what each sample gets

    Returns
    -------
    float32 ``[B, *shape]`` on the device of ``sample``, multiples of 2**-24.
    """
    key = _scramble(torch.full_like(sample, seed))
    for part in (sample, step, int(purpose)):
        key = _scramble(key + torch.as_tensor(part, device=sample.device) * _GOLDEN)
    count = torch.Size(shape).numel()
    counter = torch.arange(1, count + 1, device=sample.device).mul_(_GOLDEN)
    bits = _scramble(key[:, None] + counter)
    numbers = _shifted(bits, 64 - _FLOAT_BITS).to(torch.float32).mul_(2.0**-_FLOAT_BITS)
    return numbers.view(len(sample), *shape)


def categories(seed: int, sample: Tensor, count: int, shape: tuple[int, ...], step: Tensor | int = 0) -> Tensor:
    """Uniform categories 0 to ``count`` - 1 (at most 256) for the random map of each sample, uint8 ``[B, *shape]``."""
    return uniform(seed, sample, step, Purpose.NOISE, shape).mul_(count).to(torch.uint8)


def _scramble(z: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64, in place where ``z`` is a temporary of the caller."""
    z = z.bitwise_xor_(_shifted(z, 30)).mul_(_FIRST)
    z = z.bitwise_xor_(_shifted(z, 27)).mul_(_SECOND)
    return z.bitwise_xor_(_shifted(z, 31))


def _shifted(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right; that of signed numbers would copy the sign."""
    return (z >> places).bitwise_and_((1 << (64 - places)) - 1)
