"""Reading text features as a training does, beside a plain copy: pytest -m bench -s tests/bench."""

import time

import numpy as np
import pytest
import torch

from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import open_feature_part, open_features
from grncli.text.templates import prompt_digest

pytestmark = pytest.mark.bench

WIDTH, PROMPTS, STEP = 4096, 400, 16  # umT5-xxl's width; prompts of a packed sequence
LENGTHS = (40, 80, 120, 200)


def test_random_prompts_of_steps(tmp_path):
    """Bytes are those of the file, 2 a number; each step reads its prompts of several lengths."""
    texts = [f"prompt {number}" for number in range(PROMPTS)]
    with open_feature_part(
        tmp_path / "f.zarr", FeatureSettings({"name": "b", "sha256": "0"}, WIDTH, "float32", 512)
    ) as part:
        for length, some in zip(LENGTHS, np.split(np.array(texts), len(LENGTHS)), strict=True):
            features = torch.randn(len(some), length, WIDTH)
            part.append(features, some.tolist(), [prompt_digest(text) for text in some])
        part.commit(1, "")
        part.finish()
    store = open_features(tmp_path / "f.zarr")
    digests = [prompt_digest(text) for text in texts]
    order = np.random.default_rng(0).permutation(PROMPTS)
    store.read(digests[:1])  # the index, once
    start = time.perf_counter()
    for step in order.reshape(-1, STEP):
        store.read([digests[number] for number in step])
    seconds = time.perf_counter() - start
    words = np.ones(store.nbytes // 2, np.uint16)
    copied = min(_seconds_of_copy(words) for _ in range(3))
    rates = store.nbytes / seconds / 1e6, words.nbytes / copied / 1e6
    print(f"\nfeatures: {rates[0]:.0f} MB/s; a copy in memory: {rates[1]:.0f} MB/s")


def _seconds_of_copy(words):
    start = time.perf_counter()
    words.copy()
    return time.perf_counter() - start
