"""``grn train-tokenizer``: what is particular about training the tokenizer - its batches, its losses, its pictures."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grncli.checkpoint import RECIPE, check_run_is_free, clear_run, is_run, list_checkpoints, read_state
from grncli.errors import CheckpointError, MediaError, RecipeError, UsageError
from grncli.media.decoder import DecoderPool
from grncli.media.reading import Crop
from grncli.media.sources import Source, list_sources
from grncli.media.writing import contact_sheet, whole_file, write_png
from grncli.models.tokenizer import Tokenizer, to_frames, to_input
from grncli.overlap import Prefetch
from grncli.recipe import dump_recipe, read_recipe
from grncli.stopping import Stop
from grncli.training.loop import Batch, Report, train
from grncli.training.recipes import ClipData, Data, ImageData, TokenizerLosses, TokenizerRecipe

PREVIEW_IMAGES = 8
PREVIEW_CLIPS = 2
PREVIEW_FRAMES = 4  # of each clip
EXTENDABLE = ("steps", "log_every", "checkpoint_every", "preview_every", "keep")


def train_tokenizer(
    recipe: TokenizerRecipe,
    src: str,
    run: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    stop: Stop | None = None,
    report: Callable[[Report], None] = lambda _: None,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a tokenizer on the media of ``src`` into the run directory ``run``; returns the steps this run added.

    An interrupted run goes on from its newest checkpoint; ``training.steps`` may have grown since.

    Raises
    ------
    Stopped
        If ``stop`` asked for it, after a checkpoint.
    UsageError, RecipeError, CheckpointError
        If ``src`` lacks the media that the recipe wants, or ``run`` holds something else.
    """
    done = prepare_run(run, recipe, overwrite=overwrite)
    if done >= recipe.training.steps:
        return 0
    listing = list_sources(src)
    sampler = CropSampler(recipe.data, listing.sources, recipe.training.seed, src)
    torch.manual_seed(recipe.training.seed)  # of the first weights; nothing later draws from it
    module = Tokenizer(recipe.network, recipe.rounds)
    with DecoderPool(recipe.data.workers) as pool:
        objective = Reconstruction(recipe.losses, sampler, pool, device, warn)
        train(
            module,
            objective,
            run,
            optimization=recipe.optimization,
            training=recipe.training,
            config=asdict(recipe.network),
            device=device,
            dtype=dtype,
            stop=stop or Stop(),
            report=report,
        )
    return recipe.training.steps - done


def prepare_run(run: Path, recipe: TokenizerRecipe, *, overwrite: bool) -> int:
    """Make the run directory with its recipe, or check the one that is there; returns the steps it has done.

    Raises
    ------
    CheckpointError
        If ``run`` was trained with another recipe, is an imported one, or is no run directory.
    """
    if is_run(run) and not overwrite:
        present = read_recipe(run / RECIPE, TokenizerRecipe)
        if present.imported is not None:
            raise CheckpointError(f"{run}: was made by grn import and cannot be trained further; give another --out")
        comparable = replace(
            present,
            training=replace(present.training, **{k: getattr(recipe.training, k) for k in EXTENDABLE}),
        )
        if comparable != recipe:
            raise CheckpointError(
                f"{run} was made with another recipe ({_differences(comparable, recipe)}); "
                "use the same one, another --out, or --overwrite"
            )
    else:
        check_run_is_free(run, overwrite=overwrite)
        clear_run(run)
        run.mkdir(parents=True, exist_ok=True)
        present = None
    if recipe != present:
        with whole_file(run / RECIPE) as temporary:
            temporary.write_text(dump_recipe(recipe), encoding="utf-8")
    checkpoints = list_checkpoints(run)
    return int(read_state(checkpoints[-1])["step"]) if checkpoints else 0


