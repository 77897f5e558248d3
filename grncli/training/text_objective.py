"""The objective of ``grn train-gen`` for text: Algorithm 2 on packed sequences, its numbers, and its validation."""

from collections.abc import Generator, Sequence
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from grncli.models.text_transformer import TextTransformer
from grncli.refinement import HalfTrue, half_true, packed_training_step
from grncli.rng import Purpose, categories, uniform
from grncli.runs.generator_recipe import GeneratorRecipe, Refinement
from grncli.schedules import shift_noise
from grncli.training.captioned_samples import CaptionedSample
from grncli.training.objective import Average, Trainable
from grncli.training.packed_loader import PackedBatch, PackedLoader
from grncli.training.refinement_objective import VALIDATED_RATIOS, Preview, accuracy_by_tenths, draw_ratio
from grncli.training.wrapping import shard_generator

AREA = 256 * 256  # pixels whose ratios the shift by area leaves as they are


class TextRefinementObjective:
    """The objective of a text-conditional generator.

    Parameters
    ----------
    network : the generator to train
    loader : gives packed batches, and what is held out
    device : where samples go
    sheet : writes a sheet of samples; None for none
    average : what the moving averages begin with; None for the network's weights
    """

    def __init__(
        self,
        recipe: GeneratorRecipe,
        network: TextTransformer,
        loader: PackedLoader,
        device: torch.device,
        sheet: Preview | None = None,
        average: Average | None = None,
    ) -> None:
        self.recipe, self.network, self.loader = recipe, network, loader
        self.device, self.sheet, self.average = device, sheet, average

    def trainables(self) -> Sequence[Trainable]:
        """The generator."""
        return [Trainable("", self.network, self.losses, self.recipe.optimization, self.average, shard_generator)]

    def batches(self, first_step: int) -> Generator[PackedBatch]:
        """Batches from ``first_step`` on."""
        return self.loader.batches(first_step)

    def losses(self, batch: PackedBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of the true tokens (Eq. 7), weighted within each sequence, and the shares that were right."""
        samples = [self._half_true(sample) for sequence in batch.sequences for sample in sequence]
        loss, right = self._step(self.network, batch, samples)
        weights = sequence_weights(batch, self.recipe.refinement.tokens_power, self.device)
        shares = torch.stack([sample.share for sample in samples])
        seen = max(sample.epoch for sequence in batch.sequences for sample in sequence)
        numbers = {"accuracy": right.mean(), **accuracy_by_tenths(shares, right)}
        tokens = sum(tokens_of(sample) for sequence in batch.sequences for sample in sequence)
        filled = tokens / (self.loader.data.tokens * len(batch.sequences))
        told = {"epoch": float(seen), "filled": filled}
        return (weights * loss).sum(), numbers | {
            name: torch.tensor(value).to(self.device) for name, value in told.items()
        }

    def preview(self, module: nn.Module, folder: Path | None, step: int) -> None:
        """A sheet of samples, where there is a tokenizer to decode them."""
        if self.sheet is not None:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self.sheet(module, folder, step)

    @torch.inference_mode()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Mean loss and accuracy on what is held out, at fixed selection ratios."""
        losses, rights = [], []
        for batch in self.loader.held_out():
            for ratio in VALIDATED_RATIOS:
                samples = [self._half_true(sample, ratio) for sequence in batch.sequences for sample in sequence]
                loss, right = self._step(module, batch, samples)
                losses.append(loss)
                rights.append(right)
        if not losses:
            return {}
        return {
            "validation_loss": float(torch.cat(losses).mean()),
            "validation_accuracy": float(torch.cat(rights).mean()),
        }

    def _half_true(self, sample: CaptionedSample, ratio: float | None = None) -> HalfTrue:
        """The state of a sample, with ``ratio`` or one that is drawn; all draws are of (seed, epoch, sample)."""
        seed, codec = self.recipe.training.seed, self.network.config.codec
        truth = codec.unpack(sample.bits[None].to(self.device, non_blocking=True))[0]
        number, shape = torch.tensor([sample.number], device=self.device), tuple(truth.shape)
        if ratio is not None:
            drawn = torch.tensor([ratio], device=self.device)
        else:
            drawn = draw_ratio(self.recipe.refinement, uniform(seed, number, sample.epoch, Purpose.RATIO, ()))
            drawn = shift_noise(drawn, shift_of(self.recipe.refinement, sample, self.recipe.bits.stride))
        random = categories(seed, number, codec.categories, shape, sample.epoch)[0]
        selection = uniform(seed, number, sample.epoch, Purpose.SELECTION, shape)[0]
        return half_true(truth, random, drawn[0], selection, clean_first=sample.clean_first)

    def _step(self, module: nn.Module, batch: PackedBatch, samples: Sequence[HalfTrue]) -> tuple[Tensor, Tensor]:
        """Loss and share of right predictions of each sample ``[N]``."""
        texts = [sample.text.to(self.device) for sequence in batch.sequences for sample in sequence]
        assert isinstance(module, TextTransformer)
        losses, right = packed_training_step(
            lambda states, ratios: module.predict(states, ratios, texts),
            samples,
            relative=self.recipe.refinement.target == "relative",
        )
        return losses, torch.stack([each.float().mean() for each in right])


def tokens_of(sample: CaptionedSample) -> int:
    """Of the grid, the selection ratio and the text."""
    return sample.bits[..., 0, 0].numel() + 1 + len(sample.text)


def sequence_weights(batch: PackedBatch, power: float, device: torch.device) -> Tensor:
    """What each sample's loss counts: its predicted tokens to the power, as a share of its sequence's, of the mean."""
    parts = []
    for sequence in batch.sequences:
        grids = [sample.bits[int(sample.clean_first) :, ..., 0, 0].numel() for sample in sequence]
        weights = torch.tensor(grids, dtype=torch.float64) ** power
        parts.append(weights / weights.sum() / len(batch.sequences))
    return torch.cat(parts).to(device, torch.float32)


def shift_of(settings: Refinement, sample: CaptionedSample, stride: Sequence[int]) -> float:
    """The factor a by which the noise of a sample's state is shifted."""
    if settings.shift != "area":
        return settings.shift
    height, width = sample.bits.shape[1] * stride[1], sample.bits.shape[2] * stride[2]
    return sqrt(height * width / AREA)
