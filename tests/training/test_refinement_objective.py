"""What the generator learns from: half-true maps that depend on (seed, number), their loss, and that it falls."""

import math
from contextlib import closing
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from grncli.hbq import index_to_bits, pack, unpack
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.runs.generator_recipe import Bits, GeneratorRecipe, Refinement
from grncli.runs.tokenizer_recipe import Training
from grncli.store import Fingerprint, open_part, open_store
from grncli.training.bit_loader import BitLoader, combine_stores
from grncli.training.objective import Batch
from grncli.training.refinement_objective import RefinementObjective, draw_ratio

CPU = torch.device("cpu")
ROUNDS, CHANNELS, CLASSES = 2, 3, 2
TINY = {"depth": 2, "width": 16, "heads": 2, "bottleneck": 8, "in_context_tokens": 2, "in_context_start": 1}
SIZES = {**TINY, "rounds": ROUNDS, "channels": CHANNELS, "classes": CLASSES}


def recipe(prediction="bit", seed=0, **refinement):
    return GeneratorRecipe(
        network=ClassTransformerConfig(prediction=prediction, **SIZES),
        bits=Bits(tokenizer={}, stride=(1, 8, 8), labels=(), grids={"1x4x4": 1}),
        refinement=Refinement(**refinement),
        training=Training(seed=seed),
    )


def some_batch(count, grid=(1, 4, 4), first=0, label=1):
    """Random bits of one class, and the map of indices they stand for."""
    generator = torch.Generator().manual_seed(first)
    index = torch.randint(2**ROUNDS, (count, CHANNELS, *grid), generator=generator, dtype=torch.uint8)
    keys = tuple(f"sample {number}" for number in range(count))
    return Batch(pack(index, ROUNDS), keys, torch.full((count,), label), torch.arange(first, first + count))


def truth_of(batch, prediction="bit"):
    index = unpack(batch.data, CHANNELS, ROUNDS)
    return index if prediction == "ind" else index_to_bits(index, ROUNDS)


class Watched(nn.Module):
    """Keeps what it is asked, and answers with even logits or with those of ``answer(state)``, which are certain."""

    def __init__(self, config, answer=None):
        super().__init__()
        self.config = config
        self.answer = answer

    def forward(self, state, ratio, label):
        self.state, self.ratio, self.label = state, ratio, label
        if self.answer is None:
            return torch.zeros(len(state), self.config.codec.categories, *state.shape[1:])
        certain = nn.functional.one_hot(self.answer(state).long(), self.config.codec.categories)
        return 50.0 * certain.movedim(-1, 1)


def objective_of(settings, network=None):
    loader = SimpleNamespace(batch=8, epoch_samples=64)
    return RefinementObjective(settings, network or Watched(settings.network), loader, CPU)


def asked(batch, settings):
    """What the network is asked in one step on a batch."""
    objective = objective_of(settings)
    objective.losses(batch, 0)
    return objective.network


# States


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_the_true_share_of_a_state_is_the_ratio(prediction):
    batch = some_batch(64, grid=(1, 16, 16))
    seen = asked(batch, recipe(prediction))
    agreeing = (seen.state == truth_of(batch, prediction)).flatten(1).float().mean(dim=1)
    by_chance = 1 / seen.config.codec.categories
    share = (agreeing - by_chance) / (1 - by_chance)
    assert (share - seen.ratio).abs().max() < 0.15
    assert (share - seen.ratio).mean().abs() < 0.01


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_what_is_not_true_is_uniform(prediction):
    settings = recipe(prediction, mean=-20.0)
    seen = asked(some_batch(64, grid=(1, 8, 8)), settings)
    shares = torch.bincount(seen.state.flatten(), minlength=settings.network.codec.categories) / seen.state.numel()
    assert shares.tolist() == pytest.approx([1 / len(shares)] * len(shares), abs=0.02)


def test_what_a_sample_is_asked_does_not_depend_on_its_batch():
    batch = some_batch(8)
    whole = asked(batch, recipe(condition_dropout=0.5))
    for number, piece in enumerate(batch.pieces(8)):
        alone = asked(piece, recipe(condition_dropout=0.5))
        for part in ("state", "ratio", "label"):
            assert torch.equal(getattr(alone, part)[0], getattr(whole, part)[number]), part


@pytest.mark.parametrize("part", ["state", "ratio"])
def test_another_number_is_asked_otherwise(part):
    batch = some_batch(8)
    later = replace(batch, numbers=batch.numbers + 8)
    first, second = (getattr(asked(each, recipe()), part) for each in (batch, later))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", ["state", "ratio"])
def test_another_seed_asks_otherwise(part):
    first, second = (getattr(asked(some_batch(8), recipe(seed=seed)), part) for seed in (0, 1))
    assert not torch.equal(first, second)


# Ratios


