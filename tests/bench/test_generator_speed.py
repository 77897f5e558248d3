"""GRN-B at 16x16 tokens (C = 16, M = 4): training against the bare module, sampling against bare calls."""

import time

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from grncli.conditions import ClassCondition
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.refinement import cross_entropy
from grncli.runs.generator_recipe import AskedGeneratorRecipe, BitData, GeneratorOptimization
from grncli.runs.tokenizer_recipe import Training
from grncli.sampling.sampler import Request, Sampler, SamplingSettings, measure_entropies
from grncli.schedules import Complexity, Fixed
from grncli.store import Fingerprint, open_part
from grncli.training.generator_training import make_plan, train_generator

pytestmark = pytest.mark.bench

GRID = (1, 16, 16)
BATCH = 2
B = ClassTransformerConfig(rounds=4, channels=16, classes=1000)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bits.zarr"
    fingerprint = Fingerprint(
        rounds=4,
        channels=16,
        stride=(4, 16, 16),
        tokenizer={"name": "drawn", "sha256": "00" * 32},
        preprocessing={},
        labels=tuple(map(str, range(1000))),
    )
    bits = np.random.default_rng(0).integers(0, 256, (64, *GRID, 4, 2), dtype=np.uint8)
    with open_part(path, fingerprint) as writer:
        writer.append(GRID, bits, range(64), [{"key": str(i), "source": str(i)} for i in range(64)])
        writer.commit(1, "", 1)
        writer.finish()
    return path


def seconds(call, times=3):
    call()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def test_a_training_step_costs_what_the_module_costs(store, tmp_path, capsys):
    network = ClassTransformer(B)
    optimizer = AdamW(network.parameters(), fused=True)
    state = torch.randint(0, 16, (BATCH, 16, *GRID), dtype=torch.uint8)
    ratio, label = torch.rand(BATCH), torch.randint(0, 1000, (BATCH,))

    def bare():
        cross_entropy(network(state, ratio, label), state).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    alone = seconds(bare)
    lines = []
    recipe = AskedGeneratorRecipe(
        data=BitData(batch=BATCH),
        optimization=GeneratorOptimization(ema=0.9999),
        training=Training(steps=6, log_every=1, checkpoint_every=100, preview_every=100, validate_every=100),
    )
    train_generator(
        make_plan(recipe, [store]),
        tmp_path / "run",
        device=torch.device("cpu"),
        report=lambda line: lines.append(line.numbers),
    )
    ours = min(line["seconds"] for line in lines[1:-1])
    waiting = max(line["waiting_share"] for line in lines[1:])
    with capsys.disabled():
        print(f"\ntraining step {ours:.2f} s, bare {alone:.2f} s: {ours / alone:.3f}x; waiting {waiting:.2%}")


def test_sampling_costs_what_its_function_evaluations_cost(capsys):
    network = ClassTransformer(B).eval().requires_grad_(False)
    settings = SamplingSettings(schedule=Fixed(9))
    requests = [Request(number, ClassCondition(torch.tensor([number]), B.classes)) for number in range(8)]
    state = torch.randint(0, 16, (8, 16, *GRID), dtype=torch.uint8)

    @torch.inference_mode()
    def bare():
        network(state, torch.rand(8), torch.arange(8))

    alone = seconds(bare) / 8
    began = time.perf_counter()
    made = list(Sampler(network, GRID, settings).run(requests))
    spent = time.perf_counter() - began
    nfe = sum(sample.nfe for sample in made)
    with capsys.disabled():
        each = spent / nfe
        print(f"\na function evaluation {alone:.3f} s bare, {each:.3f} s sampling: {each / alone:.3f}x")


def test_samples_that_end_early_save_their_time(capsys):
    """A small network with drawn weights, whose entropies differ enough to spread the steps."""
    torch.manual_seed(0)
    network = ClassTransformer(ClassTransformerConfig(depth=6, width=192, heads=6, rounds=4, channels=16, classes=10))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    network.eval().requires_grad_(False)
    requests = [Request(number, ClassCondition(torch.tensor([number % 10]), 10)) for number in range(128)]
    start = Complexity(1, 1, 20, 50)
    entropies = measure_entropies(network, (1, 4, 4), SamplingSettings(schedule=start), requests)
    low, high = float(entropies.min()), float(entropies.max())
    k = 30 / (high - low)
    spent, nfe = {}, {}
    for name, schedule in (("fixed", Fixed(50)), ("complexity", Complexity(k, 15 - k * low, 20, 50))):
        began = time.perf_counter()
        made = list(Sampler(network, (1, 4, 4), SamplingSettings(schedule=schedule)).run(requests))
        spent[name] = time.perf_counter() - began
        nfe[name] = sum(sample.nfe for sample in made)
    with capsys.disabled():
        share, saved = nfe["complexity"] / nfe["fixed"], spent["complexity"] / spent["fixed"]
        print(f"\ncomplexity-aware: {share:.3f} of the NFE, {saved:.3f} of the time")
