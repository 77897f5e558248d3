"""The packing plan: every sample once an epoch, no sequence too long, and nothing that depends on who asks."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.runs.generator_recipe import PackedData
from grncli.training.packing import DROPPED, PackingPlan, TokenCounts, first_fit_decreasing

TOKENS = 64


def counts_of(visual, lengths=(3, 5, 9), prompts=None, clean=False):
    """Samples with three prompts each, or as many as ``prompts`` says."""
    n = len(visual)
    lengths = np.resize(np.array(lengths, np.int32), 6 * n + 3)
    first = np.arange(n, dtype=np.int32) * 3
    return TokenCounts(
        visual=np.array(visual, np.int32),
        first=first,
        prompts=np.full(n, 3, np.int32) if prompts is None else np.array(prompts, np.int32),
        clean_first=first + 3 * n if clean else np.full(n, -1, np.int32),
        lengths=lengths,
        empty=1,
    )


def plan_of(visual, seed=0, window=16, sequences=1, dropout=0.3, first_frame=0.0, tokens=TOKENS, **counts):
    data = PackedData(tokens=tokens, sequences=sequences, window=window)
    counts = counts_of(visual, **counts)
    return PackingPlan(counts, np.arange(len(visual)), data, seed=seed, dropout=dropout, first_frame=first_frame)


def first_epochs(plan, epochs):
    """The sequences that hold all of so many epochs."""
    found, left = [], epochs * len(plan.rows)
    sequences = plan.sequences()
    while left:
        found.append(next(sequences))
        left -= int((found[-1]["epoch"] < epochs).sum())
    return found


visuals = st.lists(st.integers(1, TOKENS - 10), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(visuals, st.integers(0, 2**63 - 1), st.integers(1, 40))
def test_every_epoch_has_every_sample_once_and_no_sequence_is_too_long(visual, seed, window):
    sequences = first_epochs(plan_of(visual, seed, window), 3)
    entries = np.concatenate(sequences)
    for epoch in range(3):
        assert sorted(entries["sample"][entries["epoch"] == epoch]) == list(range(len(visual)))
    assert all(len(each) and each["tokens"].sum() <= TOKENS for each in sequences)


@settings(deadline=None, max_examples=40)
@given(visuals, st.integers(0, 9))
def test_the_tokens_are_those_of_what_was_drawn(visual, seed):
    plan = plan_of(visual, seed, clean=True, first_frame=0.5)
    counts = plan.counts
    for entry in np.concatenate(first_epochs(plan, 2)):
        first = (counts.clean_first if entry["clean_first"] else counts.first)[entry["sample"]]
        dropped = entry["prompt"] == DROPPED
        assert dropped or first <= entry["prompt"] < first + 3
        words = counts.empty if dropped else counts.lengths[entry["prompt"]]
        assert entry["tokens"] == visual[entry["sample"]] + 1 + words


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(0, 20))
def test_items_go_where_first_fit_decreasing_puts_them(lengths, left):
    room, expected = [left], {}
    for item in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        place = next((place for place, free in enumerate(room) if free >= lengths[item]), len(room))
        room += [20] if place == len(room) else []
        room[place] -= lengths[item]
        expected[item] = place
    placed = first_fit_decreasing(np.array(lengths, np.int32), 20, left)
    assert placed.tolist() == [expected[item] for item in range(len(lengths))]


@pytest.mark.parametrize("step", [0, 1, 7, 40])
def test_a_resumed_plan_goes_on_with_the_same_steps(step):
    visual = np.random.default_rng(0).integers(1, 50, 100)
    plan = plan_of(visual, sequences=2)
    whole = list(islice(plan.steps(0), step, step + 5))
    resumed = list(islice(plan_of(visual, sequences=2).steps(step), 5))
    assert all(len(each) == 2 for each in whole)
    for ours, theirs in zip(whole, resumed, strict=True):
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_what_is_drawn_for_a_sample_does_not_depend_on_how_others_are_packed():
    visual = np.random.default_rng(0).integers(1, 50, 100)

    def drawn(window, tokens):
        entries = np.concatenate(first_epochs(plan_of(visual, window=window, tokens=tokens), 2))
        return sorted(entries[["epoch", "sample", "prompt", "tokens"]].tolist())

    few, many = ([entry for entry in each if entry[0] < 2] for each in (drawn(7, TOKENS), drawn(100, 4 * TOKENS)))
    assert few == many


def test_epochs_and_seeds_order_samples_differently():
    visual = [3] * 40
    order = [[e["sample"] for s in first_epochs(plan_of(visual, seed), 2) for e in s] for seed in (0, 1)]
    assert order[0] != order[1]
    assert order[0][:40] != order[0][40:80]


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_the_share_of_dropped_prompts_is_that_of_the_recipe(dropout, share):
    plan = plan_of([1] * 4000, dropout=dropout)
    assert (plan.drawn(0, plan.rows)["prompt"] == DROPPED).mean() == pytest.approx(share, abs=0.02)


def test_only_samples_that_have_such_prompts_get_a_clean_first_frame():
    plan = plan_of([1] * 4000, clean=True, first_frame=0.25)
    plan.counts.clean_first[:2000] = -1
    clean = plan.drawn(0, plan.rows)["clean_first"]
    assert not clean[:2000].any()
    assert clean[2000:].mean() == pytest.approx(0.25, abs=0.03)


def test_all_captions_of_a_sample_are_drawn_alike():
    plan = plan_of([1] * 3000, dropout=0)
    choice = plan.drawn(0, plan.rows)["prompt"] - plan.counts.first
    assert np.bincount(choice) / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_mixed_store_wastes_less_than_three_percent():
    random = np.random.default_rng(0)
    areas = random.choice([225, 228, 234, 240, 247, 250, 252, 256], 20_000)
    visual = areas * random.integers(1, 22, 20_000)
    lengths = np.clip(random.normal(80, 40, 60_003), 3, 300).astype(np.int32)
    plan = plan_of(visual, window=4096, tokens=40_960, lengths=lengths)
    filled = sum(int(sequence["tokens"].sum()) for sequence in islice(plan.sequences(), 1000))
    assert filled > 0.99 * 1000 * 40_960


def test_the_most_tokens_of_a_sample_are_those_of_its_longest_prompt():
    counts = counts_of([10, 20], lengths=(3, 5, 9, 2, 40, 4), prompts=[2, 3])
    assert counts.most().tolist() == [10 + 1 + 5, 20 + 1 + 40]
