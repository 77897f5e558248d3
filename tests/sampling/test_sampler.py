"""The sampling loop: each sample for itself, time saved by those that end early, and the paper's ablations."""

import itertools

import numpy as np
import pytest
import torch

from grncli.conditions import ClassCondition
from grncli.rng import categories
from grncli.sampling.sampler import Request, Sampler, SamplingSettings, measure_entropies
from grncli.schedules import Complexity, Fixed

GRID = (1, 4, 4)
CLASSES = 3


def request(number, label, *known, classes=CLASSES):
    return Request(number, ClassCondition(torch.tensor([label]), classes), *known)


REQUESTS = [request(number, number % CLASSES) for number in range(12)]


def using(schedule=None, **changes):
    defaults = {"guidance": 2.0, "guidance_interval": (0.3, 1.0), "temperature": 1.0, "seed": 5}
    return SamplingSettings(schedule=schedule or Fixed(8), **{**defaults, **changes})


def spread_schedule(network, grid=GRID):
    """Steps from 4 to 12, spread over the entropies that the network really has."""
    base = using(Complexity(0, 4, 4, 12, 2, 12))
    entropies = measure_entropies(network, grid, base, REQUESTS)
    low, high = float(entropies.min()), float(entropies.max())
    k = 8 / (high - low)
    return Complexity(k, 2 - k * low, 4, 12, 2, 12)


def refine(network, settings, requests=REQUESTS, grid=GRID, **options):
    made = Sampler(network, grid, settings, **options).run(requests)
    return {sample.request.number: sample for sample in made}


def drawings(made):
    return torch.stack([made[number].drawing for number in sorted(made)])


@pytest.fixture(scope="module", params=["ind", "bit"])
def network(request, make_generator):
    return make_generator(request.param)


@pytest.mark.parametrize("selection", ["random", "confidence", "mask"])
@pytest.mark.parametrize("batch", [1, 5, 7])
def test_a_sample_does_not_depend_on_its_batch(network, selection, batch):
    settings = using(spread_schedule(network), selection=selection)
    together, apart = refine(network, settings, batch=12), refine(network, settings, batch=batch)
    assert torch.equal(drawings(together), drawings(apart))
    assert [together[n].entropy for n in range(12)] == [apart[n].entropy for n in range(12)]


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 3, 3), (2, 2, 3)])
def test_nor_on_a_small_or_long_grid(network, grid):
    alone = refine(network, using(), REQUESTS[4:5], grid)
    assert torch.equal(alone[4].drawing, refine(network, using(), grid=grid, batch=5)[4].drawing)


def test_calls_that_are_filled_up_to_one_size_make_the_same_samples(network):
    """As on a GPU, where the size of a call decides the order of its sums."""
    sampler = Sampler(network, GRID, using(spread_schedule(network)), batch=5)
    sampler.network.row_unit = sampler.network.call_rows = 8
    filled_up = {sample.request.number: sample for sample in sampler.run(REQUESTS)}
    assert torch.equal(drawings(filled_up), drawings(refine(network, using(spread_schedule(network)))))


def test_a_sample_does_not_depend_on_the_order(network):
    assert torch.equal(drawings(refine(network, using())), drawings(refine(network, using(), REQUESTS[::-1], batch=5)))


def test_another_seed_makes_other_samples(network):
    assert not torch.equal(drawings(refine(network, using())), drawings(refine(network, using(seed=6))))


def test_the_class_matters(network):
    as_ant, as_bee = (refine(network, using(), [request(1, label)]) for label in (0, 1))
    assert not torch.equal(as_ant[1].drawing, as_bee[1].drawing)


def test_samples_that_end_early_cost_no_more_nfe(network, monkeypatch):
    rows = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda state, *rest: rows.append(len(state)) or forward(state, *rest))
    settings = using(spread_schedule(network), guidance=1.0)
    rows.clear()
    made = refine(network, settings, batch=4)
    steps = [made[number].steps for number in range(12)]
    assert min(steps) < max(steps)
    assert sum(rows) == sum(steps) == sum(sample.nfe for sample in made.values())


def test_the_next_sample_takes_the_place_of_one_that_ended(network, monkeypatch):
    calls = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda state, *rest: calls.append(len(state)) or forward(state, *rest))
    settings = using(spread_schedule(network), guidance=1.0)
    calls.clear()
    refine(network, settings, batch=4)
    first_gap = next((i for i, rows in enumerate(calls) if rows < 4), len(calls))
    assert sum(calls[first_gap:]) < 4 * 12  # only the last samples leave places empty


def test_guidance_is_evaluated_inside_its_interval_only(network):
    made = refine(network, using(Fixed(50), guidance_interval=(0.44, 1.0)), REQUESTS[:2])
    assert [sample.nfe for sample in made.values()] == [50 + 27] * 2


def test_guidance_of_one_is_no_guidance(network):
    assert all(sample.nfe == 8 for sample in refine(network, using(guidance=1.0)).values())


def test_a_generator_without_classes_is_not_guided(make_generator):
    made = refine(make_generator(classes=0), using(), [request(n, 0, classes=0) for n in range(3)])
    assert all(sample.nfe == 8 for sample in made.values())


