"""Networks for small pictures, and what tests of their figures have in common."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from grncli.evaluation.feature_collection import NetworkOptions, collect
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_sources import open_pictures
from grncli.metrics.feature_networks import load_feature_network
from grncli.metrics.statistics_files import write_statistics

READING = {field.name for field in fields(PictureReading)}

KINDS = ("folder", "zip", "store", "array", "statistics")

NAMES = ("ant", "bee", "cat")


class Colours(nn.Module):
    """Mean of each colour, called as StyleGAN's Inception is; the classifier says which colour there is most of."""

    classes: list[str]

    def __init__(self):
        super().__init__()
        self.classes = ["ant", "bee", "cat"]

    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        means = x.float().flatten(2).mean(2) / 255
        return means if return_features else (20 * means).softmax(1)


class Spread(nn.Module):
    """Of one argument, and of as many dimensions as the one above."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(2).std(2)


class Wide(nn.Module):
    """Twelve dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.float() / 255, [2, 2]).flatten(1)


class Broken(nn.Module):
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return x.float().flatten(2).mean(2) * math.nan


def noise(seed, colour, height=16, width=16):
    """Random pixels with more of one colour."""
    pixels = np.random.default_rng(seed).integers(0, 128, (height, width, 3))
    pixels[..., colour] += 100
    return pixels.astype(np.uint8)


def save_statistics(src, file, network, *, keep=False):
    found = collect(open_pictures(str(src), PictureReading(workers=0)), load(network), keep=keep)
    write_statistics(file, found, features=keep)
    return file


def load(network):
    return load_feature_network(network, cache=Path("no/cache"))


def place(forms, kind):
    return forms / {"zip": "pictures.zip", "array": "array.npz", "statistics": "statistics.npz"}.get(kind, kind)


def networks_of(features):
    return NetworkOptions(features=features, cache=Path("no/cache"))


def document(text):
    """JSON in the strict sense, which has no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def one_sentence(done, code):
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    return lines[0]
