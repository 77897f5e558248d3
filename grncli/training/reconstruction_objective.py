"""What the tokenizer learns from: pixels that come back through the bits, LPIPS, discriminators (paper section 3.1).

The tokenizer minimizes a weighted sum of losses; the discriminators, if the recipe has a GAN loss, are a second
trainable that learns to tell its reconstructions from sources.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grncli.hbq import bits_to_index
from grncli.media.writing import Frames, contact_sheet, shown_frames, write_mp4, write_png
from grncli.metrics.quality import mean_over_frames, psnr, ssim
from grncli.models.discriminator import (
    ClipDiscriminator,
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
)
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import Tokenizer, to_frames, to_input
from grncli.rng import Purpose, uniform
from grncli.runs.tokenizer_recipe import DiscriminatorSettings, TokenizerRecipe
from grncli.training.crops import CropLoader
from grncli.training.objective import Batch, Trainable
from grncli.training.wrapping import shard_tokenizer

PREVIEWED = 8
PREVIEW_FPS = 8.0
CONTRAST = 2  # of differences, around mid-grey


class Discriminators(nn.Module):
    """One discriminator that sees frame by frame, and one for clips that sees time."""

    def __init__(self, settings: DiscriminatorSettings, *, clips: bool) -> None:
        super().__init__()
        self.frames = PatchDiscriminator(settings.width, settings.layers)
        self.clips = ClipDiscriminator(settings.width, settings.layers) if clips and settings.clips else None

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of each discriminator that ``x`` ``[B, 3, T, H, W]`` is for."""
        return [self.frames(x)] + ([self.clips(x)] if self.clips is not None and x.shape[2] > 1 else [])


