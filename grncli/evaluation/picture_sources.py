"""Pictures to be measured, wherever they lie: media, the bits of a store, or an array of them in an .npz file.

What is measured of a batch counts once its sources are known to be sound: a clip may turn out damaged at its end.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.store_decoding import Decoder, DecodeSettings, check_fit
from grncli.media.decoder import DecoderPool, Done
from grncli.media.reading import ReadSettings
from grncli.media.selection import Selection
from grncli.media.sources import Source, list_sources
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.overlap import Prefetch
from grncli.runtime.stopping import Stop
from grncli.store import METADATA, BitStore, open_store
from grncli.tokenizing.encoding import TokenizeSettings, read_settings
from grncli.tokenizing.gathering import Clip, Gatherer, Read, Work

ARRAY = "arr_0"  # uint8 [N, H, W, 3], as guided-diffusion and its successors save samples
ARRAY_BATCH = 64
MAX_ARRAY_SIDE = 16384
# As ADM prepared ImageNet, and as grn tokenize does it.
FILTERS = {"square": "box halvings, bicubic, centre crop", "cover": "bicubic, centre crop"}

R = TypeVar("R")
Frames = NDArray[np.uint8]
Say = Callable[[str], None]
# Uint8 [B, T, H, W, 3] to what is measured of each.
Compute = Callable[[Tensor], Sequence[R]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How pictures are read."""

    size: str | None = None  # as for grn tokenize; None takes them as they are and wants them alike
    frames: int | None = None  # of a clip; None takes each whole
    fps: float | None = None
    limit: int | None = None
    sample: int | None = None  # so many drawn by their names; instead of a limit
    batch: int | None = None
    workers: int = 1
    tokenizer: str | LoadedTokenizer | None = None  # run that decodes stores, or what was opened of it
    device: str = "cpu"
    strict: bool = False
    stride: tuple[int, int, int] = (1, 1, 1)  # of the tokenizer that media are to go through: cut to whole tokens

    def __post_init__(self) -> None:
        Selection(self.limit, self.sample)  # refuses what contradicts itself

    @property
    def selection(self) -> Selection:
        """Which pictures are taken."""
        return Selection(self.limit, self.sample)


@dataclass(frozen=True)
class Measured(Generic[R]):
    """What was measured of one picture or clip."""

    place: int  # in the order of its source
    name: str
    shape: tuple[int, ...]  # frames, height, width
    result: R
    label: str | None = None  # name of its class


