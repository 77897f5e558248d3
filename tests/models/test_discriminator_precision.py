"""Discriminators under bfloat16 autocast: gradients are finite, and the same at every call."""

import pytest
import torch

from grncli.models.discriminator import ClipDiscriminator, PatchDiscriminator


def fill_free_memory_with_nan() -> None:
    """Allocate and free blocks of many sizes, so that what reads unwritten memory finds no zeros there."""
    sizes = (100, 1000, 5000, 20000, 100000)
    blocks = [
        torch.full((size,), torch.nan, dtype=dtype) for size in sizes for dtype in (torch.float32, torch.bfloat16)
    ]
    del blocks


@pytest.mark.parametrize("frames", [2, 3, 5, 8])
@pytest.mark.parametrize("kind", [PatchDiscriminator, ClipDiscriminator])
def test_gradients_in_bfloat16_are_finite_and_repeat(kind, frames):
    torch.manual_seed(0)
    network, clips = kind(width=8, layers=2), torch.randn(2, 3, frames, 24, 24)
    gradients = []
    for _ in range(10):
        fill_free_memory_with_nan()
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(clips)
        logits.float().square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].isfinite().all()
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