def test_the_quantiles_of_logit_normal_ratios_are_those_of_the_normal_distribution():
    quantiles = torch.tensor([0.02275013, 0.15865525, 0.5, 0.84134475, 0.97724987])  # -2 to 2 deviations
    found = draw_ratio(Refinement(mean=-0.8, deviation=0.5), quantiles)
    torch.testing.assert_close(found, torch.sigmoid(-0.8 + 0.5 * torch.arange(-2.0, 3.0)), atol=1e-4, rtol=0)


def test_half_of_the_logit_normal_ratios_lie_below_the_median():
    seen = asked(some_batch(4000, grid=(1, 1, 1)), recipe(mean=-0.8))
    assert (seen.ratio < 1 / (1 + math.exp(0.8))).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_uniform_ratios_are_uniform():
    seen = asked(some_batch(4000, grid=(1, 1, 1)), recipe(ratio="uniform"))
    shares = torch.histc(seen.ratio, 10, 0, 1) / 4000
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.02)


@pytest.mark.parametrize("ratio", ["logit-normal", "uniform"])
def test_ratios_lie_between_0_and_1(ratio):
    found = asked(some_batch(4000, grid=(1, 1, 1)), recipe(ratio=ratio)).ratio
    assert 0 < found.min() < found.max() < 1


@pytest.mark.parametrize("number", [0.0, 2.0**-24, 1 - 2.0**-24])
def test_the_outermost_uniform_numbers_give_ratios_between_0_and_1(number):
    assert 0 < draw_ratio(Refinement(), torch.tensor([number])).item() < 1


# Labels


@pytest.mark.parametrize(("drop", "expected"), [(0.0, {1}), (1.0, {CLASSES})])
def test_labels_are_dropped_always_or_never(drop, expected):
    seen = asked(some_batch(256, grid=(1, 1, 1)), recipe(condition_dropout=drop))
    assert set(seen.label.tolist()) == expected


def test_a_share_of_the_labels_is_dropped():
    seen = asked(some_batch(4000, grid=(1, 1, 1)), recipe(condition_dropout=0.1))
    assert (seen.label == CLASSES).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_dropping_labels_is_independent_of_the_ratio():
    seen = asked(some_batch(4000, grid=(1, 1, 1)), recipe(condition_dropout=0.5))
    dropped = seen.label == CLASSES
    assert (seen.ratio[dropped].mean() - seen.ratio[~dropped].mean()).abs() < 0.02


def test_a_sample_without_a_label_is_of_the_null_class():
    seen = asked(some_batch(4, label=-1), recipe(condition_dropout=0.0))
    assert set(seen.label.tolist()) == {CLASSES}


# Targets


def test_the_absolute_target_is_the_truth():
    batch, settings = some_batch(8), recipe()
    network = Watched(settings.network, lambda state: truth_of(batch))
    loss, numbers = objective_of(settings, network).losses(batch, 0)
    assert (loss.item(), numbers["accuracy"].item()) == (pytest.approx(0, abs=1e-6), 1)


def test_the_relative_target_is_where_the_state_is_wrong():
    batch, settings = some_batch(8), recipe(target="relative")
    network = Watched(settings.network, lambda state: state != truth_of(batch))
    loss, numbers = objective_of(settings, network).losses(batch, 0)
    assert (loss.item(), numbers["accuracy"].item()) == (pytest.approx(0, abs=1e-6), 1)


def test_fewer_rounds_than_the_bits_have_are_their_first():
    batch = some_batch(8)
    coarse = replace(recipe("ind"), network=replace(recipe("ind").network, rounds=1))
    network = Watched(coarse.network, lambda state: truth_of(batch, "ind") >> 1)
    assert objective_of(coarse, network).losses(batch, 0)[1]["accuracy"] == 1


# Losses


@pytest.mark.parametrize("prediction", ["ind", "bit"])
def test_the_loss_of_a_fresh_network_is_log_k(prediction):
    settings = recipe(prediction)
    loss, _ = objective_of(settings, ClassTransformer(settings.network)).losses(some_batch(8), 0)
    assert loss.item() == pytest.approx(math.log(settings.network.codec.categories), abs=1e-6)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_loss_of_a_batch_is_the_mean_over_its_pieces(filled, count):
    settings, batch = recipe("ind", condition_dropout=0.5), some_batch(8)
    objective = objective_of(settings, filled(ClassTransformer(settings.network)))
    whole, _ = objective.losses(batch, 0)
    pieces = torch.stack([objective.losses(piece, 0)[0] for piece in batch.pieces(count)])
    torch.testing.assert_close(pieces.mean(), whole)


def pairs_of(numbers):
    """Sum and weight of each tenth."""
    return torch.stack([numbers[f"accuracy_{tenth / 10:.1f}"] for tenth in range(10)])


def test_the_weights_of_the_tenths_count_the_samples_in_each():
    objective = objective_of(recipe(ratio="uniform"))
    _, numbers = objective.losses(some_batch(64), 0)
    expected = torch.histc(objective.network.ratio, 10, 0, 1)
    assert pairs_of(numbers)[:, 1].tolist() == expected.tolist()


