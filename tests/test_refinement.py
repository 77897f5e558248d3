"""Refinement against the paper's equations and algorithms: states, selections, draws, guidance, and what a step did."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.conditions import ClassCondition
from grncli.refinement import (
    BLANK,
    ERASED,
    FILLED,
    KEPT,
    REFINED,
    changes,
    cross_entropy,
    draw,
    entropy,
    flips,
    guide,
    measured_ratio,
    mix,
    predict_guided,
    realised_ratio,
    sampling_step,
    select,
    select_confident,
    training_step,
    unflipped,
)
from grncli.schedules import guidance_scale

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


def test_guidance_moves_from_the_unconditional_logits_through_the_conditional_ones():
    conditional, unconditional = normal((3, 4, 5), 1), normal((3, 4, 5), 2)
    guided = guide(conditional, unconditional, torch.tensor([0.0, 1.0, 2.5]))
    torch.testing.assert_close(guided[0], unconditional[0])
    torch.testing.assert_close(guided[1], conditional[1])
    torch.testing.assert_close(guided[2], unconditional[2] + 2.5 * (conditional[2] - unconditional[2]))


@pytest.mark.parametrize("low", [-0.5, -1, -2])
@pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9])
def test_a_negative_low_turns_the_guidance_up_gradually(low, ratio):
    conditional, unconditional, scale = normal((1, 4), 1), normal((1, 4), 2), 2.35
    guided = guide(conditional, unconditional, guidance_scale(torch.tensor([float(ratio)]), scale, low, 1))
    weight = (1 - math.cos(math.pi * ratio**-low)) / 2
    expected = conditional + scale * weight * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, atol=1e-5, rtol=0)


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


# Algorithm 2


def certain(tokens, categories):
    """Logits of a network that is sure of these tokens."""
    return 50.0 * F.one_hot(tokens.long(), categories).movedim(-1, 1)


@pytest.mark.parametrize("relative", [False, True])
def test_a_training_step_asks_for_the_truth_from_a_state_of_which_a_share_is_true(relative):
    truth, random, ratio = integers(2, (3, 8, 50)), integers(2, (3, 8, 50), 1), torch.tensor([0.0, 0.4, 1.0])
    uniform = numbers((3, 8, 50))
    seen = []

    def predict(state, share):
        seen.append((state, share))
        return certain(flips(state, truth) if relative else truth, 2)

    loss, right = training_step(predict, truth, random, ratio, uniform, relative=relative)
    ((state, share),) = seen
    assert torch.equal(state, mix(truth, random, select(uniform, ratio)))
    assert torch.equal(share, ratio)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert right.all()


def test_a_training_step_leads_to_the_gradient_of_the_cross_entropy():
    logits = normal((2, 4, 6)).requires_grad_()
    truth = integers(4, (2, 6))
    loss, right = training_step(lambda state, share: logits, truth, truth, torch.ones(2), numbers((2, 6)))
    loss.backward()
    assert torch.equal(right, logits.argmax(dim=1) == truth)
    expected = (logits.detach().softmax(dim=1) - F.one_hot(truth.long(), 4).movedim(-1, 1)) / 12
    torch.testing.assert_close(logits.grad, expected)


# Algorithm 3


def step_of(drawing, random, ratio, *, predicted=None, known=None, **options):
    """A step of a network that is sure of ``predicted``, and what it was asked."""
    seen = []

    def predict(state, share):
        seen.append((state, share))
        return certain(predicted if predicted is not None else drawing, 4)

    scores, uniform = numbers(drawing.shape, 7), numbers(drawing.shape, 8)
    known = torch.zeros_like(drawing, dtype=torch.bool) if known is None else known
    step = sampling_step(
        predict, drawing, random, ratio, options.pop("scores", scores), uniform, known=known, **options
    )
    return step, seen[0]


def maps(seed=0):
    return tuple(integers(4, (2, 3, 40), seed + i) for i in range(3))


def test_a_sampling_step_predicts_from_the_state_and_draws_all_of_it():
    drawing, random, predicted = maps()
    ratio = torch.tensor([0.3, 0.7])
    step, (state, share) = step_of(drawing, random, ratio, predicted=predicted)
    assert torch.equal(step.selection, select(numbers(drawing.shape, 7), ratio))
    assert torch.equal(state, mix(drawing, random, step.selection))
    assert torch.equal(share, ratio)
    assert torch.equal(step.state, state)
    assert torch.equal(step.drawing, predicted)
    torch.testing.assert_close(step.confidence, torch.ones(predicted.shape))


def test_the_first_sampling_step_starts_from_the_random_map():
    drawing, random, _ = maps()
    step, (state, _) = step_of(drawing, random, torch.zeros(2))
    assert torch.equal(state, random)
    assert not step.selection.any()


def test_known_tokens_are_in_every_state_and_stay():
    drawing, random, predicted = maps()
    known = torch.zeros_like(drawing, dtype=torch.bool)
    known[0, :, :10] = True
    step, (state, share) = step_of(drawing, random, torch.tensor([0.2, 0.2]), predicted=predicted, known=known)
    assert torch.equal(state[known], drawing[known])
    assert torch.equal(step.drawing[known], drawing[known])
    assert torch.equal(step.drawing[~known], predicted[~known])
    assert share.tolist() == pytest.approx([0.25 + 0.75 * 0.2, 0.2])


def test_the_network_may_be_told_what_is_measured():
    drawing, random, _ = maps()
    known = torch.zeros_like(drawing, dtype=torch.bool)
    known[0, :, :10] = True
    step, (_, share) = step_of(drawing, random, torch.tensor([0.2, 0.6]), known=known, measure=measured_ratio)
    assert share.tolist() == [float(np.mean(row)) for row in step.selection.numpy().astype("f4")]
    assert share.tolist() != pytest.approx([0.25 + 0.75 * 0.2, 0.6], abs=1e-4)


def test_accepted_tokens_are_not_drawn_again():
    drawing, random, predicted = maps()
    step, _ = step_of(drawing, random, torch.tensor([0.5, 0.5]), predicted=predicted, accept=True)
    assert torch.equal(step.drawing, torch.where(step.selection, drawing, predicted))


def test_the_selection_may_go_by_confidence():
    drawing, random, _ = maps()
    confidence, ratio = numbers(drawing.shape, 3), torch.tensor([0.25, 0.5])
    step, _ = step_of(drawing, random, ratio, scores=confidence, choose=select_confident)
    assert torch.equal(step.selection, select_confident(confidence, ratio))


def test_flips_of_the_state_are_drawn_as_bits():
    drawing, random, truth = (integers(2, (2, 3, 40), seed) for seed in range(3))
    step = sampling_step(
        lambda state, share: certain(flips(state, truth), 2),
        drawing,
        random,
        torch.tensor([0.5, 0.5]),
        numbers(drawing.shape),
        numbers(drawing.shape, 1),
        known=torch.zeros_like(drawing, dtype=torch.bool),
        relative=True,
    )
    assert torch.equal(step.drawing, truth)


def test_a_sampling_step_leaves_its_arguments_alone():
    drawing, random, predicted = maps()
    before = drawing.clone(), random.clone()
    step_of(drawing, random, torch.tensor([0.5, 0.5]), predicted=predicted, accept=True)
    assert torch.equal(drawing, before[0])
    assert torch.equal(random, before[1])


def test_what_is_known_counts_in_full():
    known = torch.tensor([[True, True, False, False], [False] * 4])
    assert realised_ratio(torch.tensor([0.5, 0.5]), known).tolist() == [0.75, 0.5]


def test_the_unconditional_pass_is_for_the_samples_that_are_guided_only():
    calls = []

    def predict(state, ratio, condition):
        calls.append(condition.labels.tolist())
        return condition.labels.float()[:, None, None] + torch.arange(2.0)[None, :, None].expand(len(state), 2, 5)

    condition = ClassCondition(torch.tensor([0, 1, 2]), 3)
    scale = torch.tensor([1.0, 2.0, 1.0])
    conditional, logits = predict_guided(predict, torch.zeros(3, 5), torch.zeros(3), condition, scale)
    assert calls == [[0, 1, 2, 3]]
    assert torch.equal(logits[[0, 2]], conditional[[0, 2]])
    unconditional = predict(torch.zeros(1, 5), None, condition[:1].unconditional())
    assert torch.equal(logits[1:2], guide(conditional[1:2], unconditional, scale[1:2]))


def test_without_guidance_there_is_one_pass():
    condition = ClassCondition(torch.tensor([0, 1]), 3)
    logits = normal((2, 4, 5))
    both = predict_guided(lambda *call: logits, torch.zeros(2, 5), torch.zeros(2), condition, torch.ones(2))
    assert torch.equal(both[0], logits)
    assert torch.equal(both[1], logits)
