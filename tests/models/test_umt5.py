"""The umT5 encoder: the published sizes, its table of distances, and the numbers of a well-kept library."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from grncli.models.umt5 import Umt5Config, Umt5Encoder, distance_buckets
from grncli.text.encoder_weights import read_umt5


def test_the_default_sizes_are_those_of_umt5_xxl():
    with torch.device("meta"):
        weights = Umt5Encoder(Umt5Config()).state_dict()
    assert len(weights) == 242
    assert sum(weight.numel() for weight in weights.values()) == 5_680_910_336


@pytest.mark.parametrize("file", ["umt5_wan.pth", "umt5_hf.safetensors"])
def test_features_are_those_of_the_reference_in_float32(release_fixtures, file):
    network = read_umt5([release_fixtures / "umt5" / file], torch.device("cpu"), torch.float32)
    expected = load_file(release_fixtures / "umt5" / "umt5_io.safetensors")
    for ids, mask, features in zip(expected["ids"], expected["mask"], expected["features"], strict=True):
        length = int(mask.sum())
        torch.testing.assert_close(network(ids[None, :length])[0], features[:length], atol=1e-5, rtol=0)


def test_both_layouts_fill_the_same_network(release_fixtures):
    files: list[Path] = [release_fixtures / "umt5" / name for name in ("umt5_wan.pth", "umt5_hf.safetensors")]
    one, other = (read_umt5([file], torch.device("cpu"), torch.float32).state_dict() for file in files)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_distances_share_buckets_as_the_logarithm_says():
    def bucket(distance):
        if distance < 8:
            return distance
        # The tolerance keeps rounding from moving the distances that start a bucket.
        return min(8 + math.floor(math.log(distance / 8) / math.log(16) * 8 + 1e-9), 15)

    buckets = distance_buckets(300)
    assert buckets.dtype == torch.int64
    assert buckets[:, 0].tolist() == [bucket(distance) for distance in range(300)]
    assert buckets[0, 1:].tolist() == [16 + bucket(distance) for distance in range(1, 300)]
    assert torch.equal(buckets[1:, 1:], buckets[:-1, :-1])
