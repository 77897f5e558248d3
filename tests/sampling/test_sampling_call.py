"""``grncli.sample``: one call from a generator to token maps."""

import pytest
import torch

import grncli
from grncli.conditions import ClassCondition, TextCondition
from grncli.hbq import dequantize
from grncli.runtime.errors import UsageError
from grncli.sampling.sampler import Request, Sampler, SamplingSettings
from grncli.schedules import Complexity, Cosine, Fixed

GRID, CLIP = (1, 4, 4), (3, 2, 2)


def features(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 5, generator=generator) for length in lengths]


def by_hand(network, condition, settings, grid, first=0):
    requests = [Request(first + n, condition[n : n + 1]) for n in range(len(condition))]
    made = {sample.request.number: sample.drawing for sample in Sampler(network, grid, settings).run(requests)}
    return torch.stack([made[number] for number in sorted(made)])


@pytest.fixture(scope="module")
def text_network(make_text_generator):
    return make_text_generator()


@pytest.fixture(scope="module")
def class_network(make_generator):
    return make_generator("ind")


def test_classes_are_sampled_by_the_papers_settings(class_network):
    tokens = grncli.sample(class_network, grid=GRID, labels=[0, 2, -1], seed=7, steps=6)
    condition = ClassCondition(torch.tensor([0, 2, 3]), 3)
    assert torch.equal(tokens, by_hand(class_network, condition, SamplingSettings(schedule=Fixed(6), seed=7), GRID))
    assert tokens.dtype == torch.uint8


@pytest.mark.parametrize(("attention", "end"), [("text-only", 0.999), ("full", 0.95)])
@pytest.mark.parametrize(("grid", "guidance", "temperature"), [(GRID, 3.0, 1.1), (CLIP, 4.0, 1.0)])
def test_texts_are_sampled_by_those_of_the_release(make_text_generator, attention, end, grid, guidance, temperature):
    network, (red, blue, empty) = make_text_generator(attention=attention), features(3, 9, 1)
    tokens = grncli.sample(network, grid=grid, text=[red, blue, red], negative=empty, steps=6)
    settings = SamplingSettings(
        schedule=Cosine(6, end), guidance=guidance, guidance_interval=(0.0, 1.0), temperature=temperature
    )
    assert torch.equal(tokens, by_hand(network, TextCondition.of([red, blue, red], empty), settings, grid))


def test_further_settings_are_those_of_the_sampler(text_network):
    red, empty = features(3, 1)
    changes = {"guidance": 1.5, "guidance_interval": (0.2, 0.8), "temperature": 0.9, "selection": "mask"}
    schedule = Complexity(300, -280, 4, 9, 2, 12)
    tokens = grncli.sample(text_network, grid=GRID, text=[red], negative=empty, steps=schedule, seed=3, **changes)
    settings = SamplingSettings(schedule=schedule, seed=3, **changes)
    assert torch.equal(tokens, by_hand(text_network, TextCondition.of([red], empty), settings, GRID))


def test_more_samples_continue_those_that_are_there(class_network):
    both = grncli.sample(class_network, grid=GRID, labels=[0, 1, 2], steps=4)
    more = grncli.sample(class_network, grid=GRID, labels=[2], first_number=2, steps=4, batch=1)
    assert torch.equal(both[2:], more)


