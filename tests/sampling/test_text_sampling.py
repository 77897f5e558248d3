"""Sampling for texts: what the network is told, asked to read, and shown; samples that depend on themselves alone."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from grncli.conditions import TextCondition
from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformerConfig
from grncli.refinement import entropy
from grncli.rng import categories
from grncli.sampling import steady_network
from grncli.sampling.sampler import Request, Sampler, SamplingSettings, measure_entropies
from grncli.schedules import Complexity, Cosine, Fixed, fit

GRID, CLIP = (1, 4, 4), (3, 2, 2)
RED, BLUE, GREEN, EMPTY = (
    torch.linspace(start, start + 1, length)[:, None] for start, length in enumerate((3, 6, 9, 1))
)


class PretendedReader(Generator):
    """A text generator without products: its logits are smooth functions of all that it is given, row by row."""

    def __init__(self):
        super().__init__()
        self.config = TextTransformerConfig(rounds=2, channels=4, text_width=1)
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 2, 8), requires_grad=False)
        self.read, self.calls = [], []

    def remember(self, text):
        assert len(text) == 1
        self.read.append(text[0])
        return [text[0].sum()]

    def forward(self, state, ratio, text, *, clean_first=False):
        self.calls.append((state.clone(), ratio.clone(), [float(each) for each in text], clean_first))
        said = torch.stack(list(text)).sin().view(-1, 1, 1, 1, 1) + ratio.view(-1, 1, 1, 1, 1)
        place = torch.arange(state[0, 0].numel()).view(state.shape[2:])
        score = torch.sin(self.weight.view(-1, 1, 1, 1) * (place + 1) + 2 * state) * (1.5 + 2 * said.sin())
        if clean_first:
            score = torch.cat([(state[:, :, :1] * 2.0 - 1) * math.inf, score[:, :, 1:]], dim=2)
        return torch.stack([-score, score], dim=1).nan_to_num(posinf=1e4, neginf=-1e4)


@pytest.fixture
def network():
    return PretendedReader()


def request(number, text=RED, *known, **options):
    return Request(number, TextCondition.of([text], EMPTY, **options), *known)


REQUESTS = [request(number, (RED, BLUE, GREEN)[number % 3]) for number in range(9)]


def using(schedule=None, **changes):
    defaults = {"guidance": 3.0, "guidance_interval": (0.0, 1.0), "temperature": 1.1, "seed": 5}
    return SamplingSettings(schedule=schedule or Cosine(8), **{**defaults, **changes})


def refine(network, settings, requests=REQUESTS, grid=GRID, **options):
    made = Sampler(network, grid, settings, **options).run(requests)
    return {sample.request.number: sample for sample in made}


def drawings(made):
    return torch.stack([made[number].drawing for number in sorted(made)])


def first_frame_known(number, text=RED):
    tokens = torch.zeros(8, *CLIP, dtype=torch.uint8)
    tokens[::2, 0] = 1
    known = torch.zeros(tokens.shape, dtype=torch.bool)
    known[:, 0] = True
    return request(number, text, tokens, known, clean_first=True)


def test_each_text_is_read_once_whenever_its_samples_come(network):
    refine(network, using(), batch=2)
    assert [id(text) for text in network.read] == [id(RED), id(BLUE), id(EMPTY), id(GREEN)]


def test_what_is_remembered_is_bounded_but_the_negative_text_stays(network, monkeypatch):
    monkeypatch.setattr(steady_network, "REMEMBERED_TOKENS", 8)
    refine(network, using(), batch=1)
    times = [sum(text is each for text in network.read) for each in (RED, BLUE, GREEN, EMPTY)]
    assert times == [3, 3, 3, 1]


def test_the_same_samples_come_whatever_is_remembered(network, monkeypatch):
    expected = drawings(refine(network, using()))
    monkeypatch.setattr(steady_network, "REMEMBERED_TOKENS", 0)
    assert torch.equal(drawings(refine(network, using(), batch=4)), expected)


def test_the_network_is_told_the_measured_share(network):
    trace = refine(network, using(guidance=1.0), REQUESTS[:1], traced=[0])[0].trace
    told = [float(ratio) for _, ratio, _, _ in network.calls]
    assert told[0] == 0
    assert told[1:] == [float(step.selection.float().mean()) for step in trace[:-1]]
    assert told[1:] != pytest.approx([step.ratio for step in trace[:-1]], abs=1e-3)


def test_the_sample_is_the_last_prediction_whatever_the_cosine_ends_at(network):
    settings = using(Cosine(6, end=0.5), temperature=1e-4, guidance=1.0)
    sample = refine(network, settings, REQUESTS[:1])[0]
    state, ratio, text, _ = network.calls[-1]
    drawn = network(state, ratio, [torch.tensor(text[0])]).argmax(dim=1)[0]
    assert sample.nfe == sample.steps == 6
    assert 0.3 < float(ratio) < 0.7
    assert torch.equal(sample.drawing, drawn.to(torch.uint8))


def test_guidance_leads_away_from_the_negative_text(network):
    refine(network, using(Fixed(1)), REQUESTS[:2])
    ((_, _, text, _),) = network.calls
    assert text == [float(each.sum()) for each in (RED, BLUE, EMPTY, EMPTY)]


def test_outside_the_guidance_interval_there_is_one_pass(network):
    made = refine(network, using(Cosine(20), guidance_interval=(0.5, 1.0)), REQUESTS[:1])
    both = [len(text) for _, _, text, _ in network.calls].count(2)
    assert 0 < both < 20
    assert made[0].nfe == 20 + both


@pytest.mark.parametrize("selection", ["random", "confidence", "mask"])
def test_a_sample_of_a_text_does_not_depend_on_its_batch(network, selection):
    settings = using(Complexity(100, -80, 4, 12, 2, 12), selection=selection)
    together, apart = refine(network, settings, batch=9), refine(network, settings, REQUESTS[::-1], batch=2)
    assert torch.equal(drawings(together), drawings(apart))
    assert [together[n].nfe for n in range(9)] == [apart[n].nfe for n in range(9)]


def test_the_text_matters_and_so_do_seed_and_number(network):
    same = refine(network, using(), [request(1)])[1].drawing
    assert torch.equal(refine(network, using(), [request(1)])[1].drawing, same)
    others = (using(), request(1, BLUE)), (using(seed=6), request(1)), (using(), request(2))
    for settings, other in others:
        (sample,) = refine(network, settings, [other]).values()
        assert not torch.equal(sample.drawing, same)


def test_steps_follow_the_entropy_of_the_texts_prediction(network):
    requests = [request(number, (RED, BLUE, GREEN)[number % 3]) for number in range(30)]
    start = Complexity(0, 45, min_steps=10)
    entropies = measure_entropies(network, GRID, using(start), requests)
    schedule = fit(start, entropies, 25.0)
    made = refine(network, using(schedule), requests, batch=7)
    assert sorted(entropies.tolist()) == sorted(sample.entropy for sample in made.values())
    assert sum(sample.steps for sample in made.values()) / 30 == pytest.approx(25, abs=1)
    assert len({sample.steps for sample in made.values()}) > 2


def test_the_entropy_is_that_of_the_conditional_prediction_before_temperature(network):
    sample = refine(network, using(Fixed(1), temperature=3.0), REQUESTS[:1])[0]
    state, ratio, text, _ = network.calls[0]
    logits = network(state[:1], ratio[:1], [torch.tensor(text[0])])
    assert sample.entropy == float(entropy(logits))


def test_a_clean_first_frame_stays_and_is_no_part_of_ratio_and_entropy(network):
    asked = first_frame_known(0)
    sample = refine(network, using(guidance=1.0), [asked], CLIP, traced=[0])[0]
    assert torch.equal(sample.drawing[:, 0], asked.known_tokens[:, 0])
    assert all(clean for *_, clean in network.calls)
    assert [float(ratio[0]) for _, ratio, _, _ in network.calls][1:] == [
        float(step.selection[:, 1:].float().mean()) for step in sample.trace[:-1]
    ]
    assert float(network.calls[0][1][0]) == 0
    state, ratio, text, _ = network.calls[5]
    logits = network(state[:1], ratio[:1], [torch.tensor(text[0])], clean_first=True)
    assert sample.entropy == float(entropy(logits[..., 1:, :, :]))
    assert sample.entropy > 1.2 * float(entropy(logits))


def test_other_known_tokens_stay_and_count(network):
    tokens = torch.ones(8, *GRID, dtype=torch.uint8)
    known = torch.zeros_like(tokens, dtype=torch.bool)
    known[:, :, :2] = True
    sample = refine(network, using(guidance=1.0), [request(0, RED, tokens, known)])[0]
    assert bool((sample.drawing[known] == 1).all())
    assert not bool((sample.drawing[~known] == 1).all())
    assert float(network.calls[0][1]) == 0.5


def test_a_mask_only_grows_and_what_is_not_selected_is_random(network):
    trace = refine(network, using(selection="mask"), traced=[3])[3].trace
    random = categories(5, torch.tensor([3]), 2, (8, *GRID))[0]
    for before, after in itertools.pairwise(trace):
        assert (after.selection | ~before.selection).all()
        assert torch.equal(after.drawing[before.selection], before.drawing[before.selection])
        assert torch.equal(before.state[~before.selection], random[~before.selection])


def test_flips_are_turned_back_into_bits(network):
    plain, relative = (refine(network, using(Fixed(1), relative=on, temperature=1e-4)) for on in (False, True))
    random = categories(5, torch.arange(9), 2, (8, *GRID))
    assert torch.equal(drawings(relative), drawings(plain) ^ random)


def test_texts_take_room_in_a_batch(network):
    assert Sampler(network, (1, 16, 16), using()).batch == 8
    assert Sampler(network, (1, 16, 16), using(), condition_tokens=256).batch == 4
    assert Sampler(network, (1, 64, 64), using(), condition_tokens=512).batch == 1


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 3, 3), (2, 2, 3)])
@pytest.mark.parametrize("attention", ["text-only", "full"])
def test_samples_of_the_network_itself_depend_on_their_text_and_number_alone(make_text_generator, attention, grid):
    """In float32 on the CPU, bit for bit."""
    network = make_text_generator("bit", attention=attention)
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(length, 5, generator=generator) for length in (1, 7, 30, 2)]
    condition = TextCondition.of(features[:3] * 3, features[3])
    requests = [Request(number, condition[number : number + 1]) for number in range(9)]
    settings = using(Complexity(300, -280, 4, 9, 2, 12), guidance_interval=(0.2, 0.9))
    together = refine(network, settings, requests, grid, batch=9)
    for batch, order in ((1, 1), (4, -1)):
        apart = refine(network, settings, requests[::order], grid, batch=batch, condition_tokens=11)
        assert torch.equal(drawings(together), drawings(apart))
        assert [together[n].entropy for n in range(9)] == [apart[n].entropy for n in range(9)]


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_both_kinds_of_prediction_are_sampled_for_texts(make_text_generator, prediction):
    network = make_text_generator(prediction)
    clips = refine(network, using(), [request_of_width(n) for n in range(3)], CLIP)
    assert drawings(clips).shape == (3, network.config.codec.token_channels, *CLIP)
    assert int(drawings(clips).max()) == network.config.codec.categories - 1


def request_of_width(number):
    features = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
    return Request(number, TextCondition.of([features], features[:1]))


@pytest.mark.parametrize("attention", ["text-only", "full"])
def test_a_clip_starts_from_its_clean_first_frame_in_the_network_itself(make_text_generator, attention):
    network = make_text_generator("bit", attention=attention)
    asked = replace(first_frame_known(0), condition=replace(request_of_width(0).condition, clean_first=True))
    sample = refine(network, using(), [asked], CLIP)[0]
    assert torch.equal(sample.drawing[:, 0], asked.known_tokens[:, 0])
    other = replace(asked, known_tokens=1 - asked.known_tokens)
    assert not torch.equal(refine(network, using(), [other], CLIP)[0].drawing[:, 1:], sample.drawing[:, 1:])
