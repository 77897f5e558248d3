"""Originals and reconstructions side by side: media through a tokenizer, a store and its sources, two folders."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.comparing import SourceFrames
from grncli.decoding.outputs import file_name
from grncli.evaluation.picture_sources import (
    Measured,
    MediaPictures,
    Pictures,
    Reading,
    Say,
    StorePictures,
    is_store,
    open_once,
    open_pictures,
)
from grncli.evaluation.statistics import show_size
from grncli.hbq import MAX_ROUNDS, dequantize, prefix, quantize, unpack
from grncli.media.sources import Source
from grncli.models.tokenizer import Tokenizer, to_frames, to_input
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.errors import GrnError, MediaError, UsageError
from grncli.runtime.stopping import Stop

Rounds = int | None  # None is the continuous feature

R = TypeVar("R")
Frames = NDArray[np.uint8]
Measure = Callable[[Tensor, Sequence[Tensor]], Sequence[R]]


class Pairs(ABC):
    """Originals and what came back of them."""

    pictures: Pictures
    rows: list[tuple[Rounds, str]]
    tokenizer: dict[str, str] | None = None

    @property
    def failed(self) -> int:
        """Pictures that could not be read so far, on either side."""
        return self.pictures.failed

    @abstractmethod
    def compare(self, measure: Measure[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        """Every sample, measured; ends early if ``stop`` says so.

        ``measure`` gets originals uint8 ``[B, T, H, W, 3]`` and a version of them for each row, and gives B results.
        """


class Reencoded(Pairs):
    """Media, through a tokenizer and back."""

    def __init__(
        self, src: str, run: str | LoadedTokenizer, rounds: Sequence[Rounds] | None, reading: Reading, say: Say
    ) -> None:
        self._device = reading.device
        loaded = open_once(run, self._device, say)
        self._network, self.tokenizer = loaded.network, loaded.identity
        self.pictures = open_pictures(src, replace(reading, stride=self._network.stride), say=say)
        rounds = rounds or [self._network.rounds]
        self.rows = [(m, _label(m)) for m in rounds]

    def compare(self, measure: Measure[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""

        def compute(frames: Tensor) -> Sequence[R]:
            frames = frames.to(self._device)
            return measure(frames, reconstruct(self._network, frames, [m for m, _ in self.rows]))

        return self.pictures.measure(compute, share=share, stop=stop, warn=warn)


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
        held = pictures.store.rounds
        rounds = rounds or [held]
        if any(m is None or m > held for m in rounds):
            raise UsageError(
                f"--rounds: {pictures.src} holds {held} rounds and no continuous feature, expected 1 to {held}"
            )
        self.rows = [(m, _label(m)) for m in rounds]
        self._store = pictures
        self._strict = strict

    def compare(self, measure: Measure[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""
        store, decoder = self._store.store, self._store.decoder
        for places, indices, bits in self._store.batches(share):
            shape = _pixels_of(bits, store.stride)
            found = [(row, index, self._find(index, shape, warn)) for row, index in enumerate(indices)]
            kept = [(row, index, frames) for row, index, frames in found if frames is not None]
            if kept:
                packed = torch.from_numpy(bits[[row for row, _, _ in kept]]).to(decoder.device)
                index_map = unpack(packed, store.channels, decoder.rounds)
                versions = [
                    _decode(decoder.tokenizer, dequantize(prefix(index_map, decoder.rounds, m or 0), m or 0))
                    for m, _ in self.rows
                ]
                originals = torch.from_numpy(np.stack([frames for _, _, frames in kept])).to(decoder.device)
                for (row, index, _), result in zip(kept, measure(originals, versions), strict=True):
                    yield Measured(places[row], self._name(index), tuple(originals.shape[1:4]), result)
            if stop.reason:
                return

    def _name(self, index: int) -> str:
        return str(self._store.store.record(index)["key"])

    def _find(self, index: int, shape: tuple[int, ...], warn: Say) -> Frames | None:
        frames, name = self._sources.find(self._store.store.record(index)), self._name(index)
        if frames is None:
            text = f"{name}: its source is gone or cannot be read"
            if self._strict:
                raise MediaError(text)
            self.pictures.failed += 1
            warn(f"{text}; skipped")
        elif frames.shape[:3] != shape:
            raise UsageError(_unequal(f"the source of {name}", frames.shape, "its decoding", shape))
        return frames


class Foreign(Pairs):
    """Media, and a folder of reconstructions that others made of them."""

    def __init__(self, pictures: MediaPictures, reconstructions: str, reading: Reading) -> None:
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

    def compare(self, measure: Measure[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        """See `Pairs.compare`."""

        def plain(frames: Tensor) -> list[Tensor]:
            return list(frames)

        left = _by_source(self.pictures.measure(plain, share=share, stop=stop, warn=warn))
        right = _by_source(self._others.measure(plain, share=share, stop=stop, warn=warn))
        for (place, ours), (other, theirs) in _together(left, right):
            assert place == other
            if len(ours) != len(theirs):
                raise UsageError(
                    f"{ours[0].name} gives {len(ours)} windows and {theirs[0].name} {len(theirs)}; expected as many"
                )
            for a, b in zip(ours, theirs, strict=True):
                if a.shape != b.shape:
                    raise UsageError(_unequal(a.name, a.shape, b.name, b.shape))
                yield Measured(place, a.name, a.shape, measure(a.result[None], [b.result[None]])[0])
            if stop.reason:
                return


def open_pairs(
    src: str,
    reading: Reading,
    rounds: Sequence[Rounds] | None,
    compare: str | None,
    reconstructions: str | None,
    *,
    say: Say = lambda text: None,
) -> Pairs:
    """Originals and what came back of them; UsageError where the options do not name both.

    Parameters
    ----------
    rounds : to decode from; None takes those that the store holds or the tokenizer was trained for
    compare : media that a store was made from
    reconstructions : media that others decoded, under the names of those in ``src``
    say : told in a sentence what is doubtful about pictures or tokenizer
    """
    run = reading.tokenizer
    if is_store(src):
        if reconstructions is not None:
            raise UsageError("--reconstructions goes with media; the bits of a store are decoded")
        return Stored(StorePictures(Path(src), reading, say=say), compare, rounds, strict=reading.strict)
    if compare is not None:
        raise UsageError(f"--compare goes with a bit store, and {src} is none")
    if (run is None) == (reconstructions is None):
        raise UsageError("give either --tokenizer RUN, or --reconstructions SRC2 with what others made of the pictures")
    if run is not None:
        return Reencoded(src, run, rounds, reading, say)
    if rounds is not None:
        raise UsageError("--rounds goes with --tokenizer; reconstructions are there already")
    return Foreign(MediaPictures(src, reading, say=say), str(reconstructions), reading)


def reconstruct(tokenizer: Tokenizer, frames: Tensor, rounds: Sequence[Rounds]) -> list[Tensor]:
    """uint8 ``[B, T, H, W, 3]`` through a tokenizer and back, from each number of rounds; None is continuous."""
    return [decoded for _, decoded in decodings(tokenizer, encode(tokenizer, frames), rounds)]


def encode(tokenizer: Tokenizer, frames: Tensor) -> Tensor:
    """The continuous feature ``[B, C, t, h, w]`` of uint8 ``[B, T, H, W, 3]``, before it is quantized."""
    with torch.inference_mode():
        return tokenizer.encode(to_input(frames))


def decodings(tokenizer: Tokenizer, feature: Tensor, rounds: Sequence[Rounds]) -> Iterator[tuple[Tensor, Tensor]]:
    """The feature as each number of rounds has it, and uint8 ``[B, T, H, W, 3]`` decoded from that.

    The first m rounds of a finer quantization are the m-round quantization, so the feature is quantized once; GrnError
    where it has a NaN.
    """
    try:
        index = quantize(feature, MAX_ROUNDS)
    except ValueError as fault:
        raise GrnError(str(fault)) from None
    for m in rounds:
        chosen = feature if m is None else dequantize(prefix(index, MAX_ROUNDS, m), m)
        yield chosen, _decode(tokenizer, chosen)


def _decode(tokenizer: Tokenizer, feature: Tensor) -> Tensor:
    with torch.inference_mode():
        return to_frames(tokenizer.decode(feature))


def parse_rounds(text: str) -> tuple[Rounds, ...]:
    """``4``, ``1:8``, ``1:4,8,continuous``; UsageError for anything else."""
    found: list[Rounds] = []
    for part in text.split(","):
        if part == "continuous":
            found.append(None)
            continue
        span = re.fullmatch(rf"([1-{MAX_ROUNDS}])(?::([1-{MAX_ROUNDS}]))?", part)
        if span is None or int(span[2] or span[1]) < int(span[1]):
            raise UsageError(
                f"--rounds {text}: expected numbers from 1 to {MAX_ROUNDS}, such as 4, 1:8 or 1:4,continuous"
            )
        found.extend(range(int(span[1]), int(span[2] or span[1]) + 1))
    return tuple(dict.fromkeys(found))


def match(
    ours: Sequence[Source], theirs: Sequence[Source], src: str, others: str, *, partly: bool = False
) -> list[tuple[Source, Source]]:
    """Pairs of one name, for each of ours; a suffix may differ or, as ``grn decode`` does it, be added.

    ``partly``: ours are some of more, so that theirs may be more.

    Raises
    ------
    UsageError
        If the counts differ, or one has no partner, with its name.
    """
    partners = _partners(ours, theirs)
    for source, partner in zip(ours, partners, strict=True):
        if partner is None:
            raise UsageError(
                f"{source.name} has no partner in {others}; expected a file of the same name for each of the "
                f"{len(ours)} in {src} (there are {len(theirs)})"
            )
    pairs = [(source, partner) for source, partner in zip(ours, partners, strict=True) if partner is not None]
    if len(theirs) != len(ours) and not partly:
        raise UsageError(f"{src} has {len(ours)} pictures and {others} {len(theirs)}; expected one for each")
    taken: dict[int, Source] = {}
    for source, partner in pairs:
        if id(partner) in taken:
            both = f"{taken[id(partner)].name} and {source.name}"
            raise UsageError(f"{both} both fit {partner.name}; expected one name for each pair")
        taken[id(partner)] = source
    return pairs


def _partners(ours: Sequence[Source], theirs: Sequence[Source]) -> list[Source | None]:
    """What fits each of ours best: the same name, that which ``grn decode`` gives it, or the same but for suffixes.

    One that fits several goes to the one it fits best, while that leaves another for the others.
    """
    found: list[Source | None] = [None] * len(ours)
    taken: set[int] = set()
    for ours_named, theirs_named in _NAMINGS:
        by_name: dict[str, list[Source]] = {}
        for source in theirs:
            by_name.setdefault(theirs_named(source.relative), []).append(source)
        for place, source in enumerate(ours):
            fitting = by_name.get(ours_named(source.relative), []) if found[place] is None else []
            free = [other for other in fitting if id(other) not in taken]
            if free:
                found[place] = free[0]
                taken.add(id(free[0]))
    for ours_named, theirs_named in _NAMINGS:
        names = {theirs_named(source.relative): source for source in reversed(theirs)}
        found = [partner or names.get(ours_named(source.relative)) for source, partner in zip(ours, found, strict=True)]
    return found


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _inner_stem(name: str) -> str:
    return _stem(_stem(name))


def _decoded(suffix: str) -> Callable[[str], str]:
    return lambda name: file_name({"key": name}, suffix)


_NAMINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_same, _same),
    (_decoded(".png"), _same),
    (_decoded(".mp4"), _same),
    (_same, _stem),
    (_stem, _stem),
    (_stem, _inner_stem),
)
"""Names of ours and of theirs that are equal for a pair, the surest first."""


def _by_source(measured: Iterator[Measured[Tensor]]) -> Iterator[tuple[int, list[Measured[Tensor]]]]:
    """The pieces of each source."""
    waiting: list[Measured[Tensor]] = []
    for piece in measured:
        if waiting and piece.place != waiting[0].place:
            yield waiting[0].place, waiting
            waiting = []
        waiting.append(piece)
    if waiting:
        yield waiting[0].place, waiting


def _together(left: Iterator[Any], right: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Items of the same place, of two orders that rise; what one of them lacks could not be read."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        if a[0] == b[0]:
            yield a, b
            a, b = next(left, None), next(right, None)
        elif a[0] < b[0]:
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


def _label(rounds: Rounds) -> str:
    return "continuous" if rounds is None else f"{rounds} rounds" if rounds > 1 else "1 round"
