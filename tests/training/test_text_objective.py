"""Algorithm 2 on packed samples of several grids: states, what the network is told, and how losses are weighed."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from grncli.hbq import index_to_bits, pack, unpack
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.refinement import cross_entropy, half_true, packed_training_step
from grncli.rng import Purpose, categories, uniform
from grncli.runs.generator_recipe import Bits, GeneratorRecipe, PackedData, Refinement
from grncli.runs.tokenizer_recipe import Training
from grncli.schedules import shift_noise
from grncli.training.captioned_samples import CaptionedSample
from grncli.training.packed_loader import PackedBatch
from grncli.training.text_objective import TextRefinementObjective, sequence_weights, shift_of

CPU = torch.device("cpu")
ROUNDS, CHANNELS, WIDTH = 2, 3, 5
GRIDS = [(1, 4, 4), (1, 2, 6), (3, 2, 2)]
SIZES = {"depth": 1, "width": 16, "heads": 2, "key_value_heads": 2, "hidden": 16, "text_width": WIDTH}


def some_sample(number, grid, clean_first=False, epoch=0, words=3):
    draws = torch.Generator().manual_seed(number)
    index = torch.randint(2**ROUNDS, (1, CHANNELS, *grid), generator=draws, dtype=torch.uint8)
    text = torch.randn(words, WIDTH, generator=draws)
    return CaptionedSample(pack(index, ROUNDS)[0], text, f"sample {number}", number, epoch, clean_first)


def recipe(**refinement):
    return GeneratorRecipe(
        network=TextTransformerConfig(**SIZES, rounds=ROUNDS, channels=CHANNELS),
        data=PackedData(tokens=64),
        bits=Bits(tokenizer={}, stride=(1, 64, 64), labels=(), grids={"1x4x4": 1}),
        refinement=Refinement(**refinement),
        training=Training(seed=7),
    )


class Watching(TextTransformer):
    """Keeps what it is asked."""

    def predict(self, states, ratio, text):
        self.asked = states, ratio, text
        return super().predict(states, ratio, text)


def objective_of(settings):
    torch.manual_seed(0)
    return TextRefinementObjective(settings, Watching(settings.network), SimpleNamespace(data=settings.data), CPU)


def batch_of(*sequences):
    return PackedBatch([list(sequence) for sequence in sequences])


@pytest.fixture
def batch():
    samples = [some_sample(number, grid, number == 2) for number, grid in enumerate(GRIDS)]
    return batch_of(samples[:2], samples[2:])


def test_a_state_is_true_where_it_was_selected_and_the_network_is_told_the_share(batch):
    objective = objective_of(recipe())
    objective.losses(batch, 0)
    states, shares, texts = objective.network.asked
    samples = [sample for sequence in batch.sequences for sample in sequence]
    for state, share, text, sample in zip(states, shares, texts, samples, strict=True):
        number, shape = torch.tensor([sample.number]), tuple(state.shape)
        truth = index_to_bits(unpack(sample.bits[None], CHANNELS, ROUNDS), ROUNDS)[0]
        ratio = (uniform(7, number, 0, Purpose.RATIO, ()) + 2.0**-25).clamp_max(1 - 2.0**-24)
        ratio = torch.sigmoid(torch.special.ndtri(ratio) * 0.8 - 0.8)
        selection = uniform(7, number, 0, Purpose.SELECTION, shape)[0] < ratio
        selection[:, 0] |= sample.clean_first
        assert torch.equal(state, torch.where(selection, truth, categories(7, number, 2, shape)[0]))
        counted = selection[:, 1:] if sample.clean_first else selection
        assert share == counted.float().mean()
        assert text is sample.text


def test_the_draws_of_a_sample_depend_on_its_epoch_and_not_on_its_neighbours(batch):
    objective = objective_of(recipe())

    def state_of(sample, *others):
        objective.losses(batch_of([*others, sample]), 0)
        return objective.network.asked[0][-1]

    sample = some_sample(0, GRIDS[0])
    alone = state_of(sample)
    assert torch.equal(alone, state_of(sample, some_sample(1, GRIDS[1])))
    assert not torch.equal(alone, state_of(replace(sample, epoch=1)))


def test_a_packed_step_is_what_its_samples_are_alone(batch):
    objective = objective_of(recipe())
    together, _ = objective.losses(batch, 0)
    alone = [[objective.losses(batch_of([sample]), 0)[0] for sample in sequence] for sequence in batch.sequences]
    mean = torch.stack([torch.stack(sequence).mean() for sequence in alone]).mean()
    torch.testing.assert_close(together, mean, rtol=1e-5, atol=1e-6)


def test_a_clean_first_frame_is_no_part_of_the_loss():
    maps = torch.randint(2, (2, 6, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    draws = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    sample = half_true(maps[0], maps[1], torch.tensor(0.4), draws, clean_first=True)
    logits = torch.randn(2, 6, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    losses, right = packed_training_step(lambda states, ratios: [logits], [sample])
    assert losses[0] == cross_entropy(logits[None, :, :, 1:], maps[:1, :, 1:])
    assert right[0].shape == (6, 2, 2, 2)
    assert torch.equal(sample.state[:, 0], maps[0, :, 0])


def test_relative_targets_are_what_is_wrong_in_the_state():
    truth, random = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.ones(2, 1, 2, 2, dtype=torch.uint8)
    sample = half_true(truth, random, torch.tensor(0.5), torch.rand(2, 1, 2, 2))

    def certain(states, ratios):
        return [50.0 * torch.nn.functional.one_hot(state.long(), 2).movedim(-1, 0) for state in states]

    losses, right = packed_training_step(certain, [sample], relative=True)
    assert losses[0] < 1e-6
    assert right[0].all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_samples_weigh_their_predicted_tokens_to_the_power_within_their_sequence(batch, power):
    first, second = 16**power, 12**power
    total = first + second
    expected = [first / total / 2, second / total / 2, 1 / 2]
    assert sequence_weights(batch, power, CPU).tolist() == pytest.approx(expected)
    clip = batch_of([some_sample(0, (3, 2, 2), True), some_sample(1, (1, 4, 4))])
    assert sequence_weights(clip, 1.0, CPU).tolist() == pytest.approx([8 / 24, 16 / 24])


def test_the_shift_by_area_is_one_at_256_pixels():
    settings = Refinement(shift="area")
    assert shift_of(settings, some_sample(0, (1, 4, 4)), (1, 64, 64)) == 1
    assert shift_of(settings, some_sample(0, (5, 4, 16)), (4, 64, 64)) == 2
    assert shift_of(Refinement(shift=3.0), some_sample(0, (1, 4, 4)), (1, 64, 64)) == 3


def test_shifted_ratios_have_the_noise_of_the_release():
    ratio = torch.linspace(0, 1, 11)
    noise = 1 - ratio
    torch.testing.assert_close(1 - shift_noise(ratio, 2.5), 2.5 * noise / (1 + 1.5 * noise))
    assert shift_noise(ratio, 1.0) is ratio


def test_gradient_accumulation_adds_up_to_the_whole(batch):
    objective = objective_of(recipe(tokens_power=0.5))
    whole, _ = objective.losses(batch, 0)
    pieces = [objective.losses(piece, 0)[0] for piece in batch.pieces(2)]
    torch.testing.assert_close(whole, torch.stack(pieces).mean(), rtol=1e-5, atol=1e-6)


def test_the_log_says_how_full_sequences_are(batch):
    _, numbers = objective_of(recipe()).losses(batch, 0)
    assert float(numbers["filled"]) == pytest.approx((16 + 12 + 12 + 3 * 4) / 128)
    assert math.isfinite(float(numbers["accuracy"]))


def test_the_loss_falls(batch):
    objective = objective_of(recipe(condition_dropout=0.0))
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        loss, _ = objective.losses(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
