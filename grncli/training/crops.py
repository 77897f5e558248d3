"""Random crops of images and clips as batches: which ones a step takes, and reading them ahead of the network."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count, islice
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.media.decoder import DecoderPool
from grncli.media.random_crops import Crop
from grncli.media.selection import evenly_spread
from grncli.media.sources import Source
from grncli.runs.tokenizer_recipe import ClipData, Data, ImageData
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.monitor import Say
from grncli.runtime.overlap import Prefetcher
from grncli.runtime.processes import Processes
from grncli.training.objective import Batch


class CropSampler:
    """Which crops step s trains on, from (seed, s) alone.

    A step takes images or clips, never both, so that a batch has one shape. Each kind walks through its sources in
    epochs, each epoch in an order of its own.
    """

    def __init__(self, data: Data, sources: Sequence[Source], seed: int, src: str) -> None:
        self.data, self.seed = data, seed
        kinds = {"image": data.image, "clip": data.clip}
        self.media = {kind: media for kind, media in kinds.items() if media is not None}
        self.sources: dict[str, list[Source]] = {}  # of each kind, to train on
        self.held_out: dict[str, list[Source]] = {}
        for kind, media in self.media.items():
            usable = [source for source in sources if source.problem is None and source.kind == kind]
            self._divide(kind, media, usable, src)
        self.clip_share = 0.0 if data.clip is None else 1.0 if data.image is None else data.clip.share
        self.clip_start = 0 if data.clip is None else data.clip.start

    def _divide(self, kind: str, media: ImageData | ClipData, usable: Sequence[Source], src: str) -> None:
        """Sources of one kind to train on, and those held out, spread evenly over the listing."""
        if not usable:
            raise UsageError(
                f"{src} holds no {kind}s, which the recipe's data.{kind} wants; add some or set data.{kind}=null"
            )
        chosen = set(evenly_spread(self.data.validation, len(usable)))
        left = [source for i, source in enumerate(usable) if i not in chosen]
        if len(left) < media.batch:
            held = f" ({len(chosen)} more are held out)" if chosen else ""
            raise UsageError(
                f"{src} holds {len(left)} {kind}s to train on{held}, expected at least one batch, "
                f"data.{kind}.batch={media.batch}; add some, or make the batch smaller"
            )
        self.sources[kind], self.held_out[kind] = left, [usable[i] for i in sorted(chosen)]

    def step(self, step: int) -> list[tuple[Source, Crop]]:
        """Sources and crops of a step, counted from 0."""
        clips_before = self._clip_steps(step)
        is_clip = self._clip_steps(step + 1) > clips_before
        kind, turn = ("clip", clips_before) if is_clip else ("image", step - clips_before)
        media, sources = self.media[kind], self.sources[kind]
        crops = []
        for item in range(media.batch):
            epoch, place = divmod(turn * media.batch + item, len(sources))
            source = sources[self._order(kind, len(sources), epoch)[place]]
            crops.append((source, self.crop(media, [self.seed, step, item])))
        return crops

    def _clip_steps(self, step: int) -> int:
        """How many of the steps before this one train on clips."""
        return floor(max(0, step - self.clip_start) * self.clip_share)

    def crop(self, media: ImageData | ClipData, entropy: Sequence[int]) -> Crop:
        """A random crop whose draws come from ``entropy``."""
        frames, fps = (media.frames, media.fps) if isinstance(media, ClipData) else (1, None)
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return Crop(size=media.size, frames=frames, fps=fps, scale=media.scale, flip=self.data.flip, seed=seed)

    @lru_cache(maxsize=4)  # noqa: B019 - the sampler lives as long as the run
    def _order(self, kind: str, sources: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, len(kind)]).permutation(sources)


class CropLoader:
    """Reads the crops of steps in worker processes, ahead of the network; of several processes each its share."""

    def __init__(self, sampler: CropSampler, pool: DecoderPool, processes: Processes, say: Say) -> None:
        self.sampler = sampler
        self.pool = pool
        self.processes = processes
        self.say = say
        self._warned: set[str] = set()

    def batches(self, first_step: int) -> Generator[Batch]:
        """Batches from ``first_step`` on, uint8 ``[B, T, S, S, 3]``; a thread decodes ahead of the network."""
        with Prefetcher(self._decode(first_step), depth=4, abandon=self.pool.abandon) as ahead:
            yield from ahead

    def fixed(self, most: int) -> dict[str, list[Tensor]]:
        """Crops for previews, one for each of up to ``most`` sources of a kind: uint8 ``[T, S, S, 3]``."""
        return self._centred(
            {kind: own[:: max(1, len(own) // most)][:most] for kind, own in self.sampler.sources.items()}
        )

    def held_out(self) -> dict[str, list[Tensor]]:
        """A crop of each source that is held out, as ``fixed`` gives them."""
        return self._centred(self.sampler.held_out)

    def _centred(self, sources: Mapping[str, Sequence[Source]]) -> dict[str, list[Tensor]]:
        """Crops of full height that are the same whenever they are asked for; kinds of which one can be read."""
        centred = {}
        for kind, own in sources.items():
            media = self.sampler.media[kind]
            crops = [replace(self.sampler.crop(media, [i]), scale=(1.0, 1.0), flip=0.0) for i in range(len(own))]
            results = self.pool.crops(zip(own, crops, strict=True)) if own else []
            good = [torch.from_numpy(pixels) for pixels in results if not isinstance(pixels, MediaError)]
            if good:
                centred[kind] = good
        return centred

    def _share(self, step: int) -> list[tuple[Source, Crop]]:
        return self.sampler.step(step)[self.processes.rank :: self.processes.count]

    def _decode(self, first_step: int) -> Iterator[Batch]:
        results = self.pool.crops(crop for step in count(first_step) for crop in self._share(step))
        for step in count(first_step):
            wanted = self._share(step)
            yield self._batch(wanted, list(islice(results, len(wanted))))

    def _numbers(self, count: int) -> Tensor:
        """Places in a step's batch of all processes, int64 ``[B]``: draws depend on them, whatever the processes."""
        return torch.arange(count) * self.processes.count + self.processes.rank

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
        pixels = torch.from_numpy(np.stack([pixels for _, pixels in filled]))
        return Batch(pixels, tuple(name for name, _ in filled), numbers=self._numbers(len(filled)))