class Pictures(ABC):
    """Pictures and clips of one origin."""

    src: str
    failed: int = 0  # that could not be read so far

    @abstractmethod
    def __len__(self) -> int:
        """How many sources there are."""

    def measure(
        self,
        compute: Compute[R],
        *,
        share: tuple[int, int] = (0, 1),
        stop: Stop | None = None,
        warn: Say = lambda text: None,
    ) -> Iterator[Measured[R]]:
        """What ``compute`` finds for each picture; ends early if ``stop`` says so.

        Parameters
        ----------
        compute : gets uint8 ``[B, T, H, W, 3]`` and gives B results
        share : (i, n) measures every n-th source, from the i-th
        warn : told in a sentence of each source that cannot be read

        Raises
        ------
        MediaError
            For such a source, if reading is strict.
        """
        return self._measure(compute, share, stop or Stop(), warn)

    @abstractmethod
    def _measure(self, compute: Compute[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        """What `measure` promises."""

    def about(self) -> dict[str, Any]:
        """Where the pictures are from and how they are read, for the protocol beside a figure."""
        return {"src": self.src}


def open_pictures(src: str, reading: Reading, *, say: Say = lambda text: None) -> Pictures:
    """The pictures of media, of a bit store, or of an .npz file; UsageError, StoreError, CheckpointError otherwise.

    ``say`` is told in a sentence where a limit leaves one class of several, or a tokenizer is not fully trained.
    """
    path = Path(src)
    if src.endswith(".npz") and path.is_file():
        return ArrayPictures(path, reading)
    if is_store(src):
        return StorePictures(path, reading, say=say)
    return MediaPictures(src, reading, say=say)


def is_store(src: str) -> bool:
    """Whether a path is that of a bit store."""
    return (Path(src) / METADATA).is_file()


class MediaPictures(Pictures):
    """Files, folders, archives and lists of media."""

    def __init__(self, src: str, reading: Reading, *, say: Say = lambda text: None) -> None:
        self.src = src
        everything, selection = list_sources(src).sources, reading.selection
        places = selection.places((source.relative for source in everything), len(everything))
        self.sources = [everything[place] for place in places]
        doubt = selection.doubt([source.label for source in everything], places)
        if doubt is not None:
            say(f"{src}: {doubt}")
        self._reading = reading
        self._settings = read_settings(
            TokenizeSettings(
                size="native" if reading.size is None else reading.size, frames=reading.frames, fps=reading.fps
            ),
            reading.stride,
        )

    def __len__(self) -> int:
        return len(self.sources)

    def _measure(self, compute: Compute[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        rank, count = share
        with (
            DecoderPool(self._reading.workers) as pool,
            Prefetch(
                _read_works(pool, self.sources[rank::count], self._settings, self._reading.batch),
                stop_when=lambda waited: stop.reason is not None,  # a decoder may hang
                abandon=pool.abandon,
            ) as works,
        ):
            for read, results in _settled(works, compute):
                if read.error is not None:
                    self._miss(read, warn)
                for clip, (shape, result) in results:
                    name = read.source.name + (f"#{clip.number}" if clip.number is not None else "")
                    yield Measured(read.position * count + rank, name, shape, result, read.source.label)
                if stop.reason:
                    return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        reading = self._reading
        framing = self._settings.framing
        told = {
            "size": str(framing),
            "filter": FILTERS.get(framing.mode),
            "cut_to_tokens_of": None if reading.stride == (1, 1, 1) else "x".join(map(str, reading.stride)),
            "frames": reading.frames,
            "fps": reading.fps,
            **reading.selection.about(),
        }
        return {**super().about(), **{name: value for name, value in told.items() if value is not None}}

    def _miss(self, read: Read, warn: Say) -> None:
        text = f"{read.source.name}: {read.error}"
        if self._reading.strict:
            raise MediaError(text)
        self.failed += 1
        warn(f"{text}; skipped")


class StorePictures(Pictures):
    """The samples of a bit store, decoded on the fly."""

    def __init__(self, path: Path, reading: Reading, *, say: Say = lambda text: None) -> None:
        self.src = str(path)
        if reading.tokenizer is None:
            raise UsageError(f"{path} is a bit store, whose pictures need --tokenizer RUN, the tokenizer that made it")
        if reading.size not in (None, "native"):
            raise UsageError(f"--size {reading.size}: a bit store has the size it was made with, leave the option out")
        _refuse_windows(path, reading)
        self.store = open_store(path)
        loaded = open_once(reading.tokenizer, reading.device, say)
        self.rounds = check_fit(self.store, path, loaded, None)
        self.decoder = Decoder(
            self.store, loaded.network, self.rounds, DecodeSettings(batch=reading.batch, device=reading.device)
        )
        self.places = choose_samples(self.store, reading.selection)
        """Indices of the samples that are taken."""
        if not self.places:
            raise UsageError(f"{path} holds no samples")
        self._selection = reading.selection
        doubt = self._selection.doubt(_class_names(self.store), self.places) if reading.limit is not None else None
        if doubt is not None:
            say(f"{path}: {doubt}")

    def __len__(self) -> int:
        return len(self.places)

    def batches(self, share: tuple[int, int]) -> Iterator[tuple[list[int], list[int], NDArray[np.uint8]]]:
        """Numbers among those taken, indices and packed bits of neighbouring samples of one grid."""
        rank, count = share
        number = rank
        for indices, bits in self.decoder.batches(self.places[rank::count]):
            numbers = list(range(number, number + len(indices) * count, count))
            number += len(indices) * count
            yield numbers, indices, bits

    def _measure(self, compute: Compute[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        for numbers, indices, bits in self.batches(share):
            frames = torch.from_numpy(self.decoder.decode(bits))
            for place, index, result in zip(numbers, indices, compute(frames), strict=True):
                name, number = f"{self.src}: {self.store.record(index)['key']}", self.store[index].label
                label = self.store.labels[number] if number >= 0 else None
                yield Measured(place, name, tuple(frames.shape[1:4]), result, label)
            if stop.reason:
                return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        identity = self.store.fingerprint.tokenizer
        made = self.store.fingerprint.preprocessing
        how = {name: made[name] for name in ("size", "frames", "fps") if made.get(name) is not None}
        told = {
            **how,
            "rounds": self.rounds,
            "tokenizer": f"{identity.get('name')} ({str(identity.get('sha256'))[:12]})",
        }
        unfinished = {} if self.store.complete else {"store": "not complete"}
        return {**super().about(), **told, **self._selection.about(), **unfinished}


def open_once(tokenizer: str | LoadedTokenizer, device: str, say: Say) -> LoadedTokenizer:
    """The tokenizer of a run, unless it has been opened already."""
    return open_tokenizer(tokenizer, device, say=say) if isinstance(tokenizer, str) else tokenizer


def choose_samples(store: BitStore, selection: Selection) -> Sequence[int]:
    """Indices of the samples of a store that are taken, ascending; a draw goes by their keys."""
    return selection.places((str(record["key"]) for record in store.records()), len(store))


def _class_names(store: BitStore) -> list[str | None]:
    """Class of each sample; None for those without."""
    numbers = np.full(len(store), -1, np.int32)
    for grid in store.grids:
        view = store.grid(grid)
        numbers[view.indices] = view.labels()
    return [store.labels[number] if number >= 0 else None for number in numbers.tolist()]


class ArrayPictures(Pictures):
    """The array ``arr_0`` of an .npz file, read a batch at a time."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.src = str(path)
        self._path = path
        if reading.size not in (None, "native"):
            raise UsageError(f"--size {reading.size}: pictures of an .npz file are taken as they are")
        _refuse_windows(path, reading)
        _, rows, columns = reading.stride
        if self._shape[1] % rows or self._shape[2] % columns:
            raise UsageError(
                f"{path} has pictures of {self._shape[1]}x{self._shape[2]} pixels, expected multiples of the "
                f"tokenizer's {rows}x{columns}; give files, which are cut, or another tokenizer"
            )
        self._batch = reading.batch or ARRAY_BATCH
        self._selection = reading.selection
        self._rows = self._selection.places(map(str, range(self._shape[0])), self._shape[0])

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        with _open_array(self._path) as (shape, _):
            return shape

    def __len__(self) -> int:
        return len(self._rows)

    def _measure(self, compute: Compute[R], share: tuple[int, int], stop: Stop, warn: Say) -> Iterator[Measured[R]]:
        rank, count = share
        _, height, width, colours = self._shape
        size = height * width * colours
        taken = np.asarray(self._rows)
        with _open_array(self._path) as (_, stream):
            for number, start in enumerate(range(0, int(taken[-1]) + 1, self._batch)):
                rows = min(self._batch, int(taken[-1]) + 1 - start)
                data = _read_exactly(stream, rows * size, f"{self._path}: {ARRAY} ends or is damaged after {start}")
                first, last = np.searchsorted(taken, (start, start + rows)).tolist()
                if number % count != rank or first == last:
                    continue
                frames = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(rows, 1, height, width, colours)
                if last - first < rows:
                    frames = frames[taken[first:last] - start]
                for place, result in enumerate(compute(frames), start=first):
                    yield Measured(place, f"{self.src}[{taken[place]}]", (1, height, width), result)
                if stop.reason:
                    return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        return {**super().about(), "size": "native", **self._selection.about()}


def _read_exactly(stream: IO[bytes], size: int, problem: str) -> bytes:
    try:
        data = stream.read(size)
    except Exception as error:  # see `_open_array`
        raise MediaError(f"{problem} pictures ({' '.join(str(error).split())[:120]}); get the file again") from None
    if len(data) < size:
        raise MediaError(f"{problem} pictures; get the file again")
    return data


def _refuse_windows(path: Path, reading: Reading) -> None:
    for name, value in (("--frames", reading.frames), ("--fps", reading.fps)):
        if value is not None:
            raise UsageError(f"{name} {value}: is for clips in files, and {path} holds samples; leave the option out")


@contextmanager
def _open_array(path: Path) -> Iterator[tuple[tuple[int, ...], IO[bytes]]]:
    """Shape and byte stream of ``arr_0``; the array itself may be larger than memory."""
    wanted = f"expected uint8 pictures [N, H, W, 3] as {ARRAY}"
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream = stack.enter_context(archive.open(f"{ARRAY}.npy"))
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except Exception as error:  # zipfile, zlib and numpy each have their own for a damaged file
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise MediaError(f"{path}: cannot be read ({reason}); {wanted}") from None
        sound = not fortran and dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
        if not sound or min(shape) < 1 or max(shape[1:3]) > MAX_ARRAY_SIDE:
            raise MediaError(f"{path}: {ARRAY} is {dtype} {list(shape)}; {wanted}")
        yield shape, stream


def _read_works(
    pool: DecoderPool, sources: Sequence[Source], reading: ReadSettings, batch: int | None
) -> Iterator[Work]:
    """Sources as batches of one shape, group by group."""
    gatherer = Gatherer(batch, flip=False)
    for position, event in pool.read(sources, reading):
        if isinstance(event, Done):
            gatherer.end_source(position, sources[position], event)
            if gatherer.is_full or position == len(sources) - 1:
                yield from gatherer.end_group()
        else:
            yield from gatherer.add(event)


def _settled(
    works: Iterator[Work], compute: Compute[R]
) -> Iterator[tuple[Read, list[tuple[Clip, tuple[tuple[int, ...], R]]]]]:
    """Each source once it is known to be sound or not, with the shape and result of each of its pieces."""
    results: dict[int, tuple[tuple[int, ...], R]] = {}
    for work in works:
        if work.frames is not None:
            shape = tuple(work.frames.shape[1:4])
            found = compute(work.frames)
            results.update((id(clip), (shape, result)) for clip, result in zip(work.clips, found, strict=True))
        if work.ended is not None:
            for read in work.ended.reads:
                yield read, [(clip, results[id(clip)]) for clip in read.clips]
            results.clear()
