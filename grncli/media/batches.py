"""Sources as batches of clips of one shape, and back to sources: where a network meets media.

Sources go through in *groups*, and no batch spans two of them. Which batch a clip is in, and where a group ends,
depends on nothing but the sources since the last group: work that resumes at the end of a group makes the same batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.media.decoder import DecoderPool, Done
from grncli.media.reading import Piece, ReadSettings
from grncli.media.sources import Source
from grncli.runtime.overlap import Prefetcher
from grncli.runtime.stopping import Stop

BATCH_PIXELS = 2**20  # of an automatic batch: 16 images of 256x256
MAX_BATCH = 64
GROUP_PIXELS = 2**26  # 200 MB of decoded frames may wait for their batch
AHEAD = 3  # batches that are read before they are needed

Shape = tuple[int, int, int]


@dataclass(eq=False)
class SourceClip:
    """One picture or clip of a source: pixels until its batch is made, then what the caller computes of them."""

    number: int | None  # of the window in its clip
    start: float | None
    fps: float | None
    shape: Shape  # frames, height, width
    flip: bool  # mirrored
    pixels: NDArray[np.uint8] | None
    enlarged: bool = False  # scaled up
    result: Any = None
    error: str | None = None  # why there is no result


@dataclass
class ReadSource:
    """A source with its clips, or the reason why there are none."""

    position: int
    source: Source
    clips: list[SourceClip]
    error: str | None
    note: str | None

    def settle(self) -> None:
        """Once every batch has run: a source fails as a whole where one of its clips has no result."""
        self.error = self.error or next((clip.error for clip in self.clips if clip.error), None)
        if self.error is not None:
            self.clips = []


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one shape, as uint8 ``[B, T, H, W, 3]``."""

    frames: Tensor
    clips: Sequence[SourceClip]


@dataclass(frozen=True)
class SourceGroup:
    """Neighbouring sources, all clips of which were in batches before."""

    sources: list[ReadSource] = field(default_factory=list)


@contextmanager
def media_batches(
    sources: Sequence[Source],
    reading: ReadSettings,
    positions: Sequence[int] | None = None,
    *,
    workers: int,
    batch: int | None = None,
    flip: bool = False,
    stop: Stop | None = None,
    patience: float = 0.0,
) -> Iterator[Iterator[ClipBatch | SourceGroup]]:
    """Batches of media, decoded ahead of their use, each group of sources behind its last batch.

    Parameters
    ----------
    positions : which of ``sources`` are read, in this order; all by default
    workers : decoding processes, see `DecoderPool`
    batch : clips of a full batch; by default `automatic_batch` of their shape
    flip : add the mirrored clip after each clip
    stop, patience : the iteration ends, as at its end, where ``stop`` asks for it and no batch is ready for this many
        seconds: a decoder may hang
    """
    stop = stop or Stop()
    chosen = range(len(sources)) if positions is None else positions
    with (
        DecoderPool(workers) as pool,
        Prefetcher(
            _read_batches(pool, sources, reading, chosen, BatchGatherer(batch, flip)),
            AHEAD,
            stop_when=lambda waited: waited >= patience and stop.reason is not None,
            abandon=pool.abandon,
        ) as batches,
    ):
        yield batches


def automatic_batch(frames: int, height: int, width: int) -> int:
    """Clips of this many pixels that go through a network together."""
    return max(1, min(MAX_BATCH, BATCH_PIXELS // (frames * height * width)))


def _read_batches(
    pool: DecoderPool,
    sources: Sequence[Source],
    reading: ReadSettings,
    positions: Sequence[int],
    gatherer: "BatchGatherer",
) -> Iterator[ClipBatch | SourceGroup]:
    for index, event in pool.read((sources[position] for position in positions), reading):
        if isinstance(event, Done):
            gatherer.end_source(positions[index], sources[positions[index]], event)
            if gatherer.is_full or index == len(positions) - 1:
                yield from gatherer.end_group()
        else:
            yield from gatherer.add(event)


class BatchGatherer:
    """Collects clips into batches of one shape, and sources into groups."""

    def __init__(self, batch: int | None, flip: bool) -> None:
        self._batch = batch
        self._flips = (False, True) if flip else (False,)
        self._current: list[SourceClip] = []  # of the source being read
        self._begin_group()

    def _begin_group(self) -> None:
        self._sources: list[ReadSource] = []
        self._pending: dict[Shape, list[SourceClip]] = {}
        self._clips = self._pixels = 0

    def add(self, piece: Piece) -> Iterator[ClipBatch]:
        """Take one clip of the current source; yields a batch when one is full."""
        frames, height, width, _ = piece.pixels.shape
        shape = (frames, height, width)
        full = self._batch or automatic_batch(*shape)
        for flip in self._flips:
            clip = SourceClip(piece.clip, piece.start, piece.fps, shape, flip, piece.pixels, piece.enlarged)
            self._current.append(clip)
            waiting = self._pending.setdefault(shape, [])
            waiting.append(clip)
            self._clips += 1
            self._pixels += frames * height * width
            if len(waiting) == full:
                yield stack_clips(self._pending.pop(shape))

    def end_source(self, position: int, source: Source, done: Done) -> None:
        """The current source is read, or has failed: then its clips are dropped."""
        if done.error is not None:
            dropped = set(self._current)
            for shape, waiting in self._pending.items():
                self._pending[shape] = [clip for clip in waiting if clip not in dropped]
            self._current = []
        self._sources.append(ReadSource(position, source, self._current, done.error, done.note))
        self._current = []

    @property
    def is_full(self) -> bool:
        """Whether the group should end here: best where no batch is left half filled."""
        batch = self._batch or MAX_BATCH
        return (
            (self._clips > 0 and not any(self._pending.values()))
            or self._clips >= 4 * batch
            or self._pixels >= GROUP_PIXELS
            or len(self._sources) >= 8 * batch
        )

    def end_group(self) -> Iterator[ClipBatch | SourceGroup]:
        """Yield what is left as smaller batches, then the group."""
        yield from (stack_clips(waiting) for waiting in self._pending.values() if waiting)
        yield SourceGroup(self._sources)
        self._begin_group()


def stack_clips(clips: Sequence[SourceClip]) -> ClipBatch:
    """Clips of one shape as a batch, mirrored where they are to be; frees their own pixels."""
    frames = torch.empty(len(clips), *clips[0].shape, 3, dtype=torch.uint8)
    for row, clip in zip(frames.numpy(), clips, strict=True):
        assert clip.pixels is not None
        row[:] = clip.pixels[:, :, ::-1] if clip.flip else clip.pixels
        clip.pixels = None
    return ClipBatch(frames, clips)
