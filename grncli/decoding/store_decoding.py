"""``grn decode``: a bit store back to pictures and clips, and how far they are from their sources."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.comparing import Quality, Sheet, SourceFrames
from grncli.decoding.outputs import OutputFolder
from grncli.hbq import dequantize, unpack
from grncli.media.writing import write_png
from grncli.models.tokenizer import Tokenizer, to_frames
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import UsageError
from grncli.runtime.overlap import Behind
from grncli.runtime.stopping import Stop, Stopped
from grncli.store import BitStore, open_store

BATCH_PIXELS = 2**20
MAX_BATCH = 64

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """The options of ``grn decode``."""

    rounds: int | None = None  # decode the first m planes only; None takes all
    select: tuple[int | None, int | None, int | None] = (None, None, None)  # samples A:B:S
    sheet: Path | None = None
    compare: str | None = None  # SRC of the store, to measure against
    device: str = "cpu"
    batch: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Summary:
    """What ``decode`` wrote."""

    written: int
    present: int  # files of an earlier, interrupted run
    complete: bool  # whether the store was
    quality: Quality


def decode(
    store_path: Path,
    folder: Path,
    run: str | Path,
    settings: DecodeSettings,
    *,
    stop: Stop | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Decode samples of a store with the tokenizer that made it: PNG for images, MP4 for clips, named by their key.

    ``say`` is told in a sentence where the tokenizer's training is not finished.

    Raises
    ------
    Stopped
        If ``stop`` asked for it; files written so far are whole, and the same command goes on.
    StoreMismatch, StoreError, CheckpointError, UsageError
    """
    store = open_store(store_path)
    loaded = open_tokenizer(run, say=say)
    rounds = check_fit(store, store_path, loaded, settings.rounds)
    indices = range(len(store))[slice(*settings.select)]
    if not indices:
        raise UsageError(f"--select picks none of the {len(store)} samples of {store_path}")
    if settings.sheet is not None and not settings.sheet.absolute().parent.is_dir():
        raise UsageError(f"--sheet {settings.sheet}: there is no such folder, expected one that exists")
    sources = SourceFrames(settings.compare, store) if settings.compare is not None else None
    outputs = OutputFolder(folder, store, rounds, overwrite=settings.overwrite)
    decoder = Decoder(store, loaded.network.to(settings.device), rounds, settings)
    sheet = Sheet(len(indices)) if settings.sheet is not None else None
    quality, stop = Quality(), stop or Stop()
    measured = sheet is not None or sources is not None  # which takes the pixels of all

    def is_done(rows: Sequence[int]) -> bool:
        if measured or not all(outputs.has(i, store.record(i), clip=store.grid_of(i)[0] > 1) for i in rows):
            return False
        outputs.present += len(rows)
        return True

    with outputs, Behind() as behind:
        for made, (rows, bits) in enumerate(decoder.batches(indices, is_done)):
            if made and stop.reason:  # something remains of each call, so that short ones come to the end too
                behind.wait()
                raise Stopped(f"{stop.reason}: stopped after {indices.index(rows[0])} of {len(indices)} samples")
            for index, frames in zip(rows, decoder.decode(bits), strict=True):
                record = store.record(index)
                behind.submit(partial(outputs.write, index, record, frames))
                original = sources.find(record) if sources is not None else None
                if sources is not None:
                    quality.add(frames, original)
                if sheet is not None:
                    sheet.add(frames, original, record)
                report(indices.index(index) + 1, len(indices), "")
        behind.wait()
        outputs.finish()
    if settings.sheet is not None and sheet is not None:
        write_png(settings.sheet, sheet.picture())
    return Summary(outputs.written, outputs.present, store.complete, quality)


def check_fit(store: BitStore, path: Path, loaded: LoadedTokenizer, rounds: int | None) -> int:
    """Refuse bits of another tokenizer; returns the number of rounds to decode.

    Raises
    ------
    StoreMismatch, UsageError
    """
    require_fit(BitFormat.of_store(store), BitFormat.of_tokenizer(loaded), "give the run that made it")
    if rounds is not None and not 1 <= rounds <= store.rounds:
        raise UsageError(f"--rounds {rounds}: {path} holds {store.rounds} rounds, expected 1 to {store.rounds}")
    return rounds or store.rounds


class Decoder:
    """Bits to frames, in batches of neighbouring samples of one grid."""

    def __init__(self, store: BitStore, tokenizer: Tokenizer, rounds: int, settings: DecodeSettings) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self.rounds = rounds
        self.batch = settings.batch
        self.device = torch.device(settings.device)

    def batches(
        self, indices: Sequence[int], is_done: Callable[[Sequence[int]], bool] = lambda rows: False
    ) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
        """Indices and packed bits ``[n, t, h, w, m, bytes]`` of neighbouring samples of one grid.

        What is left out is whole batches: pixels may depend on the size of the batch they are computed in.
        """
        for grid, neighbours in groupby(indices, key=self.store.grid_of):
            rows = list(neighbours)
            size = self.batch or self._automatic(grid)
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                if not is_done(chosen):
                    yield chosen, self.store.read(chosen, rounds=self.rounds)

    def decode(self, bits: NDArray[np.uint8]) -> Frames:
        """Packed bits ``[n, t, h, w, m, bytes]`` to uint8 ``[n, T, H, W, 3]``."""
        packed = torch.from_numpy(bits).to(self.device)
        return decode_index(self.tokenizer, unpack(packed, self.store.channels, self.rounds), self.rounds)

    def _automatic(self, grid: tuple[int, int, int]) -> int:
        t, h, w = (n * s for n, s in zip(grid, self.store.stride, strict=True))
        return max(1, min(MAX_BATCH, BATCH_PIXELS // (t * h * w)))


def decode_index(tokenizer: Tokenizer, index: Tensor, rounds: int) -> Frames:
    """Indices ``[B, C, t, h, w]`` of ``rounds`` rounds, on the tokenizer's device, to uint8 ``[B, T, H, W, 3]``."""
    with torch.inference_mode():
        pixels = tokenizer.decode(dequantize(index, rounds))
    return to_frames(pixels).cpu().numpy()
