"""From decoded sources to batches for the network, and back to sources: groups, and clips of one shape.

What is gathered how depends on nothing but the sources since the last group ended, so that a resumed run, which starts
at the end of a group, makes the same batches as one that was never stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.media.decoder import Done
from grncli.media.reading import Piece
from grncli.media.sources import Source

BATCH_PIXELS = 2**20  # of an automatic batch: 16 images of 256x256
MAX_BATCH = 64
GROUP_PIXELS = 2**26  # 200 MB of decoded frames may wait for their batch


@dataclass
class Clip:
    """One sample on its way: pixels until its batch has run, then bits."""

    piece: Piece | None
    start: float | None
    fps: float | None
    frames: int
    number: int | None
    flip: bool
    bits: NDArray[np.uint8] | None = None
    error: str | None = None  # why it could not be encoded


@dataclass
class Read:
    """A source with its samples, or the reason why there are none."""

    position: int
    source: Source
    clips: list[Clip] = field(default_factory=list)
    error: str | None = None
    note: str | None = None

    def settle(self) -> None:
        """Once every batch has run: a source of which a clip could not be encoded has failed as a whole."""
        self.error = self.error or next((clip.error for clip in self.clips if clip.error), None)
        if self.error is not None:
            self.clips = []


@dataclass
class Group:
    """Neighbouring sources that are encoded and committed together."""

    reads: list[Read] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """What the reader hands to the network: a batch of clips of one shape, or the end of a group."""

    frames: Tensor | None  # uint8 [B, T, H, W, 3]
    clips: Sequence[Clip]
    ended: Group | None = None


class Gatherer:
    """Collects clips into batches of one shape, and sources into groups; depends on nothing but what it is given.

    Parameters
    ----------
    batch : samples of a full batch; None makes it depend on their shape
    flip : add the mirrored clip behind each clip
    """

    def __init__(self, batch: int | None, flip: bool) -> None:
        self.batch = batch
        self.flip = flip
        self.group = Group()
        self.current: list[Clip] = []  # of the source being read
        self.pending: dict[tuple[int, ...], list[Clip]] = {}
        self.samples = 0
        self.pixels = 0

    def add(self, piece: Piece) -> Iterator[Work]:
        """Take one clip of the current source; yields a batch when one is full."""
        shape = piece.pixels.shape
        size = self._full(shape)
        for flip in (False, True) if self.flip else (False,):
            clip = Clip(piece, piece.start, piece.fps, len(piece.pixels), piece.clip, flip)
            self.current.append(clip)
            waiting = self.pending.setdefault(shape, [])
            waiting.append(clip)
            self.samples += 1
            self.pixels += piece.pixels.size // 3
            if len(waiting) == size:
                yield batch_of(self.pending.pop(shape))

    def end_source(self, position: int, source: Source, done: Done) -> None:
        """The current source is read, or has failed: then its clips are dropped."""
        if done.error is not None:
            dropped = set(map(id, self.current))
            for shape, waiting in list(self.pending.items()):
                self.pending[shape] = [clip for clip in waiting if id(clip) not in dropped]
            self.current = []
        self.group.reads.append(Read(position, source, self.current, done.error, done.note))
        self.current = []

    @property
    def is_full(self) -> bool:
        """Whether the group should end here: best where no batch is left half filled."""
        batch = self.batch or MAX_BATCH
        return (
            (self.samples > 0 and not any(self.pending.values()))
            or self.samples >= 4 * batch
            or self.pixels >= GROUP_PIXELS
            or len(self.group.reads) >= 8 * batch
        )

    def end_group(self) -> Iterator[Work]:
        """Yield what is left as smaller batches, then the group."""
        for waiting in self.pending.values():
            if waiting:
                yield batch_of(waiting)
        yield Work(None, (), self.group)
        self.group, self.pending, self.samples, self.pixels = Group(), {}, 0, 0

    def _full(self, shape: tuple[int, ...]) -> int:
        frames, height, width, _ = shape
        automatic = max(1, min(MAX_BATCH, BATCH_PIXELS // (frames * height * width)))
        return self.batch or automatic


def batch_of(clips: Sequence[Clip]) -> Work:
    """Stack clips of one shape, mirrored where they are to be, and let go of their pixels."""
    frames = torch.empty(len(clips), *_pixels(clips[0]).shape, dtype=torch.uint8)
    for row, clip in zip(frames.numpy(), clips, strict=True):
        pixels = _pixels(clip)
        row[:] = pixels[:, :, ::-1] if clip.flip else pixels
        clip.piece = None
    return Work(frames, clips)


def _pixels(clip: Clip) -> NDArray[np.uint8]:
    assert clip.piece is not None
    return clip.piece.pixels


def bits_of(clip: Clip) -> NDArray[np.uint8]:
    """Bits of a clip whose batch has run."""
    assert clip.bits is not None
    return clip.bits


def neighbours_of_one_grid(
    reads: Sequence[Read],
) -> Iterator[tuple[tuple[int, int, int], list[tuple[Read, Clip]]]]:
    """The samples of a group in order, cut where the latent grid changes."""
    run: list[tuple[Read, Clip]] = []
    grid: tuple[int, ...] = ()
    for read in reads:
        for clip in read.clips:
            shape = bits_of(clip).shape[:3]
            if run and shape != grid:
                yield (grid[0], grid[1], grid[2]), run
                run = []
            grid = shape
            run.append((read, clip))
    if run:
        yield (grid[0], grid[1], grid[2]), run
