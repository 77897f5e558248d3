"""Refinement against the paper's equations: states, selections, draws, guidance, and schedules that end at one."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.refinement import (
    BLANK,
    ERASED,
    FILLED,
    KEPT,
    REFINED,
    Complexity,
    Fixed,
    changes,
    cross_entropy,
    draw,
    entropy,
    fit,
    flips,
    guidance_scale,
    guide,
    logit_normal,
    mix,
    select,
    select_confident,
    unflipped,
)

quickly = settings(max_examples=40)
INFINITY = float("inf")
HIGHEST_UNIFORM = 1 - 2**-24  # what draws.uniform gives at most


def numbers(shape, seed=0):
    """Uniform numbers in [0, 1), which stay below 1 as float32."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


def normal(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def integers(high, shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8))


# States and selections


def test_the_state_is_the_drawing_where_selected_and_the_random_map_elsewhere():
    selection = torch.tensor([[True, False, False, True]])
    mixed = mix(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[5, 6, 7, 8]]), selection)
    assert mixed.tolist() == [[1, 6, 7, 4]]


def test_the_state_keeps_the_number_format():
    assert mix(integers(16, (2, 3)), integers(16, (2, 3), 1), torch.ones(2, 3, dtype=torch.bool)).dtype == torch.uint8


def test_each_sample_is_selected_at_its_own_ratio():
    ratio = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    shares = select(numbers((5, 4, 50, 100)), ratio).float().flatten(1).mean(dim=1)
    torch.testing.assert_close(shares, ratio, atol=0.015, rtol=0)


def test_nothing_is_selected_at_ratio_0():
    assert not select(torch.zeros(1, 5), torch.zeros(1)).any()


def test_everything_is_selected_at_ratio_1():
    assert select(torch.full((1, 5), HIGHEST_UNIFORM), torch.ones(1)).all()


@quickly
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_a_higher_ratio_selects_what_a_lower_one_did(one, other):
    low, high = (select(numbers((1, 500)), torch.tensor([ratio])) for ratio in sorted((one, other)))
    assert bool((high | ~low).all())


@quickly
@given(st.floats(0, 1, width=32), st.integers(1, 60))
def test_as_many_elements_are_selected_by_confidence_as_the_ratio_says(ratio, count):
    selected = select_confident(numbers((1, count)), torch.tensor([ratio]))
    assert abs(int(selected.sum()) - ratio * count) <= 0.5 + 1e-4


@quickly
@given(st.floats(0, 1, width=32))
def test_no_confidence_left_out_is_above_one_selected(ratio):
    confidence = numbers((1, 50))
    selected = select_confident(confidence, torch.tensor([ratio]))
    lowest_in = min(confidence[selected].tolist(), default=1)
    assert lowest_in > max(confidence[~selected].tolist(), default=0)


def test_each_sample_is_selected_by_confidence_at_its_own_ratio():
    selected = select_confident(numbers((3, 2, 5)), torch.tensor([0.0, 0.3, 1.0]))
    assert selected.flatten(1).sum(dim=1).tolist() == [0, 3, 10]


def test_equal_confidences_are_selected_in_exact_number_too():
    assert int(select_confident(torch.ones(1, 4, 5), torch.tensor([0.25])).sum()) == 5


# The loss


def test_cross_entropy_is_that_of_torch():
    logits, target = normal((2, 5, 3, 4)), integers(5, (2, 3, 4))
    assert torch.equal(cross_entropy(logits, target), F.cross_entropy(logits, target.long()))


def test_cross_entropy_is_the_mean_over_all_elements():
    logits, target = normal((2, 5, 3)), integers(5, (2, 3))
    p = logits.double().softmax(dim=1)
    each = [-math.log(p[b, int(target[b, i]), i]) for b in range(2) for i in range(3)]
    assert float(cross_entropy(logits, target)) == pytest.approx(sum(each) / 6, rel=1e-6)


def test_cross_entropy_is_computed_in_float32():
    logits, target = normal((2, 5, 300)).bfloat16(), integers(5, (2, 300))
    loss = cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, F.cross_entropy(logits.float(), target.long()))


# Entropy


def entropy_of(p):
    """Eq. 8 for one sample ``p [K][elements]``, number by number."""
    each = [
        -sum(q * math.log(q) for q in element if q > 0) / math.log(len(element)) for element in zip(*p, strict=True)
    ]
    return sum(each) / len(each)


