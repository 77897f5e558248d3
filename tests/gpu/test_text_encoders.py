"""On a CUDA device text encoders give what they give on a CPU; ``GRN_TEST_DEVICE=cpu`` runs the same tests there."""

import os

import pytest
import torch

from grncli.models.umt5 import Umt5Config, Umt5Encoder
from grncli.text.encoders import load_text_encoder

DEVICE = torch.device(os.environ.get("GRN_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
]
PROMPTS = ["a red star", "", "two blue circles on a cloudy Thursday", "one red star"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.01), (torch.bfloat16, 0.2)])
def test_minilm_agrees_with_the_cpu_in_float32(dtype, tolerance):
    expected = load_text_encoder("minilm")(PROMPTS)
    features = load_text_encoder("minilm", DEVICE, dtype)(PROMPTS)
    for one, other in zip(expected, features, strict=True):
        assert (other.device.type, other.dtype) == (DEVICE.type, torch.float32)
        torch.testing.assert_close(other.cpu(), one, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.002), (torch.bfloat16, 0.1)])
def test_umt5_agrees_with_the_cpu_in_float32(filled, dtype, tolerance):
    config = Umt5Config(vocabulary=400, depth=2, width=128, heads=2, hidden=256)
    network = filled(Umt5Encoder(config)).requires_grad_(False)
    ids = torch.arange(2 * 70).view(2, 70)
    expected = network(ids)
    features = network.to(DEVICE, dtype)(ids.to(DEVICE)).float().cpu()
    # The mean, as scores without scaling let single features of a random network follow any rounding.
    assert (features - expected).abs().mean() < tolerance
