"""Memory of a run: the most at a time, and that small ones are not told."""

import pytest
import torch

from grncli.models.text_transformer import TextTransformerConfig
from grncli.sampling.from_text.memory_needs import MemoryNeeds, memory_needs
from grncli.sampling.settings import SampleOptions

GB = 10**9
NEEDS = {"encoder": 11 * GB, "generator": 4 * GB, "tokenizer": 3 * GB, "activations": GB}


@pytest.mark.parametrize(
    ("changes", "peak"),
    [
        ({}, 14),  # the encoder beside the tokenizer
        ({"takes_turns": True}, 11),
        ({"encoder": 0}, 8),
        ({"encoder": 0, "takes_turns": True}, 5),
        ({"encoder_stays": True}, 19),
        ({"encoder_stays": True, "takes_turns": True}, 16),
    ],
)
def test_the_peak_is_of_what_is_there_at_a_time(changes, peak):
    assert MemoryNeeds(**NEEDS | changes).peak == peak * GB


def test_the_sizes_of_the_released_2b_are_told():
    config = TextTransformerConfig(rounds=4, channels=64)
    options = SampleOptions(dtype="bfloat16", offload=True)
    needs = memory_needs(options, config, (1, 64, 64), None)
    assert needs.generator == pytest.approx(2 * 2197.83e6, rel=1e-5)  # facts section 8
    said = []
    needs.tell(said.append)
    assert said[0].startswith("memory: at most about")
    assert "generator 4.4 GB" in said[0]
    assert memory_needs(options, config, (21, 30, 53), None).activations > needs.activations


def test_what_is_small_is_not_told():
    config = TextTransformerConfig(rounds=2, channels=4, depth=2, width=16, heads=2, key_value_heads=2, hidden=8)
    said = []
    memory_needs(SampleOptions(), config, (1, 4, 4), torch.nn.Linear(2, 2)).tell(said.append)
    assert said == []
