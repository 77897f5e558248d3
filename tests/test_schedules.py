"""Schedules: how fast the share grows, how many steps a sample takes, and fitting both to a model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.schedules import Complexity, Cosine, Fixed, fit, guidance_scale, logit_normal

quickly = settings(max_examples=40)
INFINITY = float("inf")


def path(schedule, steps, dtype=torch.float32):
    """The ratios from step 0 to the last of ``steps``."""
    step = torch.arange(steps + 1, dtype=dtype)
    return schedule.ratio(step, torch.full_like(step, steps))


@st.composite
def complexities(draw):
    warmup = draw(st.integers(0, 12))
    low = draw(st.integers(warmup + 1, 40))
    return Complexity(
        k=draw(st.floats(-2000, 2000)),
        b=draw(st.floats(-2000, 2000)),
        min_steps=low,
        max_steps=draw(st.integers(low, 80)),
        warmup_steps=warmup,
        alpha=draw(st.integers(warmup + 1, 80)),
    )


schedules = st.one_of(st.builds(Fixed, st.integers(1, 80), st.sampled_from(["linear", "cosine"])), complexities())
entropies = st.floats(0, 1, width=32)
formats = st.sampled_from([torch.float32, torch.float64])


@quickly
@given(schedules, entropies, formats)
def test_the_ratio_starts_at_0(schedule, entropy, dtype):
    steps = int(schedule.steps(torch.tensor([entropy])))
    assert float(path(schedule, steps, dtype)[0]) == 0


@quickly
@given(schedules, entropies, formats)
def test_the_ratio_ends_at_exactly_1(schedule, entropy, dtype):
    steps = int(schedule.steps(torch.tensor([entropy])))
    assert float(path(schedule, steps, dtype)[-1]) == 1


@pytest.mark.parametrize("steps", range(20, 51))
def test_every_length_of_the_papers_schedule_ends_at_exactly_1(steps):
    assert float(path(Complexity(), steps)[-1]) == 1


@quickly
@given(schedules, entropies, formats)
def test_the_ratio_never_falls(schedule, entropy, dtype):
    steps = int(schedule.steps(torch.tensor([entropy])))
    assert bool((path(schedule, steps, dtype).diff() >= 0).all())


@quickly
@given(schedules, entropies)
def test_the_ratio_stays_1_after_the_end(schedule, entropy):
    steps = schedule.steps(torch.tensor([entropy]))
    assert float(schedule.ratio(steps + 1, steps)) == 1


@quickly
@given(complexities(), st.lists(entropies, min_size=1, max_size=20))
def test_steps_lie_in_their_range(schedule, entropy):
    steps = schedule.steps(torch.tensor(entropy))
    assert bool(((steps >= schedule.min_steps) & (steps <= schedule.max_steps)).all())


@quickly
@given(schedules, st.lists(entropies, min_size=1, max_size=20))
def test_steps_are_whole_numbers(schedule, entropy):
    steps = schedule.steps(torch.tensor(entropy))
    assert torch.equal(steps, steps.round())


@quickly
@given(schedules, entropies)
def test_no_sample_takes_more_than_the_most_steps(schedule, entropy):
    assert float(schedule.steps(torch.tensor([entropy]))) <= schedule.most_steps


@quickly
@given(st.integers(1, 100))
def test_linear_steps_are_equal(count):
    torch.testing.assert_close(path(Fixed(count), count), torch.linspace(0, 1, count + 1))


def test_the_cosine_starts_slowly():
    expected = [1 - math.cos(math.pi / 2 * step / 10) for step in range(11)]
    assert path(Fixed(10, "cosine"), 10).tolist() == pytest.approx(expected, abs=1e-6)


def ratio_of_the_release(step, count, end, shift):
    """The selection ratio of a step of the released text generators, in plain numbers (facts sections 4 and 8)."""
    if step == 0:
        return 0
    noise = 1 - min(1, step / max(1, count - 1))
    noise = shift * noise / (1 + (shift - 1) * noise)
    return end * (1 - math.cos(math.pi / 2 * (1 - noise)))


cosines = st.builds(Cosine, st.integers(1, 80), st.floats(0.01, 1), st.floats(0.1, 20))


@quickly
@given(cosines, formats)
def test_the_cosine_of_texts_is_that_of_the_release(schedule, dtype):
    expected = [ratio_of_the_release(i, schedule.count, schedule.end, schedule.shift) for i in range(schedule.count)]
    assert path(schedule, schedule.count, dtype)[:-1].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("end", "shift"), [(0.999, 1), (0.95, 1), (0.999, 4), (1, 1)])
def test_the_cosine_of_texts_grows_from_0_to_its_end(end, shift):
    ratio = path(Cosine(50, end, shift), 50)
    assert float(ratio[0]) == 0
    assert bool((ratio[:50].diff() > 0).all())
    assert float(ratio[49]) == pytest.approx(end)
    assert float(ratio.max()) <= 1


def test_a_shift_above_1_keeps_less():
    assert bool((path(Cosine(50, shift=4.0), 50)[1:49] < path(Cosine(50), 50)[1:49]).all())


@pytest.mark.parametrize("wrong", [{"count": 0}, {"end": 0.0}, {"end": 1.01}, {"shift": 0.0}, {"shift": math.nan}])
def test_an_impossible_cosine_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong)).replace('count', 'steps')} is"):
        Cosine(**wrong)


def test_a_fixed_schedule_asks_for_no_entropy():
    assert Fixed().decision_step is None
    assert Cosine().decision_step is None


def test_the_entropy_decides_after_the_warm_up():
    assert Complexity(warmup_steps=7).decision_step == 7


@quickly
@given(entropies)
def test_without_slope_the_schedule_is_the_fixed_one_of_50_steps(entropy):
    schedule, fixed = Complexity(k=0, b=45), Fixed(50)
    steps = schedule.steps(torch.tensor([entropy]))
    assert torch.equal(steps, fixed.steps(torch.tensor([entropy])))
    torch.testing.assert_close(path(schedule, 50), path(fixed, 50), atol=1e-6, rtol=0)


def ratio_of_the_paper(t, entropy, schedule):
    """Eq. 9 in plain numbers, with d clipped and rounded."""
    t0, alpha = schedule.warmup_steps, schedule.alpha
    if t <= t0:
        return t / alpha
    d = min(max(round(schedule.k * entropy + schedule.b), schedule.min_steps - t0), schedule.max_steps - t0)
    return min(t0 / alpha + (alpha - t0) / alpha * (t - t0) / d, 1)


@quickly
@given(complexities(), st.floats(0, 1), st.integers(0, 80))
def test_the_ratio_is_that_of_the_paper(schedule, entropy, t):
    steps = schedule.steps(torch.tensor([entropy], dtype=torch.float64))
    found = schedule.ratio(torch.tensor([t], dtype=torch.float64), steps)
    assert float(found) == pytest.approx(ratio_of_the_paper(t, entropy, schedule), abs=1e-9)


def test_the_more_certain_the_model_the_fewer_steps():
    steps = Complexity().steps(torch.tensor([0.90, 0.96, 0.98, 1.0]))
    assert steps.tolist() == [20, 34, 46, 50]


def test_each_sample_has_its_own_steps_left():
    ratio = Complexity().ratio(torch.tensor([5.0, 20.0, 20.0]), torch.tensor([30.0, 20.0, 35.0]))
    assert ratio.tolist() == pytest.approx([0.1, 1, 0.55])


@pytest.mark.parametrize("count", [0, -1])
def test_a_fixed_schedule_needs_a_step(count):
    with pytest.raises(ValueError, match=f"steps is {count}, expected 1 or more"):
        Fixed(count)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": math.nan},
        {"b": INFINITY},
        {"warmup_steps": -1},
        {"warmup_steps": 20, "min_steps": 20},
        {"min_steps": 51},
        {"max_steps": 19},
        {"alpha": 5},
        {"alpha": 0},
    ],
    ids=str,
)
def test_an_impossible_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Complexity(**wrong)


spread_entropies = st.lists(st.floats(0.5, 1, width=32), min_size=1, max_size=40)


def mean_steps(schedule, entropy):
    return float(schedule.steps(torch.tensor(entropy)).double().mean())


@quickly
@given(st.integers(0, 20), st.floats(20, 50))
def test_fitted_schedules_reach_the_target(seed, target):
    entropy = (0.9 + 0.05 * torch.rand(200, generator=torch.Generator().manual_seed(seed))).tolist()
    fitted = fit(Complexity(), torch.tensor(entropy), target)
    assert mean_steps(fitted, entropy) == pytest.approx(target, abs=0.05)


@quickly
@given(spread_entropies, st.floats(20, 50), st.floats(-1500, 1500))
def test_a_given_slope_reaches_the_target_as_nearly_as_whole_steps_can(entropy, target, k):
    fitted = fit(Complexity(), torch.tensor(entropy), target, k)
    assert mean_steps(fitted, entropy) == pytest.approx(target, abs=1)


@pytest.mark.parametrize("target", range(20, 51))
@pytest.mark.parametrize("entropy", [0.5, 0.963])
def test_equal_entropies_get_the_steps_that_were_asked_for(entropy, target):
    entropies = torch.full((5,), entropy)
    assert fit(Complexity(), entropies, target).steps(entropies).tolist() == [target] * 5


@quickly
@given(spread_entropies, st.floats(20, 50), st.floats(-1500, 1500))
def test_a_given_slope_is_kept(entropy, target, k):
    assert fit(Complexity(), torch.tensor(entropy), target, k).k == k


def test_the_middle_of_the_entropies_spans_the_whole_range():
    fitted = fit(Complexity(), torch.linspace(0.9, 1.0, 1001), 35)
    assert fitted.steps(torch.tensor([0.905, 0.995])).tolist() == pytest.approx([20, 50], abs=1)


def test_the_fit_keeps_everything_but_slope_and_offset():
    schedule = Complexity(min_steps=12, max_steps=60, warmup_steps=4, alpha=40)
    fitted = fit(schedule, torch.linspace(0.9, 1.0, 100), 30)
    kept = ("min_steps", "max_steps", "warmup_steps", "alpha")
    assert [getattr(fitted, name) for name in kept] == [12, 60, 4, 40]


@pytest.mark.parametrize("target", [20, 50])
def test_the_ends_of_the_range_can_be_reached(target):
    entropy = torch.linspace(0.9, 1.0, 100).tolist()
    assert mean_steps(fit(Complexity(), torch.tensor(entropy), target), entropy) == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("target", [19.9, 50.1, 0, math.nan, INFINITY])
def test_a_target_out_of_range_is_refused(target):
    with pytest.raises(ValueError, match="expected 20 to 50, the range of steps"):
        fit(Complexity(), torch.linspace(0.9, 1.0, 10), target)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "expected"),
    [
        (0.5, 0.44, 1, 2.35),
        (0.43, 0.44, 1, 1),
        (0.44, 0.44, 1, 1),
        (0.5, 0.25, 0.75, 2.35),
        (0.75, 0.25, 0.75, 1),
        (0.8, 0.25, 0.75, 1),
        (0, 0, 1, 2.35),
        (0.001, 0, 1, 2.35),
        (1, 0, 1, 1),
        (0, 0.25, 1, 1),
        (0, 0, 0, 1),
    ],
)
def test_guidance_is_on_inside_the_interval_only(ratio, low, high, expected):
    scale = guidance_scale(torch.tensor([float(ratio)], dtype=torch.float64), 2.35, low, high)
    assert float(scale) == pytest.approx(expected)


def test_each_sample_is_guided_by_its_own_ratio():
    assert guidance_scale(torch.tensor([0.1, 0.5, 0.9]), 2, 0.3, 0.7).tolist() == [1, 2, 1]


@pytest.mark.parametrize(("mean", "deviation"), [(-0.8, 0.8), (0, 1), (-1.3, 1.3)])
def test_training_ratios_are_logit_normal(mean, deviation):
    ratio = logit_normal(torch.from_numpy(np.random.default_rng(0).standard_normal(100_000)), mean, deviation)
    logits = (ratio / (1 - ratio)).log()
    assert (float(logits.mean()), float(logits.std())) == pytest.approx((mean, deviation), abs=0.02)
