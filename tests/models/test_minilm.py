"""MiniLM: the features of tokens that the sentence-transformers model has before it pools them."""

import pytest
import torch

from grncli.models.minilm import MiniLM
from grncli.text.encoder_files import find_minilm
from grncli.text.encoder_weights import read_minilm

# last_hidden_state of transformers 5.24 in float32, for [CLS], the middle token and [SEP]: the first four numbers and
# the last two; then the sum of squares of all.
REFERENCE = {
    (101, 102): (
        [
            [0.006044, 0.02769, 0.031542, -0.019427, -0.158297, -0.154162],
            [-1.51903, 0.587223, -0.063983, -0.120761, 0.750933, -0.045942],
            [-1.51903, 0.587223, -0.063983, -0.120761, 0.750933, -0.045942],
        ],
        173.018403,
    ),
    (101, 1037, 2417, 2732, 102): (
        [
            [-0.203088, -0.154451, -0.184402, 0.815911, -0.425909, 0.169228],
            [0.137124, -0.492877, -0.528149, 0.215066, -0.409067, 0.548943],
            [-0.457884, 0.688515, -0.480715, 1.092585, 0.535213, 0.539519],
        ],
        448.426168,
    ),
    (101, 2048, 2630, 7925, 1004, 1037, 2665, 2675, 1010, 2006, 1037, 24706, 9432, 1517, 15743, 7668, 1012, 102): (
        [
            [-0.008901, 0.205024, 0.2551, 0.210865, -0.478169, -0.328039],
            [0.10827, -0.44577, -0.056282, 0.388012, -0.684805, 0.259678],
            [0.24722, -0.177083, 0.026821, 0.802104, -0.413794, 0.040464],
        ],
        1106.198576,
    ),
}


@pytest.fixture(scope="module")
def network() -> MiniLM:
    return read_minilm(find_minilm().weights, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("ids", REFERENCE, ids=len)
def test_features_are_those_of_the_reference_in_float32(network, ids):
    numbers, squares = REFERENCE[ids]
    features = network(torch.tensor([ids]))[0]
    assert features.shape == (len(ids), 384)
    shown = features[[0, len(ids) // 2, -1]]
    torch.testing.assert_close(
        torch.cat([shown[:, :4], shown[:, -2:]], dim=1), torch.tensor(numbers), atol=1e-5, rtol=0
    )
    assert float(features.double().square().sum()) == pytest.approx(squares, abs=1e-3)


def test_a_batch_of_prompts_of_one_length_agrees_with_single_ones(network):
    ids = torch.tensor([[101, 1037, 2417, 102], [101, 2732, 2630, 102]])
    torch.testing.assert_close(network(ids), torch.cat([network(ids[:1]), network(ids[1:])]), atol=1e-5, rtol=0)