@quickly
@given(st.integers(2, 20), st.floats(0, 100), st.integers(0, 5))
def test_entropy_is_that_of_the_paper(categories, scale, seed):
    logits = normal((2, categories, 6), seed) * scale
    p = logits.double().softmax(dim=1)
    expected = torch.tensor([entropy_of(sample.tolist()) for sample in p], dtype=torch.float32)
    torch.testing.assert_close(entropy(logits), expected, atol=1e-5, rtol=0)


@quickly
@given(st.integers(2, 20), st.floats(0, 1e30), st.integers(0, 5))
def test_entropy_lies_in_0_to_1(categories, scale, seed):
    found = entropy(normal((3, categories, 6), seed) * scale)
    assert bool(((found >= 0) & (found <= 1)).all())


@pytest.mark.parametrize("categories", [2, 3, 16, 256])
def test_even_logits_have_entropy_1(categories):
    assert float(entropy(torch.full((1, categories, 4, 2), 3.0))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("low", [-1e4, -1e38, -INFINITY])
def test_certain_logits_have_entropy_0(low):
    logits = torch.full((1, 16, 4), low)
    logits[:, 3] = 0
    assert entropy(logits).tolist() == [0]


def test_impossible_categories_count_nothing():
    logits = torch.tensor([0.0, 0.0, -INFINITY, -INFINITY]).view(1, 4, 1)
    assert float(entropy(logits)) == pytest.approx(0.5, abs=1e-6)


def test_entropy_is_that_of_each_sample():
    logits = normal((3, 4, 5, 2))
    assert torch.equal(entropy(logits)[1:2], entropy(logits[1:2]))


def test_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = normal((2, 4, 50)).bfloat16()
    assert torch.equal(entropy(logits), entropy(logits.float()))


# Draws


@pytest.fixture
def hundred_thousand():
    """Draws from one distribution over four categories, its logits, the categories and their probabilities."""
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0]).view(1, 4, 1).expand(1, 4, 100_000)
    return logits, *draw(logits, numbers((1, 100_000)))


def test_categories_are_drawn_as_often_as_they_are_probable(hundred_thousand):
    logits, chosen, _ = hundred_thousand
    expected = logits[0, :, 0].double().softmax(dim=0) * 100_000
    chi_square = float(((chosen[0].long().bincount(minlength=4) - expected) ** 2 / expected).sum())
    assert chi_square < 16.3  # three degrees of freedom, one chance in a thousand


def test_confidence_is_the_probability_of_what_was_drawn(hundred_thousand):
    logits, chosen, confidence = hundred_thousand
    expected = logits.softmax(dim=1).gather(1, chosen.long()[:, None])[:, 0]
    assert torch.equal(confidence, expected)


def test_draws_are_bytes_and_confidences_float32():
    chosen, confidence = draw(normal((2, 4, 3, 5)).bfloat16(), numbers((2, 3, 5)))
    assert (chosen.dtype, confidence.dtype) == (torch.uint8, torch.float32)
    assert chosen.shape == confidence.shape == (2, 3, 5)


@quickly
@given(st.floats(0, HIGHEST_UNIFORM, width=32), st.sampled_from([2, 3, 16, 256]), st.integers(0, 3))
def test_a_draw_is_a_category(uniform, categories, seed):
    chosen, _ = draw(normal((1, categories, 50), seed), torch.full((1, 50), uniform))
    assert int(chosen.max()) < categories


@pytest.mark.parametrize("uniform", [0, 0.5, HIGHEST_UNIFORM])
def test_a_category_of_probability_0_is_never_drawn(uniform):
    logits = normal((1, 16, 20_000))
    logits[:, [0, 1, 7, 12, 13, 14, 15]] = -INFINITY
    _, confidence = draw(logits, torch.full((1, 20_000), uniform))
    assert float(confidence.min()) > 0


def test_the_certain_category_is_drawn():
    logits = torch.full((1, 16, 3), -INFINITY)
    logits[0, [0, 6, 15], [0, 1, 2]] = 0
    chosen, confidence = draw(logits, torch.full((1, 3), 0.7))
    assert (chosen.tolist(), confidence.tolist()) == ([[0, 6, 15]], [[1, 1, 1]])


def test_a_draw_is_the_category_whose_share_the_number_falls_into():
    logits = torch.tensor([0.25, 0.5, 0.25]).log().view(1, 3, 1).expand(1, 3, 5)
    chosen, _ = draw(logits, torch.tensor([[0.0, 0.24, 0.26, 0.74, 0.76]]))
    assert chosen.tolist() == [[0, 0, 1, 1, 2]]


