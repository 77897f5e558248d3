"""Random crops of images and clips as batches: which ones a step takes, and reading them ahead of the network."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.media.decoder import DecoderPool
from grncli.media.reading import Crop
from grncli.media.sources import Source
from grncli.runs.tokenizer_recipe import ClipData, Data, ImageData
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.overlap import Prefetch
from grncli.runtime.processes import Processes
from grncli.training.objective import Batch


class CropSampler:
    """Which crops step s trains on, from (seed, s) alone.

    A step takes images or clips, never both, so that a batch has one shape. Each kind walks through its sources in
    epochs, each epoch in an order of its own.
    """

    def __init__(self, data: Data, sources: Sequence[Source], seed: int, src: str) -> None:
        self.data = data
        self.seed = seed
        self.images, self.held_out_images = self._divided("image", data.image, sources, src)
        self.clips, self.held_out_clips = self._divided("clip", data.clip, sources, src)
        self.clip_share = 0.0 if data.clip is None else 1.0 if data.image is None else data.clip.share

    def _divided(
        self, kind: str, media: ImageData | ClipData | None, sources: Sequence[Source], src: str
    ) -> tuple[list[Source], list[Source]]:
        """Sources of one kind to train on, and those held out, spread evenly over the listing."""
        if media is None:
            return [], []
        usable = [source for source in sources if source.problem is None and source.kind == kind]
        if not usable:
            raise UsageError(
                f"{src} holds no {kind}s, which the recipe's data.{kind} wants; add some or set data.{kind}=null"
            )
        count = self.data.validation
        chosen = set(np.linspace(0, len(usable) - 1, count).round().astype(int).tolist()) if count else set()
        left = [source for i, source in enumerate(usable) if i not in chosen]
        if len(left) < media.batch:
            held = f" ({len(chosen)} more are held out)" if chosen else ""
            raise UsageError(
                f"{src} holds {len(left)} {kind}s to train on{held}, expected at least one batch, "
                f"data.{kind}.batch={media.batch}; add some, or make the batch smaller"
            )
        return left, [usable[i] for i in sorted(chosen)]

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
        crops = []
        for item in range(media.batch):
            epoch, place = divmod(turn * media.batch + item, len(sources))
            source = sources[self._order(kind, len(sources), epoch)[place]]
            crops.append((source, self.crop(media, [self.seed, step, item])))
        return crops

    def crop(self, media: ImageData | ClipData, entropy: Sequence[int]) -> Crop:
        """A random crop whose draws come from ``entropy``."""
        frames, fps = (media.frames, media.fps) if isinstance(media, ClipData) else (1, None)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return Crop(size=media.size, frames=frames, fps=fps, scale=media.scale, flip=self.data.flip, seed=seed)

    @lru_cache(maxsize=4)  # noqa: B019 - the sampler lives as long as the run
    def _order(self, kind: str, count: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, len(kind)]).permutation(count)


class CropLoader:
    """Reads the crops of steps in worker processes, ahead of the network; of several processes each its share."""

    def __init__(
        self, sampler: CropSampler, pool: DecoderPool, processes: Processes, say: Callable[[str], None]
    ) -> None:
        self.sampler = sampler
        self.pool = pool
        self.processes = processes
        self.say = say
        self._warned: set[str] = set()

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on, uint8 ``[B, T, S, S, 3]``; a thread decodes ahead of the network."""
        with Prefetch(self._decode(first_step), depth=4, abandon=self.pool.abandon) as ahead:
            yield from ahead

    def fixed(self, count: int) -> dict[str, list[Tensor]]:
        """Crops for previews, one for each of ``count`` sources of a kind: uint8 ``[T, S, S, 3]``."""
        return self._centred(self.sampler.images[:: max(1, len(self.sampler.images) // count)][:count], "image") | (
            self._centred(self.sampler.clips[:: max(1, len(self.sampler.clips) // count)][:count], "clip")
        )

    def held_out(self) -> dict[str, list[Tensor]]:
        """A crop of each source that is held out, as ``fixed`` gives them."""
        return self._centred(self.sampler.held_out_images, "image") | self._centred(self.sampler.held_out_clips, "clip")

    def _centred(self, sources: Sequence[Source], kind: str) -> dict[str, list[Tensor]]:
        """Crops of full height that are the same whenever they are asked for; empty where none can be read."""
        media = self.sampler.data.image if kind == "image" else self.sampler.data.clip
        if media is None or not sources:
            return {}
        crops = [replace(self.sampler.crop(media, [i]), scale=(1.0, 1.0), flip=0.0) for i in range(len(sources))]
        results = self.pool.crops(zip(sources, crops, strict=True))
        good = [torch.from_numpy(pixels) for pixels in results if not isinstance(pixels, MediaError)]
        return {kind: good} if good else {}

    def _share(self, step: int) -> list[tuple[Source, Crop]]:
        return self.sampler.step(step)[self.processes.rank :: self.processes.count]

    def _decode(self, first_step: int) -> Iterator[Batch]:
        def wanted_crops() -> Iterator[tuple[Source, Crop]]:
            step = first_step
            while True:
                yield from self._share(step)
                step += 1

        results = self.pool.crops(wanted_crops())
        step = first_step
        while True:
            wanted = self._share(step)
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
                self.say(f"{source.name}: {result}; another source of its batch takes its place")
        if not good:
            raise MediaError(f"{wanted[0][0].name}: {results[0]}; nor could any other source of its batch be read")
        filled = [good[i % len(good)] for i in range(len(wanted))]
        return Batch(torch.from_numpy(np.stack([pixels for _, pixels in filled])), tuple(name for name, _ in filled))
