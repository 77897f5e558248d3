"""``grn decode``: a bit store back to pictures and clips, and how far they are from their sources."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.comparing import Comparison, Quality, SourceFrames
from grncli.decoding.output_form import PNG_FILES, OutputForm
from grncli.decoding.outputs import OutputFolder
from grncli.decoding.shards import ShardFolder
from grncli.hbq import dequantize, unpack
from grncli.media.batches import automatic_batch
from grncli.media.writing import Frames, write_png
from grncli.models.tokenizer import Tokenizer
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import UsageError
from grncli.runtime.files import check_file
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter
from grncli.runtime.stopping import Stopped
from grncli.runtime.writer_status import reporting
from grncli.store import BitStore, open_store


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """The options of ``grn decode``."""

    rounds: int | None = None  # decode the first m planes only; None takes all
    select: tuple[int | None, int | None, int | None] = (None, None, None)  # samples A:B:S
    sheet: Path | None = None
    compare: str | None = None  # SRC of the store, to measure against
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch: int | None = None
    overwrite: bool = False
    form: OutputForm = PNG_FILES  # of the files


@dataclass(frozen=True)
class DecodingSummary:
    """What ``decode`` wrote."""

    out: Path  # the folder
    written: int  # samples, each of which is a file or lies in a shard
    present: int  # those of an earlier, interrupted run
    complete: bool  # whether the store was
    quality: Quality


def decode(
    store_path: Path, folder: Path, run: str | Path, settings: DecodeSettings, *, monitor: Monitor | None = None
) -> DecodingSummary:
    """Decode samples of a store with the tokenizer that made it: pictures and MP4 clips, named by their key, or shards.

    Raises
    ------
    Stopped
        If the monitor's stop asks for it; files written so far are whole, and the same command resumes.
    StoreMismatch, StoreError, CheckpointError, UsageError
    """
    monitor = monitor or Monitor()
    store, loaded, rounds, indices = open_selected(store_path, run, settings, monitor)
    sources = SourceFrames(settings.compare, store) if settings.compare is not None else None
    outputs = open_outputs(folder, store, rounds, indices, settings)
    network = loaded.network.to(settings.device)
    decoder = StoreDecoder(store, network, rounds, settings.batch, settings.device, DTYPES[settings.dtype])
    comparison = Comparison(sources, len(indices) if settings.sheet is not None else 0)
    with outputs, reporting(folder, "decode", "samples", monitor, at_once=True) as reported:
        _decode(decoder, indices, outputs, comparison, reported)
        outputs.finish()
    if settings.sheet is not None:
        write_png(settings.sheet, comparison.sheet())
    return DecodingSummary(folder, outputs.written, outputs.present, store.complete, comparison.quality)


def open_selected(
    store_path: Path, run: str | Path, settings: DecodeSettings, monitor: Monitor
) -> tuple[BitStore, LoadedTokenizer, int, range]:
    """The store, the tokenizer that made it, and which rounds of which samples to decode; GrnError where none fit."""
    if settings.sheet is not None:
        check_file(settings.sheet)
    store = open_store(store_path)
    loaded = open_tokenizer(run, say=monitor.say)
    rounds = check_fit(store, store_path, loaded, settings.rounds)
    indices = range(len(store))[slice(*settings.select)]
    if not indices:
        raise UsageError(f"--select picks none of the {len(store)} samples of {store_path}")
    return store, loaded, rounds, indices


def open_outputs(folder: Path, store: BitStore, rounds: int, indices: range, settings: DecodeSettings) -> OutputFolder:
    """The folder of files or of shards that the settings ask for."""
    form, dtype, overwrite = settings.form, settings.dtype, settings.overwrite
    if form.shard_size is None:
        return OutputFolder(folder, store, rounds, form, dtype=dtype, overwrite=overwrite)
    return ShardFolder(folder, store, rounds, form, indices, dtype=dtype, overwrite=overwrite)


def _decode(
    decoder: "StoreDecoder", indices: range, outputs: OutputFolder, comparison: Comparison, monitor: Monitor
) -> None:
    """Decode samples into files, except batches that an earlier run has written and that are not compared."""
    decoded = 0
    with BackgroundWriter() as writer:
        for rows in decoder.batched(indices):
            records = list(decoder.store.records(rows))
            if not comparison.wanted and outputs.have(rows, records, clips=decoder.store.grid_of(rows[0])[0] > 1):
                continue
            if decoded and (reason := monitor.stop_reason):  # each call decodes something, so that short ones end too
                writer.wait()
                raise Stopped(f"{reason}: stopped after {indices.index(rows[0])} of {len(indices)} samples")
            for index, record, frames in zip(rows, records, decoder.decode(decoder.read(rows)), strict=True):
                writer.submit(partial(outputs.write, index, record, frames))
                comparison.add(frames, record)
                monitor.progress(indices.index(index) + 1, len(indices), "")
            decoded += len(rows)
        writer.wait()


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


class StoreDecoder:
    """Bits to frames, in batches of neighbouring samples of one grid.

    Parameters
    ----------
    rounds : how many are read and decoded
    batch : samples of a batch; by default `automatic_batch` of their pixels
    dtype : of the arithmetic; the weights stay in float32
    """

    def __init__(
        self,
        store: BitStore,
        tokenizer: Tokenizer,
        rounds: int,
        batch: int | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self.rounds = rounds
        self.device = torch.device(device)
        self._dtype = dtype
        self._batch = batch

    def batched(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Neighbouring ``indices`` of samples of one grid that are decoded together.

        Pixels may depend on the size of the batch they are computed in, so that only whole batches are left out.
        """
        for grid, neighbours in groupby(indices, key=self.store.grid_of):
            rows = list(neighbours)
            frames, height, width = (n * s for n, s in zip(grid, self.store.stride, strict=True))
            size = self._batch or automatic_batch(frames, height, width)
            for start in range(0, len(rows), size):
                yield rows[start : start + size]

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Packed bits ``[n, t, h, w, m, bytes]`` of samples of one grid."""
        return self.store.read(indices, rounds=self.rounds)

    def batches(self, indices: Sequence[int]) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
        """Each batch of ``indices`` with its packed bits."""
        for rows in self.batched(indices):
            yield rows, self.read(rows)

    def decode(self, bits: NDArray[np.uint8]) -> Frames:
        """Packed bits ``[n, t, h, w, m, bytes]`` to uint8 ``[n, T, H, W, 3]``."""
        packed = torch.from_numpy(bits).to(self.device)
        index = unpack(packed, self.store.channels, self.rounds)
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return decode_index(self.tokenizer, index, self.rounds)


def decode_index(tokenizer: Tokenizer, index: Tensor, rounds: int) -> Frames:
    """Indices ``[B, C, t, h, w]`` of ``rounds`` rounds, on the tokenizer's device, to uint8 ``[B, T, H, W, 3]``."""
    return decode_feature(tokenizer, dequantize(index, rounds)).cpu().numpy()


def decode_feature(tokenizer: Tokenizer, feature: Tensor) -> Tensor:
    """Feature ``[B, C, t, h, w]`` to uint8 ``[B, T, H, W, 3]``, on its device, in bounded memory."""
    with torch.inference_mode():
        return tokenizer.decode_frames(feature)
