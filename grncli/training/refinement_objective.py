"""The objective of ``grn train-gen``: Algorithm 2 on batches of a bit store, its numbers, and its validation."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from grncli.conditions import ClassCondition, Condition
from grncli.models.generator import Generator as Network
from grncli.refinement import training_step
from grncli.rng import Purpose, categories, uniform
from grncli.runs.generator_recipe import GeneratorRecipe, Refinement
from grncli.schedules import logit_normal
from grncli.training.bit_loader import BitLoader
from grncli.training.objective import Average, Batch, Trainable
from grncli.training.wrapping import shard_generator

TENTHS = 10  # of the selection ratio, whose accuracies are logged one by one
VALIDATED_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)

Preview = Callable[[nn.Module, Path | None, int], None]


class RefinementObjective:
    """The objective of ``grn train-gen``.

    Parameters
    ----------
    network : the generator to train
    loader : gives batches, and what is held out
    device : where batches go
    sheet : writes a sheet of samples; None for none
    average : what the moving averages begin with; None for the network's weights
    """

    def __init__(
        self,
        recipe: GeneratorRecipe,
        network: Network,
        loader: BitLoader,
        device: torch.device,
        sheet: Preview | None = None,
        average: Average | None = None,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.loader = loader
        self.device = device
        self.sheet = sheet
        self.average = average

    def trainables(self) -> Sequence[Trainable]:
        """The generator."""
        return [Trainable("", self.network, self.losses, self.recipe.optimization, self.average, shard_generator)]

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on."""
        return self.loader.batches(first_step)

    def losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of the true tokens (Eq. 7), and how many were right in each tenth of the selection ratio."""
        truth, condition, numbers = self._on_device(batch)
        settings, seed = self.recipe.refinement, self.recipe.training.seed
        ratio = draw_ratio(settings, uniform(seed, numbers, 0, Purpose.RATIO, ()))
        dropped = uniform(seed, numbers, 0, Purpose.CONDITION_DROPOUT, ()) < settings.condition_dropout
        loss, right = self._step(self.network, truth, ratio, condition.dropped(dropped), numbers)
        right = right.flatten(1).float().mean(dim=1)
        epoch = torch.tensor((step + 1) * self.loader.batch / self.loader.epoch_samples)
        return loss, {"accuracy": right.mean(), **accuracy_by_tenths(ratio, right), "epoch": epoch.to(self.device)}

    def preview(self, module: nn.Module, folder: Path | None, step: int) -> None:
        """A sheet of samples, where there is a tokenizer to decode them."""
        if self.sheet is not None:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self.sheet(module, folder, step)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Loss and accuracy on what is held out, at a few selection ratios."""
        sums, count = torch.zeros(2, device=self.device), 0
        training = module.training
        module.eval()
        for batch in self.loader.held_out():
            truth, condition, numbers = self._on_device(batch)
            for value in VALIDATED_RATIOS:
                ratio = torch.full((len(truth),), value, device=self.device)
                with torch.inference_mode():
                    loss, right = self._step(module, truth, ratio, condition, numbers)
                sums += torch.stack([loss, right.float().mean()]) * len(truth)
                count += len(truth)
        module.train(training)
        names = ("validation_loss", "validation_accuracy")
        return dict(zip(names, (sums / count).tolist(), strict=True)) if count else {}

    def _on_device(self, batch: Batch) -> tuple[Tensor, Condition, Tensor]:
        """True token map ``[B, channels, T, h, w]``, conditions and numbers of the samples."""
        assert batch.labels is not None
        assert batch.numbers is not None
        config = self.network.config
        truth = config.codec.unpack(batch.data.to(self.device, non_blocking=True))
        condition = ClassCondition.of(batch.labels, config.null_class).to(self.device)
        return truth, condition, batch.numbers.to(self.device)

    def _step(
        self, module: nn.Module, truth: Tensor, ratio: Tensor, condition: Condition, numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss on states of which the share ``ratio [B]`` is true, and which predictions are right."""
        seed, shape = self.recipe.training.seed, tuple(truth.shape[1:])
        return training_step(
            lambda state, share: condition.predict(module, state, share),
            truth,
            categories(seed, numbers, self.network.config.codec.categories, shape),
            ratio,
            uniform(seed, numbers, 0, Purpose.SELECTION, shape),
            relative=self.recipe.refinement.target == "relative",
        )


def accuracy_by_tenths(ratio: Tensor, right: Tensor) -> dict[str, Tensor]:
    """For each tenth of the selection ratio ``[B]``, the sum of the shares ``[B]`` that were right, and how many."""
    tenth = (ratio * TENTHS).long().clamp_max(TENTHS - 1)
    pairs = torch.zeros(TENTHS, 2, device=right.device).index_add(
        0, tenth, torch.stack([right, torch.ones_like(right)], dim=1)
    )
    return {f"accuracy_{i / TENTHS:.1f}": pair for i, pair in enumerate(pairs)}


def draw_ratio(settings: Refinement, uniform: Tensor) -> Tensor:
    """Selection ratios of training samples from uniform numbers in [0, 1)."""
    if settings.ratio == "uniform":
        return uniform
    # Half a grid step aside, because the normal distribution has no value at 0, nor at 1, which that would round to.
    inside = (uniform + 2.0**-25).clamp_max(1 - 2.0**-24)
    return logit_normal(torch.special.ndtri(inside), settings.mean, settings.deviation)