class ReconstructionObjective:
    """The objective of ``grn train-tokenizer``.

    Parameters
    ----------
    tokenizer : the network to train
    loader : gives batches, previews and what is held out
    lpips : the perceptual metric, where the recipe weighs it
    device : where batches go
    """

    def __init__(
        self,
        recipe: TokenizerRecipe,
        tokenizer: Tokenizer,
        loader: CropLoader,
        lpips: LPIPS | None,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.weights = recipe.losses
        self.tokenizer = tokenizer
        self.loader = loader
        self.lpips = None if lpips is None else lpips.to(device)
        self.device = device
        self.discriminators: Discriminators | None = None
        if recipe.losses.gan.weight > 0:
            self.discriminators = Discriminators(recipe.discriminator, clips=recipe.data.clip is not None)
        self._last: tuple[Tensor, Tensor] | None = None  # sources and reconstructions, for the discriminators
        self._preview = loader.fixed(PREVIEWED)
        self._held_out = loader.held_out()

    def trainables(self) -> Sequence[Trainable]:
        """The tokenizer, and its discriminators if there are any."""
        own = self.recipe.optimization
        trainables = [Trainable("", self.tokenizer, self.losses, own, shard=shard_tokenizer)]
        if self.discriminators is not None:
            rate = self.recipe.discriminator.learning_rate or own.learning_rate
            theirs = replace(own, learning_rate=rate)
            trainables.append(Trainable("discriminator", self.discriminators, self.discriminator_losses, theirs))
        return trainables

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on."""
        return self.loader.batches(first_step)

    def losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted loss of the tokenizer, and each of its terms for the log."""
        x = to_input(batch.data.to(self.device, non_blocking=True))
        rounds = self._rounds(step)
        restored = self.tokenizer(x, rounds, self._flips(batch, x, rounds, step)).float()
        error = restored - x
        terms = {"reconstruction": error.abs().mean(), "mse": error.square().mean()}
        loss = terms["reconstruction"] * self.weights.reconstruction.at(step) + terms["mse"] * self.weights.mse.at(step)
        if self.lpips is not None and (weight := self.weights.lpips.at(step)) > 0:
            with torch.autocast(self.device.type, enabled=False):
                terms["lpips"] = self.lpips(restored, x).mean()
            loss = loss + weight * terms["lpips"]
        if self.discriminators is not None and (weight := self.weights.gan.at(step)) > 0:
            terms["gan"] = self._generator_loss(self.discriminators, restored)
            loss = loss + weight * terms["gan"]
        self._last = x, restored.detach()
        squared = (restored.detach().clamp(-1, 1) - x).square().mean()
        terms["psnr"] = -10 * torch.log10(squared / 4 + 1e-10)  # pixels span 2
        kind = "image" if x.shape[2] == 1 else "clip"
        return loss, {f"{kind}_{name}": value.detach() for name, value in terms.items()}

    def discriminator_losses(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge loss of the discriminators on the sources and reconstructions that ``losses`` just had."""
        assert self.discriminators is not None
        assert self._last is not None
        (x, restored), self._last = self._last, None
        if step < self.weights.gan.start:
            return torch.zeros((), device=x.device), {}
        real, fake = self.discriminators(x), self.discriminators(restored)
        loss = torch.stack([discriminator_loss(r, f) for r, f in zip(real, fake, strict=True)]).sum()
        numbers = {"discriminator_real": real[0].detach().mean(), "discriminator_fake": fake[0].detach().mean()}
        return loss, numbers

    def preview(self, module: nn.Module, folder: Path | None, step: int) -> None:
        """Sheets of sources, reconstructions and differences, one below the other, and clips side by side as MP4."""
        for kind, crops in self._preview.items():
            triples = [(before, after, difference(before, after)) for before, after in self._restored(module, crops)]
            if folder is None:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{kind}s-{step:08d}.png", contact_sheet(*preview_rows(triples)))
            if kind == "clip":
                side_by_side = np.concatenate([np.concatenate(triple, axis=2) for triple in triples], axis=1)
                write_mp4(folder / f"clips-{step:08d}.mp4", side_by_side, PREVIEW_FPS)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Mean PSNR in dB and SSIM of the sources that are held out."""
        numbers = {}
        for kind, crops in self._held_out.items():
            pairs = list(self._restored(module, crops))
            for name, metric in (("psnr", psnr), ("ssim", ssim)):
                values = [mean_over_frames(metric, after, before) for before, after in pairs]
                numbers[f"validation_{kind}_{name}"] = float(np.mean(values))
        return numbers

    def _rounds(self, step: int) -> int | None:
        """How many rounds a step quantizes to, drawn from (seed, step) where the recipe gives several."""
        choices = self.recipe.drawn_rounds
        draw = np.random.default_rng([self.recipe.training.seed, step, len(choices)])
        return choices[int(draw.integers(len(choices)))]

    def _flips(self, batch: Batch, x: Tensor, rounds: int | None, step: int) -> Tensor | None:
        """Bits to get wrong, uint8 ``[B, C, T, h, w]``: of each sample a share that is drawn from 0 to the recipe's."""
        most = self.recipe.bit_errors
        if not most or rounds is None:
            return None
        assert batch.numbers is not None
        shape = self.tokenizer.feature_shape(x)
        count = rounds * prod(shape)
        draws = uniform(self.recipe.training.seed, batch.numbers.to(x.device), step, Purpose.BIT_ERRORS, (1 + count,))
        wrong = draws[:, 1:] < most * draws[:, :1]
        return bits_to_index(wrong.view(-1, rounds * shape[0], *shape[1:]), rounds)

    def _generator_loss(self, discriminators: Discriminators, restored: Tensor) -> Tensor:
        # The gradient goes through the discriminators, not into them: theirs comes from their own loss.
        discriminators.requires_grad_(False)
        try:
            return torch.stack([generator_loss(logits) for logits in discriminators(restored)]).sum()
        finally:
            discriminators.requires_grad_(True)

    def _restored(self, module: nn.Module, crops: Sequence[Tensor]) -> Generator[tuple[Frames, Frames]]:
        """Each crop, uint8 ``[T, S, S, 3]``, and what comes back of it."""
        training = module.training
        module.eval()
        for crop in crops:
            with torch.inference_mode():
                restored = module(to_input(crop[None].to(self.device)))
            yield crop.numpy(), to_frames(restored)[0].cpu().numpy()
        module.train(training)


def difference(before: Frames, after: Frames) -> Frames:
    """What was added and taken away, with its contrast raised, around mid-grey."""
    levels = 128 + CONTRAST * (after.astype(np.int16) - before)
    return levels.clip(0, 255).astype(np.uint8)


def preview_rows(triples: Sequence[tuple[Frames, Frames, Frames]]) -> tuple[list[list[Frames]], list[str]]:
    """Rows of a contact sheet from uint8 ``[T, S, S, 3]``, and a caption for each of their pictures.

    Images stand side by side, and the frames of a clip in a row; the first picture of a row says what the row is.
    """
    if len(triples[0][0]) == 1:
        rows = [[part[0] for part in column] for column in zip(*triples, strict=True)]
    else:
        rows = [shown_frames(part) for triple in triples for part in triple]
    names = ["source", "reconstruction", f"difference x{CONTRAST}"] * (len(rows) // 3)
    return rows, [text for name, row in zip(names, rows, strict=True) for text in [name, *[""] * (len(row) - 1)]]
