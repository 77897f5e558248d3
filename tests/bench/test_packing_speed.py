"""Planning of packed sequences, and what a packed step costs beside its samples alone: pytest -m bench -s."""

import resource
import time

import numpy as np
import pytest
import torch

from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.runs.generator_recipe import PackedData
from grncli.training.packing import PackingPlan, TokenCounts

pytestmark = pytest.mark.bench

SAMPLES = 10_000_000
TOKENS = 40_960
AREAS = [225, 228, 234, 240, 247, 250, 252, 256]  # of the 15 ratios at 0.06M


def mixed_store(samples):
    """Pictures and clips of all ratios, 1 to 21 latent frames, with a caption of 3 to 300 tokens each."""
    random = np.random.default_rng(0)
    visual = random.choice(np.array(AREAS, np.int32), samples) * random.integers(1, 22, samples, dtype=np.int32)
    lengths = np.clip(random.normal(80, 40, samples), 3, 300).astype(np.int32)
    first = np.arange(samples, dtype=np.int32)
    return TokenCounts(visual, first, np.ones_like(first), np.full_like(first, -1), lengths, 1)


def test_ten_million_samples_are_planned_in_a_minute():
    counts = mixed_store(SAMPLES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = PackingPlan(counts, np.arange(SAMPLES), PackedData(tokens=TOKENS), seed=0, dropout=0.1)
    start, sequences, tokens = time.process_time(), 0, 0
    for sequence in plan.sequences():
        if sequence["epoch"].max() > 0:
            break
        sequences += 1
        tokens += int(sequence["tokens"].sum())
    seconds = time.process_time() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    waste = 1 - tokens / (sequences * TOKENS)
    print(f"\n{SAMPLES} samples in {seconds:.1f} s, {memory:.0f} MB beside their counts, {waste:.3%} of tokens wasted")
    assert seconds < 60
    assert memory < 500
    assert waste < 0.03


def test_a_packed_step_costs_no_more_than_its_samples_alone():
    torch.manual_seed(0)
    sizes = {"depth": 4, "width": 192, "heads": 6, "key_value_heads": 6, "hidden": 512, "text_width": 384}
    network = TextTransformer(TextTransformerConfig(**sizes, rounds=4, channels=16))
    grids = [(1, 4, 4), (1, 8, 4), (1, 8, 8), (5, 4, 4)] * 4
    states = [torch.randint(2, (64, *grid), dtype=torch.uint8) for grid in grids]
    ratio, texts = torch.rand(len(grids)), [torch.randn(12, 384) for _ in grids]

    def cost(groups):
        start = time.process_time()
        for group in groups:
            logits = network.predict([states[i] for i in group], ratio[group], [texts[i] for i in group])
            sum(each.float().square().mean() for each in logits).backward()
        return time.process_time() - start

    packed, alone = [list(range(len(grids)))], [[i] for i in range(len(grids))]
    pairs = [(cost(packed), cost(alone)) for _ in range(7)][1:]
    ratios = sorted(one / other for one, other in pairs)
    print(f"\na packed step takes {ratios[len(ratios) // 2]:.2f} times its samples' own")
    assert ratios[len(ratios) // 2] < 1.1