def _differences(there: TokenizerRecipe, asked: TokenizerRecipe) -> str:
    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for key, inner in value.items() for k, v in flat(f"{prefix}.{key}".lstrip("."), inner).items()}

    old, new = flat("", asdict(there)), flat("", asdict(asked))
    return ", ".join(
        f"{key}={old.get(key)} there, {new.get(key)} asked"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


class CropSampler:
    """Which crops step s trains on, from (seed, s) alone.

    A step takes images or clips, never both, so that a batch has one shape. Each kind walks through its sources in
    epochs, each epoch in an order of its own.
    """

    def __init__(self, data: Data, sources: Sequence[Source], seed: int, src: str) -> None:
        usable = [source for source in sources if source.problem is None]
        self.images = [source for source in usable if source.kind == "image"] if data.image else []
        self.clips = [source for source in usable if source.kind == "clip"] if data.clip else []
        self.data = data
        self.seed = seed
        for kind, wanted, found in (("image", data.image, self.images), ("clip", data.clip, self.clips)):
            if wanted and not found:
                raise UsageError(
                    f"{src} holds no {kind}s, which the recipe's data.{kind} wants; add some or set data.{kind}=null"
                )
        self.clip_share = 0.0 if data.clip is None else 1.0 if data.image is None else data.clip.share

    def step(self, step: int) -> list[tuple[Source, Crop]]:
        """Sources and crops of a step, counted from 0."""
        clips_before = floor(step * self.clip_share)
        if floor((step + 1) * self.clip_share) > clips_before:
            assert self.data.clip is not None
            return self._draw("clip", self.clips, self.data.clip, clips_before, step)
        assert self.data.image is not None
        return self._draw("image", self.images, self.data.image, step - clips_before, step)

    def _draw(
        self, kind: str, sources: Sequence[Source], media: ImageData | ClipData, turn: int, step: int
    ) -> list[tuple[Source, Crop]]:
        jobs = []
        for item in range(media.batch):
            epoch, place = divmod(turn * media.batch + item, len(sources))
            source = sources[self._order(kind, len(sources), epoch)[place]]
            jobs.append((source, self.crop(media, [self.seed, step, item])))
        return jobs

    def crop(self, media: ImageData | ClipData, entropy: Sequence[int]) -> Crop:
        """A random crop whose draws come from ``entropy``."""
        frames, fps = (media.frames, media.fps) if isinstance(media, ClipData) else (1, None)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return Crop(size=media.size, frames=frames, fps=fps, scale=media.scale, flip=self.data.flip, seed=seed)

    @lru_cache(maxsize=4)  # noqa: B019 - the sampler lives as long as the run
    def _order(self, kind: str, count: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, len(kind)]).permutation(count)


