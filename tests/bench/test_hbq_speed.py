"""Speed of quantizing and packing, beside Algorithm 1 as written and a plain copy: pytest -m bench -s tests/bench."""

import statistics
import time

import numpy as np
import pytest
import torch

from grncli.hbq import pack, quantize

pytestmark = pytest.mark.bench

SHAPE = (64, 16, 1, 128, 128)  # 16.8 million features, 67 MB
REPEATS = 7


def pack_by_loop(feature, rounds):
    """Algorithm 1 with an int64 tensor a round, then numpy's packbits."""
    centre = torch.zeros_like(feature)
    queue = []
    for i in range(1, rounds + 1):
        bit = (feature > centre).long()
        queue.append(bit)
        centre = centre + (2 * bit - 1) * 2.0**-i
    planes = torch.stack(queue, dim=1).movedim((1, 2), (-2, -1))
    return torch.from_numpy(np.packbits(planes.numpy().astype(np.uint8), axis=-1))


def medians(*actions):
    """Median seconds of each action; they take turns, so that noise on the machine meets all of them."""
    seconds = [[] for _ in actions]
    for _ in range(REPEATS):
        for action, taken in zip(actions, seconds, strict=True):
            start = time.perf_counter()
            action()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


@pytest.fixture(scope="module")
def feature():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1)


@pytest.mark.parametrize("rounds", [1, 4, 8])
def test_quantizing_and_packing(feature, rounds):
    part = feature[:4]
    assert torch.equal(pack(quantize(part, rounds), rounds), pack_by_loop(part, rounds))
    ours, loop, copy = medians(
        lambda: pack(quantize(feature, rounds), rounds),
        lambda: pack_by_loop(feature, rounds),
        feature.clone,
    )
    size = feature.numel() * 4
    moved = size + feature.numel() * rounds / 8  # read, and written packed
    share = (moved / ours) / (2 * size / copy)
    print(
        f"\nM={rounds}  {ours * 1e3:7.1f} ms {size / ours / 1e9:6.2f} GB/s of features"
        f"  {share:6.1%} of a copy's bandwidth ({2 * size / copy / 1e9:.1f} GB/s)  {loop / ours:5.1f}x the loop",
        end="",
    )


@pytest.mark.parametrize("rounds", [4])
def test_quantizing_alone(feature, rounds):
    ours, copy = medians(lambda: quantize(feature, rounds), feature.clone)
    size = feature.numel() * 4
    share = (size * 1.25 / ours) / (2 * size / copy)
    print(f"\nM={rounds}  {ours * 1e3:7.1f} ms, index only: {share:6.1%} of a copy's bandwidth", end="")
