"""What the generator learns from: true token maps of which a random share is left (paper section 3.2, Algorithm 2)."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from grncli.hbq import index_to_bits, unpack
from grncli.models.generator import Generator as Network
from grncli.refinement import cross_entropy, flips, logit_normal, mix, select
from grncli.rng import Purpose, categories, uniform
from grncli.runs.generator_recipe import GeneratorRecipe, Refinement
from grncli.training.bit_loader import BitLoader
from grncli.training.objective import Batch, Trainable

TENTHS = 10  # of the selection ratio, whose accuracies are logged one by one
VALIDATED_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)

Preview = Callable[[nn.Module, Path, int], None]


class RefinementObjective:
    """The objective of ``grn train-gen``.

    Parameters
    ----------
    network : the generator to train
    loader : gives batches, and what is held out
    device : where batches go
    sheet : leaves a sheet of samples; None for none
    """

    def __init__(
        self,
        recipe: GeneratorRecipe,
        network: Network,
        loader: BitLoader,
        device: torch.device,
        sheet: Preview | None = None,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.loader = loader
        self.device = device
        self.sheet = sheet

    def trainables(self) -> Sequence[Trainable]:
        """The generator."""
        return [Trainable("", self.network, self.losses, self.recipe.optimization)]

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on."""
        return self.loader.batches(first_step)

    def losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of the true tokens (Eq. 7), and how many were right in each tenth of the selection ratio."""
        truth, labels, numbers = self._on_device(batch)
        settings, seed = self.recipe.refinement, self.recipe.training.seed
        ratio = draw_ratio(settings, uniform(seed, numbers, 0, Purpose.RATIO, ()))
        dropped = uniform(seed, numbers, 0, Purpose.LABEL_DROP, ()) < settings.condition_dropout
        labels = torch.where(dropped, self.network.config.null_class, labels)
        loss, right = self._predict(self.network, truth, ratio, labels, numbers)
        right = right.flatten(1).float().mean(dim=1)
        tenth = (ratio * TENTHS).long().clamp_max(TENTHS - 1)
        pairs = torch.zeros(TENTHS, 2, device=self.device).index_add(
            0, tenth, torch.stack([right, torch.ones_like(right)], dim=1)
        )
        each = {f"accuracy_{i / TENTHS:.1f}": pair for i, pair in enumerate(pairs)}
        epoch = torch.tensor((step + 1) * self.loader.batch / self.loader.epoch_samples)
        return loss, {"accuracy": right.mean(), **each, "epoch": epoch.to(self.device)}

    def preview(self, module: nn.Module, folder: Path, step: int) -> None:
        """A sheet of samples, where there is a tokenizer to see them through."""
        if self.sheet is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.sheet(module, folder, step)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Loss and accuracy on what is held out, at a few selection ratios."""
        sums, count = torch.zeros(2, device=self.device), 0
        training = module.training
        module.eval()
        for batch in self.loader.held_out():
            truth, labels, numbers = self._on_device(batch)
            for value in VALIDATED_RATIOS:
                ratio = torch.full((len(truth),), value, device=self.device)
                with torch.inference_mode():
                    loss, right = self._predict(module, truth, ratio, labels, numbers)
                sums += torch.stack([loss, right.float().mean()]) * len(truth)
                count += len(truth)
        module.train(training)
        names = ("validation_loss", "validation_accuracy")
        return dict(zip(names, (sums / count).tolist(), strict=True)) if count else {}

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """True token map ``[B, elements, T, h, w]``, labels (the null class for none) and numbers."""
        assert batch.labels is not None
        assert batch.numbers is not None
        config = self.network.config
        assert config.channels is not None
        assert config.rounds is not None
        index = unpack(batch.data.to(self.device, non_blocking=True), config.channels, config.rounds)
        truth = index if config.prediction == "ind" else index_to_bits(index, config.rounds)
        labels, numbers = batch.labels.to(self.device), batch.numbers.to(self.device)
        return truth, torch.where(labels < 0, config.null_class, labels), numbers

    def _predict(
        self, module: nn.Module, truth: Tensor, ratio: Tensor, labels: Tensor, numbers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss on states of which the share ``ratio [B]`` is true, and which predictions are right."""
        config, seed = self.network.config, self.recipe.training.seed
        shape = tuple(truth.shape[1:])
        random = categories(seed, numbers, config.codec.categories, shape)
        selection = select(uniform(seed, numbers, 0, Purpose.SELECTION, shape), ratio)
        state = mix(truth, random, selection)
        logits = module(state, ratio, labels)
        target = flips(state, truth) if self.recipe.refinement.target == "relative" else truth
        return cross_entropy(logits, target), logits.detach().argmax(dim=1) == target


def draw_ratio(settings: Refinement, uniform: Tensor) -> Tensor:
    """Selection ratios of training samples from uniform numbers in [0, 1)."""
    if settings.ratio == "uniform":
        return uniform
    # Half a grid step aside, because the normal distribution has no value at 0, nor at 1, which that would round to.
    inside = (uniform + 2.0**-25).clamp_max(1 - 2.0**-24)
    return logit_normal(torch.special.ndtri(inside), settings.mean, settings.deviation)