class Reconstruction:
    """Error of the pixels that come back through the bits: L1 as in the release, and mean squared if asked for."""

    def __init__(
        self,
        losses: TokenizerLosses,
        sampler: CropSampler,
        pool: DecoderPool,
        device: torch.device,
        warn: Callable[[str], None],
    ) -> None:
        self.weights = losses
        self.sampler = sampler
        self.pool = pool
        self.device = device
        self.warn = warn
        self._warned: set[str] = set()
        self._preview = self._preview_batches()

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on; a thread decodes ahead of the network."""
        with Prefetch(self._decode(first_step), depth=4, abandon=self.pool.abandon) as ahead:
            yield from ahead

    def losses(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted loss, and what goes into the log."""
        x = to_input(batch.data.to(self.device, non_blocking=True))
        restored = module(x).float()
        reconstruction = (restored - x).abs().mean()
        mse = (restored - x).square().mean()
        shown = (restored.detach().clamp(-1, 1) - x).square().mean()
        psnr = -10 * torch.log10(shown / 4 + 1e-10)  # pixels span 2
        kind = "image" if x.shape[2] == 1 else "clip"
        numbers = {f"{kind}_reconstruction": reconstruction.detach(), f"{kind}_psnr": psnr}
        return self.weights.reconstruction * reconstruction + self.weights.mse * mse, numbers

    def preview(self, module: nn.Module, folder: Path, step: int) -> None:
        """Sheets of sources above their reconstructions: ``images-STEP.png`` and ``clips-STEP.png``."""
        assert isinstance(module, Tokenizer)
        training = module.training
        module.eval()
        for kind, frames in self._preview.items():
            with torch.inference_mode():
                restored = module(to_input(frames.to(self.device))).clamp(-1, 1)
            rows = preview_rows(frames.numpy(), to_frames(restored).cpu().numpy())
            folder.mkdir(parents=True, exist_ok=True)
            write_png(folder / f"{kind}s-{step:08d}.png", contact_sheet(rows))
        module.train(training)

    def _decode(self, first_step: int) -> Iterator[Batch]:
        def jobs() -> Iterator[tuple[Source, Crop]]:
            step = first_step
            while True:
                yield from self.sampler.step(step)
                step += 1

        results = self.pool.crops(jobs())
        step = first_step
        while True:
            wanted = self.sampler.step(step)
            yield self._batch(wanted, list(islice(results, len(wanted))))
            step += 1

    def _batch(self, wanted: Sequence[tuple[Source, Crop]], results: Sequence[NDArray[np.uint8] | MediaError]) -> Batch:
        """A source that cannot be read gives its place to the next one of the batch that can."""
        good = [
            (source.name, r) for (source, _), r in zip(wanted, results, strict=True) if not isinstance(r, MediaError)
        ]
        for (source, _), result in zip(wanted, results, strict=True):
            if isinstance(result, MediaError) and source.name not in self._warned:
                self._warned.add(source.name)
                self.warn(f"{source.name}: {result}; another source of its batch takes its place")
        if not good:
            raise MediaError(f"{wanted[0][0].name}: {results[0]}; nor could any other source of its batch be read")
        filled = [good[i % len(good)] for i in range(len(wanted))]
        return Batch(torch.from_numpy(np.stack([pixels for _, pixels in filled])), tuple(name for name, _ in filled))

    def _preview_batches(self) -> dict[str, Tensor]:
        """The first sources of each kind, cropped the same way in every preview."""
        batches = {}
        for kind, sources, media, count in (
            ("image", self.sampler.images, self.sampler.data.image, PREVIEW_IMAGES),
            ("clip", self.sampler.clips, self.sampler.data.clip, PREVIEW_CLIPS),
        ):
            if media is None:
                continue
            spread = sources[:: max(1, len(sources) // count)][:count]
            crops = [replace(self.sampler.crop(media, [i]), scale=(1.0, 1.0), flip=0.0) for i in range(len(spread))]
            results = self.pool.crops(zip(spread, crops, strict=True))
            good = [r for r in results if not isinstance(r, MediaError)]
            if good:
                batches[kind] = torch.from_numpy(np.stack(good))
        return batches


def preview_rows(sources: NDArray[np.uint8], restored: NDArray[np.uint8]) -> list[list[NDArray[np.uint8]]]:
    """Rows of a contact sheet from uint8 ``[N, T, H, W, 3]`` twice: images side by side, frames of a clip in a row."""
    if sources.shape[1] == 1:
        return [list(sources[:, 0]), list(restored[:, 0])]
    shown = np.linspace(0, sources.shape[1] - 1, PREVIEW_FRAMES).round().astype(int)
    rows = []
    for before, after in zip(sources, restored, strict=True):
        rows += [list(before[shown]), list(after[shown])]
    return rows


def read_tokenizer_recipe(path: Path, overrides: Sequence[str] = ()) -> TokenizerRecipe:
    """A recipe for ``grn train-tokenizer``; RecipeError when it is one for something else."""
    recipe = read_recipe(path, TokenizerRecipe, overrides)
    if recipe.imported is not None:
        raise RecipeError(f"{path}: is the recipe of an imported run, which has no training to repeat")
    return recipe
