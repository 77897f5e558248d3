"""On a CUDA device packed attention in bfloat16 is one kernel, and agrees with the loop over samples.

``GRN_TEST_DEVICE=cpu`` runs the same tests on the CPU, which shows that they run where there is no GPU.
"""

import copy
import os

import pytest
import torch
import torch.nn.functional as F

from grncli.models.packed_attention import by_sample, packed_attention
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig

DEVICE = os.environ.get("GRN_TEST_DEVICE", "cuda")
ON_CUDA = torch.device(DEVICE).type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_CUDA and not torch.cuda.is_available(), reason="there is no CUDA device"),
]

LENGTHS = ([17, 1, 300], [20, 65, 300])
SMALL = {"depth": 2, "width": 128, "heads": 4, "key_value_heads": 2, "hidden": 256, "text_width": 24}


def drawn(dtype: torch.dtype, heads: int = 4, width: int = 64) -> list[torch.Tensor]:
    """Queries, keys and values of three samples, with gradients."""
    generator = torch.Generator().manual_seed(0)
    sizes = [sum(LENGTHS[0]), sum(LENGTHS[1]), sum(LENGTHS[1])]
    rows = [torch.randn(n, heads, width, generator=generator).to(DEVICE, dtype) for n in sizes]
    return [x.requires_grad_() for x in rows]


@pytest.mark.parametrize("width", [24, 64, 128, 20])  # the last is no multiple of 8, which the kernel needs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_kernel_agrees_with_one_product_per_sample(dtype: torch.dtype, width: int) -> None:
    ours, theirs = drawn(dtype, width=width), [x.detach().float().requires_grad_() for x in drawn(dtype, width=width)]
    mixed, expected = packed_attention(*ours, *LENGTHS), by_sample(*theirs, *LENGTHS)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(mixed.float(), expected, atol=tolerance, rtol=tolerance)
    mixed.float().square().sum().backward()
    expected.square().sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        assert float((x.grad.float() - y.grad).norm() / y.grad.norm()) < tolerance


@pytest.mark.skipif(not ON_CUDA, reason="profiles the kernels of a GPU")
def test_bfloat16_takes_the_kernel() -> None:
    arguments = drawn(torch.bfloat16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        packed_attention(*arguments, *LENGTHS)
    assert sum(event.count for event in profile.key_averages() if "_flash_attention_forward" in event.key) == 1


@pytest.mark.parametrize("attention", ["text-only", "full"])
def test_the_network_in_bfloat16_stays_near_float32_of_the_cpu(attention: str) -> None:
    torch.manual_seed(0)
    network = TextTransformer(TextTransformerConfig(**SMALL, rounds=2, channels=4, attention=attention))
    states = [torch.randint(2, (8, *grid), dtype=torch.uint8) for grid in ((1, 6, 8), (3, 4, 4))]
    ratio, text = torch.rand(2), [torch.randn(5, 24), torch.randn(40, 24)]
    there = copy.deepcopy(network).to(DEVICE, torch.bfloat16)
    memories = there.remember([one.to(DEVICE) for one in text])
    with torch.no_grad():
        exact = network.predict(states, ratio, text)
        rounded = there.predict([state.to(DEVICE) for state in states], ratio.to(DEVICE), memories)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert float((ours.float().cpu() - theirs).norm() / theirs.norm()) < 0.05


@pytest.mark.parametrize("attention", ["text-only", "full"])
def test_the_network_trains_under_autocast(attention: str) -> None:
    torch.manual_seed(0)
    network = TextTransformer(TextTransformerConfig(**SMALL, rounds=2, channels=4, attention=attention)).to(DEVICE)
    state = torch.randint(2, (2, 8, 1, 6, 8), device=DEVICE)
    text = [torch.randn(5, 24, device=DEVICE), torch.randn(40, 24, device=DEVICE)]
    with torch.autocast(DEVICE, torch.bfloat16):
        logits = network(state, torch.rand(2, device=DEVICE), text)
    F.cross_entropy(logits, state).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
