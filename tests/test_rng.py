"""Random numbers follow from what they are for: the same in any company, and as good as independent."""

import numpy as np
import pytest
import torch

from grncli.rng import Purpose, categories, uniform

SAMPLES = torch.tensor([0, 5, 2**40, -3])


def splitmix(seed, *parts, element):
    """One number in exact integers: SplitMix64 chained over the parts of its name."""

    def finalize(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    key = finalize(seed % 2**64)
    for part in (*parts, element + 1):
        key = finalize((key + part * 0x9E3779B97F4A7C15) % 2**64)
    return (key >> 40) / 2**24


def long_row(**changed):
    """100,000 numbers of one sample."""
    names = {"seed": 1, "sample": 2, "step": 3, "purpose": Purpose.SELECTION} | changed
    sample = torch.tensor([names["sample"]])
    return uniform(names["seed"], sample, names["step"], names["purpose"], (100_000,))[0].double()


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


# The same numbers


def test_the_stream_never_changes():
    numbers = uniform(7, torch.tensor([3]), 11, Purpose.PREDICTION, (3,))
    assert numbers.mul(2**24).tolist() == [[12703970, 16214216, 10886553]]


def test_the_random_map_never_changes():
    assert categories(7, torch.tensor([3]), 16, (8,)).tolist() == [[10, 10, 15, 4, 13, 10, 2, 4]]


@pytest.mark.parametrize("seed", [0, 12345, -1, 2**63 - 1])
def test_numbers_are_those_of_splitmix(seed):
    numbers = uniform(seed, SAMPLES, 9, Purpose.NOISE, (5,))
    expected = [[splitmix(seed, int(s), 9, int(Purpose.NOISE), element=i) for i in range(5)] for s in SAMPLES]
    assert numbers.tolist() == expected


def test_a_sample_draws_the_same_in_any_batch():
    together = uniform(1, SAMPLES, 2, Purpose.SELECTION, (3, 4))
    alone = [uniform(1, sample[None], 2, Purpose.SELECTION, (3, 4)) for sample in SAMPLES]
    assert torch.equal(together, torch.cat(alone))


def test_a_sample_at_its_own_step_draws_the_same_in_any_batch():
    together = uniform(1, SAMPLES, torch.tensor([9, 0, 4, 9]), Purpose.SELECTION, (3,))
    assert torch.equal(together[2:3], uniform(1, SAMPLES[2:3], 4, Purpose.SELECTION, (3,)))


def test_one_step_may_be_given_for_all():
    steps = torch.full_like(SAMPLES, 6)
    one, each = (uniform(1, SAMPLES, step, Purpose.SELECTION, (3,)) for step in (6, steps))
    assert torch.equal(one, each)


def test_a_larger_shape_begins_with_the_same_numbers():
    short, long = (uniform(1, SAMPLES, 2, Purpose.SELECTION, (n,)) for n in (10, 1000))
    assert torch.equal(short, long[:, :10])


def test_the_shape_only_arranges_the_numbers():
    flat, shaped = (uniform(1, SAMPLES, 2, Purpose.SELECTION, shape) for shape in ((24,), (2, 3, 4)))
    assert torch.equal(flat, shaped.flatten(1))


def test_an_empty_shape_gives_one_number_a_sample():
    one, row = (uniform(1, SAMPLES, 2, Purpose.RATIO, shape) for shape in ((), (1,)))
    assert torch.equal(one, row[:, 0])


def test_the_arguments_are_left_as_they_are():
    sample, step = SAMPLES.clone(), torch.tensor([1, 2, 3, 4])
    uniform(1, sample, step, Purpose.RATIO, (3,))
    assert torch.equal(sample, SAMPLES)
    assert step.tolist() == [1, 2, 3, 4]


def test_the_global_generator_plays_no_part():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    uniform(1, SAMPLES, 2, Purpose.SELECTION, (3,))
    assert torch.equal(torch.get_rng_state(), before)


# Other numbers

CHANGES = [{"seed": 2}, {"sample": 1}, {"step": 4}, {"purpose": Purpose.NOISE}, {"seed": 2, "sample": 1}]


@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_another_name_gives_unrelated_numbers(changed):
    assert abs(correlation(long_row(), long_row(**changed))) < 0.02


@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_another_name_shares_no_more_numbers_than_chance(changed):
    shared = np.intersect1d(long_row().numpy(), long_row(**changed).numpy())
    assert len(shared) == pytest.approx(100_000**2 / 2**24, rel=0.25)


def test_sample_and_step_do_not_stand_for_each_other():
    assert not torch.equal(long_row(sample=4, step=9), long_row(sample=9, step=4))


def test_no_two_purposes_share_a_number():
    assert len({int(purpose) for purpose in Purpose}) == len(Purpose.__members__)


# Good numbers


@pytest.fixture(scope="module")
def million():
    return uniform(3, torch.arange(1000), 7, Purpose.SELECTION, (1000,))


def test_numbers_are_float32(million):
    assert million.dtype == torch.float32


def test_numbers_lie_in_0_to_1_without_1(million):
    assert 0 <= million.min() < 1e-5
    assert 1 - 1e-5 < million.max() < 1


def test_numbers_are_multiples_of_the_smallest_step_below_1(million):
    assert torch.equal(million * 2**24, (million * 2**24).round())


def test_the_mean_is_a_half(million):
    assert float(million.double().mean()) == pytest.approx(0.5, abs=0.001)


def test_the_variance_is_a_twelfth(million):
    assert float(million.double().var()) == pytest.approx(1 / 12, abs=0.0005)


@pytest.mark.parametrize("bins", [2, 16, 1000])
def test_every_part_of_the_range_is_as_likely(million, bins):
    counts = million.double().histc(bins, 0, 1)
    chi_square = float(((counts - 1e6 / bins) ** 2 / (1e6 / bins)).sum())
    assert abs(chi_square - (bins - 1)) < 4 * (2 * (bins - 1)) ** 0.5


def test_neighbouring_elements_are_unrelated(million):
    assert abs(correlation(million[:, 1:].flatten(), million[:, :-1].flatten())) < 0.005


def test_neighbouring_samples_are_unrelated(million):
    assert abs(correlation(million[1:].flatten(), million[:-1].flatten())) < 0.005


def test_neighbouring_steps_are_unrelated():
    rows = torch.cat([uniform(3, torch.tensor([0]), step, Purpose.SELECTION, (1000,)) for step in range(200)])
    assert abs(correlation(rows[1:].flatten(), rows[:-1].flatten())) < 0.01


def test_neighbouring_seeds_are_unrelated():
    rows = torch.cat([uniform(seed, torch.tensor([0]), 0, Purpose.SELECTION, (1000,)) for seed in range(200)])
    assert abs(correlation(rows[1:].flatten(), rows[:-1].flatten())) < 0.01


def test_means_of_samples_spread_as_independent_numbers_do(million):
    assert float(million.mean(dim=1).std()) == pytest.approx((1 / 12 / 1000) ** 0.5, rel=0.1)


# Categories


@pytest.mark.parametrize("count", [2, 16, 256])
def test_every_category_is_as_likely(count):
    counts = categories(1, torch.arange(10), count, (25_600,)).long().flatten().bincount()
    chi_square = float(((counts - 256_000 / count) ** 2 / (256_000 / count)).sum())
    assert len(counts) == count
    assert abs(chi_square - (count - 1)) < 4 * (2 * (count - 1)) ** 0.5


def test_categories_are_bytes_of_the_shape_of_the_map():
    drawn = categories(1, SAMPLES, 16, (4, 1, 2, 3))
    assert (drawn.dtype, drawn.shape) == (torch.uint8, (4, 4, 1, 2, 3))


def test_the_random_map_of_a_sample_is_the_same_in_any_batch():
    together = categories(1, SAMPLES, 16, (30,))
    assert torch.equal(together[1:2], categories(1, SAMPLES[1:2], 16, (30,)))


def test_the_random_map_is_not_that_of_another_seed():
    assert not torch.equal(categories(1, SAMPLES, 16, (30,)), categories(2, SAMPLES, 16, (30,)))
