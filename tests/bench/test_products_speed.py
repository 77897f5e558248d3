"""GRN-B at 16x16 tokens (C = 16, M = 4): steps with and without what `grncli.models.products` does on a CPU.

Targets: training (batch 8) and a function evaluation in float32 1.5x on an AMD processor with AVX-512, in bfloat16
not slower. Without is also the authors' way: MKL, fused attention, PyTorch's norm.
"""

import statistics
import time

import pytest
import torch
from torch.optim import AdamW

from grncli.models import products
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.refinement import cross_entropy

pytestmark = pytest.mark.bench

BATCH, GRID = 8, (1, 16, 16)
SIZES = {
    "GRN-B": (ClassTransformerConfig(rounds=4, channels=16, classes=1000), 3),
    "small": (ClassTransformerConfig(depth=6, width=192, heads=6, rounds=4, channels=16, classes=10), 10),
}


def compare(name, action, repeats):
    """Print the median of the ratios of neighbouring repeats; the first of each is not counted."""
    seconds = {True: [], False: []}
    try:
        for _ in range(1 + repeats):
            for fast in (True, False):
                products.use(fast=fast)
                began = time.perf_counter()
                action()
                seconds[fast].append(time.perf_counter() - began)
    finally:
        products.use(fast=True)
    fast, plain = seconds[True][1:], seconds[False][1:]
    ratio = statistics.median(slow / quick for slow, quick in zip(plain, fast, strict=True))
    print(f"\n{name}: {statistics.median(fast):.3f} s, plain {statistics.median(plain):.3f} s: {ratio:.2f}x", end="")


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES)
def size(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture
def batch(size):
    config, _ = size
    generator = torch.Generator().manual_seed(0)
    state = torch.randint(0, 16, (BATCH, 16, *GRID), dtype=torch.uint8, generator=generator)
    return state, torch.rand(BATCH, generator=generator), torch.arange(BATCH) % config.classes


def test_a_training_step(request, size, dtype, batch):
    config, repeats = size
    network = ClassTransformer(config)
    optimizer = AdamW(network.parameters(), fused=True)

    def step():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = network(*batch)
        cross_entropy(logits.float(), batch[0]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    compare(request.node.name, step, repeats)


def test_a_function_evaluation(request, size, dtype, batch):
    config, repeats = size
    network = ClassTransformer(config).to(dtype).eval()

    @torch.inference_mode()
    def evaluate():
        network(*batch)

    compare(request.node.name, evaluate, repeats)
