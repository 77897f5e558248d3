"""Where pictures come from: media, the bits of a store, or an array of them in an .npz file.

What is measured of a batch counts once its sources are known to be sound: a clip may turn out damaged at its end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.decoding.store_decoding import StoreDecoder, check_fit
from grncli.evaluation.measuring import Compute, Measured, PictureReading, Pictures, R
from grncli.evaluation.picture_arrays import ArrayPictures
from grncli.evaluation.recorded_prompts import recorded_prompts
from grncli.media.batches import ClipBatch, ReadSource, media_batches
from grncli.media.listing import ListingOptions, list_sources
from grncli.media.listing.listing_cache import FOLDER
from grncli.media.reading import parse_reading
from grncli.media.selection import Selection
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.urls import UrlPath, located
from grncli.store import METADATA, BitStore, open_store

# As ADM prepared ImageNet, and as grn tokenize does it.
FILTERS = {"square": "box halvings, bicubic, centre crop"} | dict.fromkeys(("cover", "budget"), "bicubic, centre crop")


def open_pictures(src: str, reading: PictureReading, *, say: Say = lambda text: None) -> Pictures:
    """The pictures of media, of a bit store, or of an .npz file; UsageError, StoreError, CheckpointError otherwise.

    ``say`` gets a sentence where a limit leaves one class of several, or a tokenizer is not fully trained.
    """
    path = located(src)
    if src.endswith(".npz") and path.is_file():
        return ArrayPictures(path, reading)
    if is_store(src):
        return StorePictures(path, reading, say=say)
    return MediaPictures(src, reading, say=say)


def is_store(src: str) -> bool:
    """Whether a path is that of a bit store; what else a URL may hold is not read."""
    path = located(src)
    return isinstance(path, UrlPath) or (path / METADATA).is_file()


class MediaPictures(Pictures):
    """Files, folders, archives and lists of media."""

    def __init__(self, src: str, reading: PictureReading, *, say: Say = lambda text: None) -> None:
        self.src = src
        everything = list_sources(src, ListingOptions(cache=default_cache() / FOLDER)).sources
        selection = reading.selection
        self.selection = selection
        self.total = len(everything)
        self.places = selection.places((source.relative for source in everything), self.total)
        self.sources = [everything[place] for place in self.places]
        doubt = selection.doubt([source.label for source in everything], self.places)
        if doubt is not None:
            say(f"{src}: {doubt}")
        self._reading = reading
        self._settings = parse_reading(
            reading.stride, size=reading.size, budget=reading.budget, frames=reading.frames, fps=reading.fps
        )

    def only(self, numbers: Sequence[int]) -> Self:
        """See `Pictures.only`."""
        fewer = super().only(numbers)
        fewer.sources = [self.sources[number] for number in numbers]
        return fewer

    def prompts(self) -> Sequence[str | None]:
        """Those that ``grn sample`` recorded of its pictures; see `Pictures.prompts`."""
        recorded = recorded_prompts(Path(self.src))
        return [recorded.get(source.relative) for source in self.sources]

    def measure(
        self, compute: Compute[R], *, share: tuple[int, int] = (0, 1), monitor: Monitor | None = None
    ) -> Iterator[Measured[R]]:
        """See `Pictures.measure`."""
        (rank, count), monitor = share, monitor or Monitor()
        places, reading = range(rank, len(self.sources), count), self._reading
        with media_batches(
            self.sources, self._settings, places, workers=reading.workers, batch=reading.batch, stop=monitor.stop
        ) as batches:
            for batch in batches:
                if isinstance(batch, ClipBatch):
                    for clip, result in zip(batch.clips, compute(batch.frames), strict=True):
                        clip.result = result
                    continue
                for read in batch.sources:
                    if read.error is not None:
                        self._miss(read, monitor.say)
                    for clip in read.clips:
                        name = read.source.name + (f"#{clip.number}" if clip.number is not None else "")
                        yield Measured(read.position, name, clip.shape, clip.result, read.source.label)
                    if monitor.stop_reason:
                        return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        reading = self._reading
        framing = self._settings.framing
        how = {
            "size": str(framing),
            "filter": FILTERS.get(framing.mode),
            "cut_to_tokens_of": None if reading.stride == (1, 1, 1) else "x".join(map(str, reading.stride)),
            "frames": reading.frames,
            "fps": reading.fps,
            **reading.selection.about(),
        }
        return super().about() | {name: value for name, value in how.items() if value is not None}

    def _miss(self, read: ReadSource, say: Say) -> None:
        text = f"{read.source.name}: {read.error}"
        if self._reading.strict:
            raise MediaError(text)
        self.failed += 1
        say(f"{text}; skipped")


class StorePictures(Pictures):
    """The samples of a bit store, decoded on the fly."""

    def __init__(self, path: Path, reading: PictureReading, *, say: Say = lambda text: None) -> None:
        self.src = str(path)
        if reading.tokenizer is None:
            raise UsageError(f"{path} is a bit store, whose pictures need --tokenizer RUN, the tokenizer that made it")
        reading.require_plain(path, "a bit store has the size it was made with, leave the option out")
        self.store = open_store(path)
        loaded = open_once(reading.tokenizer, reading.device, say)
        self.rounds = check_fit(self.store, path, loaded, None)
        self.decoder = StoreDecoder(self.store, loaded.network, self.rounds, reading.batch, reading.device)
        self.total = len(self.store)
        self.places = choose_samples(self.store, reading.selection)
        if not self.places:
            raise UsageError(f"{path} holds no samples")
        self.selection = reading.selection
        self._classes = _class_names(self.store)
        doubt = self.selection.doubt(self._classes, self.places)
        if doubt is not None:
            say(f"{path}: {doubt}")

    def prompts(self) -> Sequence[str | None]:
        """See `Pictures.prompts`."""
        recorded = (record.get("prompt") for record in self.store.records(self.places))
        return [prompt if isinstance(prompt, str) else None for prompt in recorded]

    def batches(self, share: tuple[int, int]) -> Iterator[tuple[list[int], list[int], NDArray[np.uint8]]]:
        """Numbers among the selected ones, indices and packed bits of neighbouring samples of one grid."""
        rank, count = share
        number = rank
        for indices, bits in self.decoder.batches(self.places[rank::count]):
            numbers = list(range(number, number + len(indices) * count, count))
            number += len(indices) * count
            yield numbers, indices, bits

    def measure(
        self, compute: Compute[R], *, share: tuple[int, int] = (0, 1), monitor: Monitor | None = None
    ) -> Iterator[Measured[R]]:
        """See `Pictures.measure`."""
        monitor = monitor or Monitor()
        for numbers, indices, bits in self.batches(share):
            frames = torch.from_numpy(self.decoder.decode(bits))
            records = self.store.records(indices)
            for place, index, record, result in zip(numbers, indices, records, compute(frames), strict=True):
                name = f"{self.src}: {record['key']}"
                yield Measured(place, name, tuple(frames.shape[1:4]), result, self._classes[index])
            if monitor.stop_reason:
                return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        tokenizer, settings = self.store.fingerprint.tokenizer, self.store.fingerprint.preprocessing
        return {
            **super().about(),
            **{name: settings[name] for name in ("size", "budget", "frames", "fps") if settings.get(name) is not None},
            "rounds": self.rounds,
            "tokenizer": f"{tokenizer.get('name')} ({str(tokenizer.get('sha256'))[:12]})",
            **self.selection.about(),
            **({} if self.store.complete else {"store": "not complete"}),
        }


def open_once(tokenizer: str | LoadedTokenizer, device: str, say: Say) -> LoadedTokenizer:
    """The tokenizer of a run, unless it has been opened already."""
    return open_tokenizer(tokenizer, device, say=say) if isinstance(tokenizer, str) else tokenizer


def open_tokenizer_of(reading: PictureReading, pictures: Sequence[str], say: Say) -> PictureReading:
    """The same with an open tokenizer, where any of ``pictures`` is a store."""
    if reading.tokenizer is None or not any(map(is_store, pictures)):
        return reading
    return replace(reading, tokenizer=open_once(reading.tokenizer, reading.device, say))


def choose_samples(store: BitStore, selection: Selection) -> Sequence[int]:
    """Indices of the selected samples of a store, ascending; a draw goes by their keys."""
    return selection.places((str(record["key"]) for record in store.records()), len(store))


def _class_names(store: BitStore) -> list[str | None]:
    """Class of each sample; None for those without."""
    numbers = np.full(len(store), -1, np.int32)
    for grid in store.grids:
        view = store.grid(grid)
        numbers[view.indices] = view.labels()
    return [store.labels[number] if number >= 0 else None for number in numbers.tolist()]
