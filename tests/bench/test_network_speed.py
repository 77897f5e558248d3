"""Speed of the 2D path for single frames, beside 3D convolutions over zero-padded time: pytest -m bench -s tests/bench.

Targets: encode 2.3x, decode 2.0x.
"""

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from grncli.models.layers import CausalConv3d
from grncli.models.tokenizer import Tokenizer, TokenizerConfig

pytestmark = pytest.mark.bench

SIZES = {
    "widths 64 and 96": ({"encoder_width": 64, "decoder_width": 96}, 5),
    "released": ({}, 3),
}


def zero_padded_forward(self, x, history=None):
    return F.conv3d(F.pad(x, (0, 0, 0, 0, self.past, 0)), self.weight, self.bias, padding=self.padding)


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES)
def network_and_repeats(request):
    config, repeats = request.param
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(**config), rounds=4).eval(), repeats


def compare(name, action, repeats):
    """Print the ratio of the medians of alternating repeats; the first of each is not counted."""
    seconds, results = {True: [], False: []}, {}
    ours = CausalConv3d.forward
    try:
        for _ in range(1 + repeats):
            for fast in (True, False):
                CausalConv3d.forward = ours if fast else zero_padded_forward
                start = time.perf_counter()
                results[fast] = action()
                seconds[fast].append(time.perf_counter() - start)
    finally:
        CausalConv3d.forward = ours
    torch.testing.assert_close(results[True], results[False], atol=1e-5, rtol=0)
    fast, slow = (statistics.median(seconds[kind][1:]) for kind in (True, False))
    print(f"\n{name}: {fast * 1e3:.0f} ms, in 3D {slow * 1e3:.0f} ms: {slow / fast:.2f}x", end="")


@torch.inference_mode()
def test_encoding_an_image(request, network_and_repeats):
    network, repeats = network_and_repeats
    x = torch.rand(1, 3, 1, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
    compare(request.node.name, lambda: network.encode(x), repeats)


@torch.inference_mode()
def test_decoding_an_image(request, network_and_repeats):
    network, repeats = network_and_repeats
    feature = torch.rand(1, 16, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    compare(request.node.name, lambda: network.decode(feature, clamp=False), repeats)