def test_the_selection_of_a_mask_only_grows_and_its_picks_stay(network):
    trace = refine(network, using(selection="mask"), traced=[0])[0].trace
    for before, after in itertools.pairwise(trace):
        assert (after.selection | ~before.selection).all()
        assert torch.equal(after.drawing[before.selection], before.drawing[before.selection])


def test_random_selection_erases_and_refines(network):
    trace = refine(network, using(), traced=[0])[0].trace
    pairs = list(itertools.pairwise(trace))
    assert any((before.selection & ~after.selection).any() for before, after in pairs)
    assert any((before.drawing != after.drawing)[before.selection].any() for before, after in pairs)


@pytest.mark.parametrize("selection", ["random", "confidence", "mask"])
def test_the_last_state_is_the_last_prediction(network, selection):
    sample = refine(network, using(selection=selection), traced=[0])[0]
    last = sample.trace[-1]
    assert last.ratio == 1
    assert last.selection.all()
    assert torch.equal(last.state, sample.drawing)


def test_what_is_not_selected_is_the_one_random_map(network):
    random = categories(
        5, torch.tensor([3]), network.config.codec.categories, (network.config.codec.token_channels, *GRID)
    )[0]
    for step in refine(network, using(), traced=[3])[3].trace:
        assert torch.equal(step.state[~step.selection], random[~step.selection])


def test_the_share_of_the_selection_follows_the_schedule(network):
    trace = refine(network, using(Fixed(8)), grid=(1, 16, 16), requests=REQUESTS[:1], traced=[0])[0].trace
    shares = [float(step.selection.float().mean()) for step in trace]
    assert shares == pytest.approx([(i + 1) / 8 for i in range(8)], abs=0.05)


def test_what_is_known_stays_and_counts_in_the_ratio(network, monkeypatch):
    told = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda state, t, label: told.append(t) or forward(state, t, label))
    shape = (network.config.codec.token_channels, *GRID)
    tokens = torch.full(shape, 1, dtype=torch.uint8)
    known = torch.zeros(shape, dtype=torch.bool)
    known[:, :, :2] = True
    made = refine(network, using(guidance=1.0), [request(0, 0, tokens, known)])
    assert (made[0].drawing[known] == 1).all()
    assert not (made[0].drawing[~known] == 1).all()
    assert [float(t[0]) for t in told] == pytest.approx([0.5 + 0.5 * i / 8 for i in range(8)])


def test_relative_bits_are_turned_back_into_bits(make_generator):
    network = make_generator("bit")
    never_flip = network.head.linear.bias.clone()
    network.head.linear.weight.zero_()
    network.head.linear.bias.copy_(
        torch.where(torch.arange(len(never_flip)) < network.config.codec.token_channels, 50.0, -50.0)
    )
    made = refine(network, using(relative=True, guidance=1.0), traced=[0])[0]
    random = categories(5, torch.tensor([0]), 2, (network.config.codec.token_channels, *GRID))[0]
    assert torch.equal(made.drawing, random)


def test_a_lower_temperature_is_nearer_to_the_likeliest(network):
    cold, warm = (refine(network, using(Fixed(1), temperature=t, guidance=1.0)) for t in (1e-4, 3.0))
    again = refine(network, using(Fixed(1), temperature=1e-4, guidance=1.0, seed=5))
    assert torch.equal(drawings(cold), drawings(again))
    assert not torch.equal(drawings(cold), drawings(warm))


def test_the_adapted_temperature_changes_samples_after_the_decision_only(network):
    schedule = spread_schedule(network)
    plain, adapted = (refine(network, using(schedule, adapt_temperature=on), traced=range(12)) for on in (False, True))
    for number in range(12):
        assert plain[number].entropy == adapted[number].entropy
        assert torch.equal(plain[number].trace[1].drawing, adapted[number].trace[1].drawing)
    assert not torch.equal(drawings(plain), drawings(adapted))


def test_entropies_are_those_of_the_samples_themselves(network):
    schedule = spread_schedule(network)
    measured = measure_entropies(network, GRID, using(schedule), REQUESTS)
    made = refine(network, using(schedule))
    assert sorted(measured.tolist()) == pytest.approx(sorted(sample.entropy for sample in made.values()))


def test_steps_follow_from_the_entropy(network):
    schedule = spread_schedule(network)
    for sample in refine(network, using(schedule)).values():
        assert sample.steps == int(schedule.steps(torch.tensor([sample.entropy])))


def test_stopping_gives_up_what_is_under_way(network):
    asked = iter([False] * 10 + [True] * 100)
    made = list(Sampler(network, GRID, using(Fixed(8)), batch=4).run(REQUESTS, stop_when=lambda: next(asked)))
    assert [sample.request.number for sample in made] == [0, 1, 2, 3]


def test_bfloat16_is_near_float32(make_generator):
    network = make_generator("bit")
    low = make_generator("bit").to(torch.bfloat16)
    same = (drawings(refine(network, using(Fixed(1)))) == drawings(refine(low, using(Fixed(1))))).float().mean()
    assert same > 0.97


def test_categories_stay_in_range(network):
    assert np.isin(drawings(refine(network, using())).numpy(), range(network.config.codec.categories)).all()