def test_the_weighted_mean_over_the_tenths_is_the_accuracy():
    _, numbers = objective_of(recipe(ratio="uniform")).losses(some_batch(64), 0)
    total, weight = pairs_of(numbers).sum(dim=0)
    torch.testing.assert_close(total / weight, numbers["accuracy"])


def test_the_accuracy_of_each_tenth_is_that_of_its_samples():
    settings, batch = recipe(ratio="uniform"), some_batch(256)
    network = Watched(settings.network, lambda state: state)  # right where the state is, half of the rest included
    _, numbers = objective_of(settings, network).losses(batch, 0)
    total, weight = pairs_of(numbers).unbind(dim=1)
    middles = torch.arange(0.05, 1, 0.1)
    torch.testing.assert_close(total / weight, middles + (1 - middles) / 2, atol=0.05, rtol=0)


def test_the_epoch_counts_batches_in_samples():
    _, numbers = objective_of(recipe()).losses(some_batch(8), 11)
    assert numbers["epoch"].item() == 12 * 8 / 64


# Learning


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory):
    """A store of 32 samples: each class is always the same random map."""
    path = tmp_path_factory.mktemp("two") / "two.zarr"
    fingerprint = Fingerprint(
        rounds=ROUNDS,
        channels=CHANNELS,
        stride=(1, 16, 16),
        tokenizer={"name": "toy", "sha256": "3f9c" * 16},
        preprocessing={},
        labels=("ant", "bee"),
    )
    classes = np.arange(32) % CLASSES
    with open_part(path, fingerprint) as writer:
        maps = some_batch(CLASSES).data.numpy()
        writer.append((1, 4, 4), maps[classes], classes, [{"key": str(i), "source": str(i)} for i in range(32)])
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    return open_store(path)


def objective_on(store, settings, validation=0):
    torch.manual_seed(0)
    loader = BitLoader(combine_stores([store])[1], batch=8, buffer=1e9, validation=validation)
    return RefinementObjective(settings, ClassTransformer(settings.network), loader, CPU)


def losses_over(objective, steps):
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=1e-2)
    found = []
    with closing(objective.batches(0)) as batches:
        for step, batch in enumerate(islice(batches, steps)):
            loss, _ = objective.losses(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


# Where the state is wrong cannot be told from the ratio and the class alone, which takes longer to learn.
@pytest.mark.parametrize(
    ("prediction", "target", "share"),
    [("ind", "absolute", 0.4), ("bit", "absolute", 0.4), ("bit", "relative", 0.85)],
)
def test_a_network_learns(two_pictures, prediction, target, share):
    settings = recipe(prediction, target=target, condition_dropout=0.0)
    losses = losses_over(objective_on(two_pictures, settings), 60)
    assert np.mean(losses[-10:]) < share * math.log(settings.network.codec.categories)


def test_a_trained_network_predicts_what_was_held_out(two_pictures):
    objective = objective_on(two_pictures, recipe(condition_dropout=0.0), validation=8)
    losses_over(objective, 60)
    found = objective.validate(objective.network)
    assert found["validation_loss"] < 0.6 * math.log(2)
    assert found["validation_accuracy"] > 0.8


# Validation


def test_nothing_is_validated_where_nothing_is_held_out(two_pictures):
    objective = objective_on(two_pictures, recipe())
    assert objective.validate(objective.network) == {}


def test_validation_of_a_fresh_network_finds_log_k(two_pictures):
    objective = objective_on(two_pictures, recipe(), validation=5)
    found = objective.validate(objective.network)
    assert found.keys() == {"validation_loss", "validation_accuracy"}
    assert found["validation_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_validation_repeats(two_pictures, filled):
    objective = objective_on(two_pictures, recipe(), validation=5)
    filled(objective.network)
    assert objective.validate(objective.network) == objective.validate(objective.network)


def test_validation_does_not_depend_on_the_batch_size(two_pictures, filled):
    found = []
    for batch in (2, 8):
        objective = objective_on(two_pictures, recipe(), validation=5)
        objective.loader.batch = batch
        found.append(objective.validate(filled(objective.network)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_validation_leaves_the_network_in_its_mode(two_pictures, training):
    objective = objective_on(two_pictures, recipe(), validation=5)
    objective.network.train(training)
    objective.validate(objective.network)
    assert objective.network.training is training


def test_a_network_can_be_trained_on_after_validation(two_pictures):
    objective = objective_on(two_pictures, recipe(), validation=5)
    objective.validate(objective.network)
    assert len(losses_over(objective, 2)) == 2


# Previews


def test_a_sheet_is_drawn_into_its_folder(tmp_path):
    drawn = []
    objective = objective_of(recipe())
    objective.sheet = lambda module, folder, step: drawn.append((module, folder.is_dir(), step))
    objective.preview(objective.network, tmp_path / "previews", 7)
    assert drawn == [(objective.network, True, 7)]


def test_without_a_tokenizer_no_folder_is_made(tmp_path):
    objective = objective_of(recipe())
    objective.preview(objective.network, tmp_path / "previews", 7)
    assert not (tmp_path / "previews").exists()
