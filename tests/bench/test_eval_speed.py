"""What evaluation adds to the passes of its networks; the memory of 50,000 features, and the time of a distance."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from grncli.evaluation.feature_collection import Collector
from grncli.metrics.feature_networks import Identity, InceptionFeatures
from grncli.metrics.quality import METRICS, measure_frames
from grncli.models.inception import InceptionV3
from grncli.models.tokenizer import Tokenizer, to_frames, to_input
from grncli.runs.recipe import read_recipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe

pytestmark = pytest.mark.bench

MANY = """
import re, time, torch
from pathlib import Path
from grncli.metrics.frechet import frechet_distance
from grncli.evaluation.feature_collection import Collector
from grncli.metrics.feature_networks import Features

class Network:
    classes = ()

    def about(self):
        return {"name": "drawn"}

def peak():  # of this process alone; getrusage starts from the parent's
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
collector = Collector(Network(), keep=True)
began = time.perf_counter()
for start in range(0, 50_000, 50):
    for row, vector in enumerate(torch.randn(50, 2048)):
        collector.add(start + row, Features(vector[None], None))
added = time.perf_counter() - began
found = collector.distribution({"src": "drawn"})
began = time.perf_counter()
frechet_distance(found.mean, found.covariance, found.mean + 0.1, found.covariance * 1.1)
apart = time.perf_counter() - began
memory = (peak() - before) / 1024
print(f"50,000 features of 2,048: {added:.1f} s to add, {memory:.0f} MiB; their distance {apart:.1f} s")
"""


def seconds(call, times=3):
    call()
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def test_sums_over_features_cost_little_beside_inception(capsys):
    network = InceptionFeatures(Identity(name="drawn", sha256="0"), torch.device("cpu"), InceptionV3())
    frames = torch.randint(0, 256, (16, 1, 256, 256, 3), dtype=torch.uint8)
    collector = Collector(network, keep=True, probabilities=True)
    found = collector.compute(frames)
    passed = seconds(lambda: network(frames, probabilities=True))

    def add():
        for round_ in range(16):  # 256 vectors: one addition to the covariance
            for place, features in enumerate(found):
                collector.add(round_ * 16 + place, features)

    added = seconds(add) / 16
    with capsys.disabled():
        print(f"\n16 pictures through Inception {passed:.2f} s, their sums {added / passed:.2%} of it")


@pytest.mark.parametrize(("recipe", "count", "side"), [("image", 1, 256), ("small", 64, 32)])
def test_pairwise_metrics_cost_little_beside_a_tokenizer(capsys, recipe, count, side):
    config = read_recipe(Path(__file__).parents[2] / f"recipes/tokenizer-{recipe}.yaml", TokenizerRecipe).network
    tokenizer = Tokenizer(config, rounds=4).eval()
    frames = torch.randint(0, 256, (count, 1, side, side, 3), dtype=torch.uint8)

    def through():
        with torch.inference_mode():
            return to_frames(tokenizer.decode(tokenizer.encode(to_input(frames))))

    decoded = through()
    passed, measured = seconds(through), seconds(lambda: measure_frames(METRICS, decoded, frames))
    with capsys.disabled():
        told = f"{count} of {side}x{side} through tokenizer-{recipe} {passed:.2f} s"
        print(f"\n{told}, PSNR, SSIM and (from 176 pixels) MS-SSIM {measured / passed:.2%} of it")


def test_fifty_thousand_features_in_little_memory(capsys):
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    with capsys.disabled():
        print("\n" + done.stdout.strip())
