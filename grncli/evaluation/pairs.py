"""Pairs of originals and reconstructions: media through a tokenizer, a store and its sources, two folders."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.comparing import SourceFrames
from grncli.decoding.store_decoding import decode_feature
from grncli.evaluation.measuring import Measured, PictureReading, Pictures, R, show_size
from grncli.evaluation.pair_names import match
from grncli.evaluation.picture_sources import MediaPictures, StorePictures, is_store, open_once, open_pictures
from grncli.hbq import MAX_ROUNDS, dequantize, prefix, quantize, unpack
from grncli.media.writing import Frames
from grncli.models.tokenizer import Tokenizer
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.errors import GrnError, MediaError, UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.urls import located

Rounds = int | None  # None is the continuous feature


@dataclass(frozen=True)
class Version:
    """The reconstruction of a batch from one number of rounds."""

    frames: Tensor
    """uint8 ``[B, T, H, W, 3]``."""
    errors: Tensor | None = None
    """Distance ``[B, n]`` of each feature from what it was before quantization, where it was quantized here."""


Measure = Callable[[Tensor, Iterable[Version]], Sequence[R]]
"""Gets originals uint8 ``[B, T, H, W, 3]`` and a version of them for each row, and gives B results."""


class Pairs(ABC):
    """Originals and their reconstructions."""

    pictures: Pictures
    rows: list[tuple[Rounds, str]]
    tokenizer: dict[str, str] | None = None

    @property
    def failed(self) -> int:
        """Pictures that could not be read so far, on either side."""
        return self.pictures.failed

    @abstractmethod
    def compare(self, measure: Measure[R], share: tuple[int, int], monitor: Monitor) -> Iterator[Measured[R]]:
        """Every sample of a share, measured; ends early where ``monitor`` says so."""


class Reencoded(Pairs):
    """Pictures, through a tokenizer and back: encoded once, and decoded from each number of rounds."""

    def __init__(self, pictures: Pictures, loaded: LoadedTokenizer, rounds: Sequence[Rounds] | None) -> None:
        self.pictures = pictures
        self.tokenizer = loaded.identity
        self.rows = [(m, round_label(m)) for m in rounds or [loaded.network.rounds]]
        self._network = loaded.network

    def compare(self, measure: Measure[R], share: tuple[int, int], monitor: Monitor) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""
        device = next(self._network.parameters()).device

        def compute(frames: Tensor) -> Sequence[R]:
            frames = frames.to(device)
            return measure(frames, reencode(self._network, frames, [m for m, _ in self.rows]))

        return self.pictures.measure(compute, share=share, monitor=monitor)


class Stored(Pairs):
    """The samples of a bit store, and the sources they were made from."""

    def __init__(
        self, pictures: StorePictures, compare: str | None, rounds: Sequence[Rounds] | None, *, strict: bool
    ) -> None:
        if compare is None:
            raise UsageError(f"{pictures.src} is a bit store: expected --compare SRC, the media that it was made from")
        self.pictures = pictures
        self._sources = SourceFrames(compare, pictures.store)
        self.tokenizer = {name: str(value) for name, value in pictures.store.fingerprint.tokenizer.items()}
        stored = pictures.store.rounds
        rounds = rounds or [stored]
        if any(m is None or m > stored for m in rounds):
            raise UsageError(
                f"--rounds: {pictures.src} holds {stored} rounds and no continuous feature, expected 1 to {stored}"
            )
        self.rows = [(m, round_label(m)) for m in rounds]
        self._store = pictures
        self._strict = strict

    def compare(self, measure: Measure[R], share: tuple[int, int], monitor: Monitor) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""
        device = self._store.decoder.device
        for places, indices, bits in self._store.batches(share):
            shape = _pixels_of(bits, self._store.store.stride)
            records = list(self._store.store.records(indices))
            sources = [(row, self._find(record, shape, monitor.say)) for row, record in enumerate(records)]
            known = [(row, frames) for row, frames in sources if frames is not None]
            if known:
                packed = torch.from_numpy(bits[[row for row, _ in known]]).to(device)
                originals = torch.from_numpy(np.stack([frames for _, frames in known])).to(device)
                results = measure(originals, self._versions(packed))
                for (row, _), result in zip(known, results, strict=True):
                    yield Measured(places[row], str(records[row]["key"]), tuple(originals.shape[1:4]), result)
            if monitor.stop_reason:
                return

    def _versions(self, packed: Tensor) -> Iterator[Version]:
        decoder = self._store.decoder
        index_map = unpack(packed, self._store.store.channels, decoder.rounds)
        for m, _ in self.rows:
            yield Version(
                decode_feature(decoder.tokenizer, dequantize(prefix(index_map, decoder.rounds, m or 0), m or 0))
            )

    def _find(self, record: dict[str, Any], shape: tuple[int, ...], say: Say) -> Frames | None:
        frames, name = self._sources.find(record), record["key"]
        if frames is None:
            text = f"{name}: its source is gone or cannot be read"
            if self._strict:
                raise MediaError(text)
            self.pictures.failed += 1
            say(f"{text}; skipped")
        elif frames.shape[:3] != shape:
            raise UsageError(_unequal(f"the source of {name}", frames.shape, "its decoding", shape))
        return frames


class Foreign(Pairs):
    """Media, and a folder of reconstructions that others made of them."""

    def __init__(self, pictures: MediaPictures, reconstructions: str, reading: PictureReading) -> None:
        self.pictures = pictures
        self._others = MediaPictures(reconstructions, replace(reading, limit=None, sample=None))
        partly = not reading.selection.takes_all
        pairs = match(pictures.sources, self._others.sources, pictures.src, reconstructions, partly=partly)
        self._others.sources = [theirs for _, theirs in pairs]
        self.rows = [(None, PurePosixPath(reconstructions).name)]

    @property
    def failed(self) -> int:
        """See `Pairs.failed`."""
        return self.pictures.failed + self._others.failed

    def compare(self, measure: Measure[R], share: tuple[int, int], monitor: Monitor) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""
        left = _by_source(self.pictures.measure(list, share=share, monitor=monitor))
        right = _by_source(self._others.measure(list, share=share, monitor=monitor))
        for ours, theirs in _together(left, right):
            if len(ours) != len(theirs):
                raise UsageError(
                    f"{ours[0].name} gives {len(ours)} windows and {theirs[0].name} {len(theirs)}; expected as many"
                )
            for a, b in zip(ours, theirs, strict=True):
                if a.shape != b.shape:
                    raise UsageError(_unequal(a.name, a.shape, b.name, b.shape))
                yield Measured(a.place, a.name, a.shape, measure(a.result[None], [Version(b.result[None])])[0])
            if monitor.stop_reason:
                return


def open_pairs(
    src: str,
    reading: PictureReading,
    rounds: Sequence[Rounds] | None,
    compare: str | None,
    reconstructions: str | None,
    *,
    say: Say = lambda text: None,
) -> Pairs:
    """Originals and their reconstructions; UsageError where the options do not name both.

    Parameters
    ----------
    rounds : to decode from; None takes those that the store holds or the tokenizer was trained for
    compare : media that a store was made from
    reconstructions : media that others decoded, under the names of those in ``src``
    say : gets a sentence for what is doubtful about pictures or tokenizer
    """
    if is_store(src):
        if reconstructions is not None:
            raise UsageError("--reconstructions goes with media; the bits of a store are decoded")
        return Stored(StorePictures(located(src), reading, say=say), compare, rounds, strict=reading.strict)
    if compare is not None:
        raise UsageError(f"--compare goes with a bit store, and {src} is none")
    if (reading.tokenizer is None) == (reconstructions is None):
        raise UsageError("give either --tokenizer RUN, or --reconstructions SRC2 with what others made of the pictures")
    if reading.tokenizer is not None:
        loaded = open_once(reading.tokenizer, reading.device, say)
        pictures = open_pictures(src, replace(reading, stride=loaded.network.stride), say=say)
        return Reencoded(pictures, loaded, rounds)
    for option, value in (("--rounds", rounds), ("--budget", reading.budget)):
        if value is not None:
            raise UsageError(f"{option} goes with --tokenizer; reconstructions are there already")
    return Foreign(MediaPictures(src, reading, say=say), str(reconstructions), reading)


def reencode(tokenizer: Tokenizer, frames: Tensor, rounds: Sequence[Rounds]) -> Iterator[Version]:
    """uint8 ``[B, T, H, W, 3]`` through a tokenizer and back, from each number of rounds; None is continuous.

    The first m rounds of a finer quantization are the m-round quantization, so the feature is quantized once; GrnError
    where it has a NaN.
    """
    with torch.inference_mode():
        feature = tokenizer.encode_frames(frames)
    try:
        index = quantize(feature, MAX_ROUNDS)
    except ValueError as error:
        raise GrnError(str(error)) from None
    for m in rounds:
        if m is None:
            yield Version(decode_feature(tokenizer, feature))
        else:
            quantized = dequantize(prefix(index, MAX_ROUNDS, m), m)
            yield Version(decode_feature(tokenizer, quantized), (quantized - feature).abs().flatten(1))


def parse_rounds(text: str) -> tuple[Rounds, ...]:
    """``4``, ``1:8``, ``1:4,8,continuous``; UsageError for anything else."""
    rounds: list[Rounds] = []
    for part in text.split(","):
        if part == "continuous":
            rounds.append(None)
            continue
        span = re.fullmatch(rf"([1-{MAX_ROUNDS}])(?::([1-{MAX_ROUNDS}]))?", part)
        if span is None or int(span[2] or span[1]) < int(span[1]):
            raise UsageError(
                f"--rounds {text}: expected numbers from 1 to {MAX_ROUNDS}, such as 4, 1:8 or 1:4,continuous"
            )
        rounds.extend(range(int(span[1]), int(span[2] or span[1]) + 1))
    return tuple(dict.fromkeys(rounds))


Windows = list[Measured[Tensor]]  # of one source


def _by_source(measured: Iterator[Measured[Tensor]]) -> Iterator[Windows]:
    for _, windows in groupby(measured, key=lambda window: window.place):
        yield list(windows)


def _together(left: Iterator[Windows], right: Iterator[Windows]) -> Iterator[tuple[Windows, Windows]]:
    """Windows of the same place, from two ascending orders; a source that could not be read is missing from one."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        if a[0].place == b[0].place:
            yield a, b
            a, b = next(left, None), next(right, None)
        elif a[0].place < b[0].place:
            a = next(left, None)
        else:
            b = next(right, None)


def _unequal(name: str, shape: Sequence[int], other: str, others: Sequence[int]) -> str:
    sizes = [f"{part[0]} frames of {show_size(part[1:3])}" for part in (shape, others)]
    return f"{name} is {sizes[0]} and {other} {sizes[1]}; expected pairs of one size, as nothing is resized in silence"


def _pixels_of(bits: NDArray[np.uint8], stride: Sequence[int]) -> tuple[int, ...]:
    """Frames, height and width that packed bits ``[n, t, h, w, m, bytes]`` decode to: 1 + stride * (t - 1) frames."""
    _, t, h, w, *_ = bits.shape
    return 1 + stride[0] * (t - 1), stride[1] * h, stride[2] * w


def round_label(rounds: Rounds) -> str:
    """What a row of a report is called."""
    return "continuous" if rounds is None else f"{rounds} rounds" if rounds > 1 else "1 round"
