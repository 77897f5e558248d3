"""Features of numbered prompts: from a store, and from an encoder, the same numbers."""

import numpy as np
import pytest
import torch

from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import open_feature_part, open_features
from grncli.text.templates import prompt_digest
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt
from grncli.training.training_prompts import OnlineSource, StoredSource

WIDTH, MOST = 5, 6
PROMPTS = ["a red star", "green", "a red star", "one two three", ""]


class Letters(TextEncoder):
    """A token for each letter's place in the alphabet, and one at the end; keeps what it was asked to encode."""

    identity = {"name": "letters", "sha256": "ab" * 32}  # noqa: RUF012
    width, max_tokens = WIDTH, MOST

    def __init__(self):
        self.encoded = []

    def tokenize(self, prompts):
        words = [prompt.split() for prompt in prompts]
        return [
            TokenizedPrompt((*(sum(map(ord, word)) for word in some[: MOST - 1]), 0), (some[MOST - 1 :] or [None])[0])
            for some in words
        ]

    def encode(self, prompts):
        self.encoded += [prompt.ids for prompt in prompts]
        return [torch.sin(torch.tensor(prompt.ids)[:, None] * torch.arange(1.0, WIDTH + 1)) for prompt in prompts]


@pytest.fixture
def encoder():
    return Letters()


class Texts:
    """The prompts but the last, which is the empty one."""

    prompts = PROMPTS[:-1]

    def of(self, numbers):
        return [self.prompts[number] for number in numbers]


def numbered(source):
    return source.number(Texts(), source.measure(PROMPTS, "a.zarr", "image"))


@pytest.fixture
def stored(tmp_path, encoder):
    with open_feature_part(tmp_path / "f.zarr", FeatureSettings(encoder.identity, WIDTH, "float32", MOST)) as part:
        for prompt in dict.fromkeys(PROMPTS):
            features = torch.stack(encoder.encode(encoder.tokenize([prompt])))
            part.append(features, [prompt], [prompt_digest(prompt)])
        part.commit(1, "")
        part.finish()
    return StoredSource(open_features(tmp_path / "f.zarr"))


def test_an_encoder_gives_what_a_store_of_its_features_gives_bit_for_bit(stored, encoder):
    numbers = [3, -1, 0, 2, 1, 0, 4]
    of_store, on_line = numbered(stored), numbered(OnlineSource(encoder))
    assert np.array_equal(of_store.lengths, on_line.lengths)
    assert of_store.lengths.tolist() == [4, 2, 4, 4, 1]
    for one, other in zip(of_store.read(numbers), on_line.read(numbers), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


def test_a_step_encodes_each_of_its_prompts_once_and_the_empty_one_never(encoder):
    prompts = numbered(OnlineSource(encoder))
    encoder.encoded.clear()
    first, second, empty = prompts.read([0, 0, -1])
    assert first is second
    assert empty.shape == (1, WIDTH)
    assert encoder.encoded == [encoder.tokenize(["a red star"])[0].ids]


def test_prompts_that_are_cut_are_named_once(encoder):
    said = []
    source = OnlineSource(encoder, said.append)
    for _ in range(2):
        source.measure(["a b c d e f g", "a b c d e f g"], "a.zarr", "image")
    numbered(source)
    (sentence,) = said
    assert "a prompt has more than 6 tokens and is cut" in sentence
    assert "f" in sentence


def test_both_sources_say_what_made_the_features(stored, encoder):
    for source in (stored, OnlineSource(encoder)):
        assert (source.encoder, source.width, source.max_tokens) == (encoder.identity, WIDTH, MOST)
        (features,) = source.features.of(["green"])
        assert features.shape == (2, WIDTH)