# Relative targets


def test_flips_say_which_bits_are_wrong():
    assert flips(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 0, 1]])).tolist() == [[0, 1, 1, 0]]


@quickly
@given(st.integers(0, 100))
def test_perfect_flips_lead_to_the_truth(seed):
    state, truth = integers(2, (2, 3, 4), seed), integers(2, (2, 3, 4), seed + 1)
    certain = F.one_hot(flips(state, truth).long(), 2).movedim(-1, 1).float()
    assert torch.equal(unflipped(certain, state).argmax(dim=1).to(torch.uint8), truth)


def test_unflipped_logits_of_the_zero_state_are_those_of_the_flips():
    logits = normal((2, 2, 3))
    assert torch.equal(unflipped(logits, torch.zeros(2, 3, dtype=torch.uint8)), logits)


def test_unflipping_twice_gives_the_logits_back():
    logits, state = normal((2, 2, 3, 4)), integers(2, (2, 3, 4))
    assert torch.equal(unflipped(unflipped(logits, state), state), logits)


def test_flips_keep_the_number_format():
    assert flips(integers(2, (2, 3)), integers(2, (2, 3), 1)).dtype == torch.uint8


# Guidance


def test_guidance_moves_from_the_unconditional_logits_through_the_conditional_ones():
    conditional, unconditional = normal((3, 4, 5), 1), normal((3, 4, 5), 2)
    guided = guide(conditional, unconditional, torch.tensor([0.0, 1.0, 2.5]))
    torch.testing.assert_close(guided[0], unconditional[0])
    torch.testing.assert_close(guided[1], conditional[1])
    torch.testing.assert_close(guided[2], unconditional[2] + 2.5 * (conditional[2] - unconditional[2]))


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


@pytest.mark.parametrize("low", [-0.5, -1, -2])
@pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9])
def test_a_negative_low_turns_the_guidance_up_gradually(low, ratio):
    conditional, unconditional, scale = normal((1, 4), 1), normal((1, 4), 2), 2.35
    guided = guide(conditional, unconditional, guidance_scale(torch.tensor([float(ratio)]), scale, low, 1))
    weight = (1 - math.cos(math.pi * ratio**-low)) / 2
    expected = conditional + scale * weight * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=0)


def test_each_sample_is_guided_by_its_own_ratio():
    assert guidance_scale(torch.tensor([0.1, 0.5, 0.9]), 2, 0.3, 0.7).tolist() == [1, 2, 1]


# What a step did


@pytest.mark.parametrize(
    ("before", "after", "same", "expected"),
    [
        (False, False, True, BLANK),
        (False, False, False, BLANK),
        (False, True, True, FILLED),
        (False, True, False, FILLED),
        (True, True, True, KEPT),
        (True, True, False, REFINED),
        (True, False, True, ERASED),
        (True, False, False, ERASED),
    ],
)
def test_a_change_has_its_name(before, after, same, expected):
    drawn = torch.tensor([[3]]), torch.tensor([[3 if same else 4]])
    found = changes(torch.tensor([[before]]), drawn[0], torch.tensor([[after]]), drawn[1])
    assert (found.tolist(), found.dtype) == ([[expected]], torch.uint8)


def test_the_five_changes_are_told_apart():
    assert len({BLANK, FILLED, KEPT, REFINED, ERASED}) == 5


# Ratios of training


@pytest.mark.parametrize(("mean", "deviation"), [(-0.8, 0.8), (0, 1), (-1.3, 1.3)])
def test_training_ratios_are_logit_normal(mean, deviation):
    ratio = logit_normal(normal((100_000,)).double(), mean, deviation)
    logits = (ratio / (1 - ratio)).log()
    assert (float(logits.mean()), float(logits.std())) == pytest.approx((mean, deviation), abs=0.02)


# Schedules


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


def test_a_fixed_schedule_asks_for_no_entropy():
    assert Fixed().decision_step is None


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


# Fitting

spread_entropies = st.lists(st.floats(0.5, 1, width=32), min_size=1, max_size=40)


def mean_steps(schedule, entropy):
    return float(schedule.steps(torch.tensor(entropy)).double().mean())


@quickly
@given(st.integers(0, 20), st.floats(20, 50))
def test_fitted_schedules_reach_the_target(seed, target):
    entropy = (0.9 + 0.05 * numbers((200,), seed)).tolist()
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