def test_samples_come_in_the_order_they_were_asked_for_whichever_ends_first(class_network):
    schedule = Complexity(2000, -1800, 4, 30, 2, 30)
    labels = [n % 3 for n in range(12)]
    together = grncli.sample(class_network, grid=GRID, labels=labels, steps=schedule)
    alone = [
        grncli.sample(class_network, grid=GRID, labels=[label], first_number=n, steps=schedule)
        for n, label in enumerate(labels)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_a_clip_starts_from_a_clean_first_frame(text_network, monkeypatch):
    red, empty = features(3, 1)
    first = torch.arange(32, dtype=torch.uint8).view(1, 8, 1, 2, 2) % 2
    tokens = torch.cat([first, torch.zeros(1, 8, 2, 2, 2, dtype=torch.uint8)], dim=2)
    told, forward = [], text_network.forward

    def watched(state, ratio, text, *, clean_first):
        told.append((float(ratio[0]), clean_first))
        return forward(state, ratio, text, clean_first=clean_first)

    monkeypatch.setattr(text_network, "forward", watched)
    asked = {"grid": CLIP, "text": [red], "negative": empty, "steps": 4, "known_tokens": tokens}
    known = (torch.arange(3) == 0)[:, None, None]
    clip = grncli.sample(text_network, **asked, known=known, clean_first=True)
    assert torch.equal(clip[:, :, :1], first)
    assert told[0] == (0.0, True)
    grncli.sample(text_network, **asked, known=known)
    assert told[4] == (pytest.approx(1 / 3), False)
    with pytest.raises(UsageError, match="clean_first: expected clips of more than one frame, and all of the first"):
        grncli.sample(text_network, **asked, known=~known, clean_first=True)


def test_token_maps_become_pixels_as_the_docstring_says(class_network, make_tokenizer):
    codec, tokenizer = class_network.config.codec, make_tokenizer(rounds=2)
    tokens = grncli.sample(class_network, grid=GRID, labels=[0], steps=2)
    pixels = tokenizer.decode(dequantize(codec.to_index(tokens), codec.rounds))
    assert pixels.shape[:3] == (1, 3, 1)
    assert float(pixels.detach().abs().max()) <= 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"labels": [0]}, "text: a text generator takes text and negative"),
        ({"text": features(3)}, "text: a text generator takes text and negative"),
        ({"text": [], "negative": features(1)[0]}, "text: a text generator"),
        ({"text": [torch.zeros(3, 4)], "negative": features(1)[0]}, r"text\[0\]: has the shape \[3, 4\], expected"),
        ({"text": features(2), "negative": torch.zeros(0, 5)}, r"negative: has the shape \[0, 5\]"),
        ({"text": features(2), "negative": features(1)[0], "clean_first": True}, "clean_first: expected clips"),
    ],
)
def test_what_does_not_fit_a_text_generator_is_refused(text_network, asked, message):
    with pytest.raises(UsageError, match=message):
        grncli.sample(text_network, grid=GRID, **asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "labels: a class generator takes labels"),
        ({"labels": []}, "labels: a class generator takes labels"),
        ({"labels": [0], "negative": features(1)[0]}, "nothing of text"),
        ({"labels": [0], "temperature": 0.0}, "temperature: is 0.0, expected a finite number above 0"),
        ({"labels": [0], "grid": (0, 4, 4)}, r"grid: is \(0, 4, 4\), expected 1 or more"),
        ({"labels": [0, 3]}, "labels: has 3, expected -1 to 2"),
        ({"labels": [0], "known": torch.zeros(1, dtype=torch.bool)}, "expected both or none"),
        (
            {"labels": [0], "known_tokens": torch.zeros(4, 1, 4, 4), "known": torch.ones(1)},
            "known_tokens: has the shape",
        ),
        (
            {"labels": [0], "known_tokens": torch.zeros(1, 4, 1, 4, 4), "known": torch.ones(3)},
            r"known: has the shape \[3\]",
        ),
    ],
)
def test_what_does_not_fit_a_class_generator_is_refused(class_network, asked, message):
    with pytest.raises(UsageError, match=message):
        grncli.sample(class_network, **{"grid": GRID, **asked})


def test_a_generator_without_classes_is_not_guided(make_generator):
    network = make_generator(classes=0)
    assert grncli.sample(network, grid=GRID, labels=[-1, -1], steps=2).shape == (2, 8, *GRID)
    with pytest.raises(UsageError, match="guidance: the generator was trained without classes"):
        grncli.sample(network, grid=GRID, labels=[-1], guidance=2.0)
