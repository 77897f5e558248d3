"""``grn decode``: a bit store back to pictures and clips, and how far they are from their sources."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.errors import GrnError, MediaError, StoreMismatch, UsageError
from grncli.hbq import dequantize, unpack
from grncli.media.framing import parse_size
from grncli.media.reading import ReadSettings, read_pieces
from grncli.media.sources import Source, list_sources
from grncli.media.writing import contact_sheet, write_mp4, write_png
from grncli.models.tokenizer import Tokenizer, to_frames
from grncli.overlap import Behind
from grncli.stopping import Stop, Stopped
from grncli.store import BitStore, open_store
from grncli.tokenizers import load_tokenizer, tokenizer_identity

MANIFEST = "decode.json"
BATCH_PIXELS = 2**20
MAX_BATCH = 64
SHEET_SAMPLES = 24
SHEET_COLUMNS = 8
SHEET_FRAMES = 4  # of each clip
DEFAULT_FPS = 16.0  # for clips whose record has none

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


@dataclass
class Quality:
    """Peak signal-to-noise ratio in dB against the sources, of each sample."""

    images: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    missing: int = 0  # samples whose source was not found or not read

    def means(self) -> dict[str, float | int]:
        """Mean over images and over clips, each where there are any."""
        named = (("image_psnr", self.images), ("clip_psnr", self.clips))
        means: dict[str, float | int] = {name: float(np.mean(values)) for name, values in named if values}
        return means | ({"not_compared": self.missing} if self.missing else {})


@dataclass
class Summary:
    """What ``decode`` wrote."""

    written: int = 0
    present: int = 0  # files of an earlier, interrupted run
    quality: Quality = field(default_factory=Quality)


def decode(
    store_path: Path,
    folder: Path,
    run: str | Path,
    settings: DecodeSettings,
    *,
    stop: Stop | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Summary:
    """Decode samples of a store with the tokenizer that made it: PNG for images, MP4 for clips, named by their key.

    Raises
    ------
    Stopped
        If ``stop`` asked for it; files written so far are whole, and the same command goes on.
    StoreMismatch, StoreError, CheckpointError, UsageError
    """
    store = open_store(store_path)
    tokenizer = load_tokenizer(run)
    rounds = check_fit(store, store_path, tokenizer, run, settings.rounds)
    prepare_folder(folder, store, rounds, overwrite=settings.overwrite)
    decoder = Decoder(store, tokenizer.to(settings.device), rounds, settings)
    indices = range(len(store))[slice(*settings.select)]
    sheet = Sheet(len(indices)) if settings.sheet is not None else None
    sources = SourceFrames(settings.compare, store) if settings.compare is not None else None
    summary, stop = Summary(), stop or Stop()
    with Behind() as behind:
        for done, (index, frames) in enumerate(decoder.frames(indices)):
            if stop.reason:
                behind.wait()
                raise Stopped(f"{stop.reason}: stopped after {done} of {len(indices)} samples, their files are there")
            record = store.record(index)
            behind.submit(Output(folder, record, frames, summary).write)
            original = sources.find(record) if sources is not None else None
            if sources is not None:
                note_quality(summary.quality, frames, original)
            if sheet is not None:
                sheet.add(frames, original, record)
            report(done + 1, len(indices), "")
        behind.wait()
    if settings.sheet is not None and sheet is not None and sheet.cells:
        write_png(settings.sheet, sheet.picture())
    return summary


def check_fit(store: BitStore, path: Path, tokenizer: Tokenizer, run: str | Path, rounds: int | None) -> int:
    """Refuse bits of another tokenizer; returns the number of rounds to decode.

    Raises
    ------
    StoreMismatch, UsageError
    """
    made, given = store.fingerprint.tokenizer, tokenizer_identity(run)
    if made.get("sha256") != given["sha256"]:
        raise StoreMismatch(
            f"{path} was made by tokenizer {made.get('name')} ({str(made.get('sha256'))[:8]}…), and {run} is "
            f"{given['name']} ({given['sha256'][:8]}…); give the run that made it"
        )
    if tokenizer.channels != store.channels or tokenizer.stride != tuple(store.stride):
        raise StoreMismatch(
            f"{path} has {store.channels} channels at stride {list(store.stride)}, and {run} has "
            f"{tokenizer.channels} at {list(tokenizer.stride)}; the store's attributes are damaged"
        )
    if rounds is not None and not 1 <= rounds <= store.rounds:
        raise UsageError(f"--rounds {rounds}: {path} holds {store.rounds} rounds, expected 1 to {store.rounds}")
    return rounds or store.rounds


def prepare_folder(folder: Path, store: BitStore, rounds: int, *, overwrite: bool) -> None:
    """Make the folder with a note of what its files are decoded from, so that only the same may be added to it.

    Raises
    ------
    UsageError
        If the folder holds something else.
    """
    manifest = {"store": store.fingerprint.to_attributes(), "rounds": rounds}
    file = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder to decode into")
    if file.is_file():
        same = json.loads(file.read_text(encoding="utf-8")) == manifest
        if not same and not overwrite:
            raise UsageError(f"{folder} was decoded from other bits or rounds; choose another DIR, or --overwrite")
        if overwrite:
            _remove_decoded(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds files that grn decode did not write; choose another DIR")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _remove_decoded(folder: Path) -> None:
    for pattern in ("*.png", "*.mp4"):
        for file in folder.rglob(pattern):
            file.unlink()


class Decoder:
    """Bits to frames, in batches of neighbouring samples of one grid."""

    def __init__(self, store: BitStore, tokenizer: Tokenizer, rounds: int, settings: DecodeSettings) -> None:
        self.store = store
        self.tokenizer = tokenizer
        self.rounds = rounds
        self.batch = settings.batch
        self.device = torch.device(settings.device)

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]:
        """Index and uint8 ``[T, H, W, 3]`` of each sample."""
        for grid, neighbours in groupby(indices, key=self.store.grid_of):
            rows = list(neighbours)
            size = self.batch or self._automatic(grid)
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                yield from zip(chosen, self.decode(self.store.read(chosen, rounds=self.rounds)), strict=True)

    def decode(self, bits: NDArray[np.uint8]) -> Frames:
        """Packed bits ``[n, t, h, w, m, bytes]`` to uint8 ``[n, T, H, W, 3]``."""
        packed = torch.from_numpy(bits).to(self.device)
        feature = dequantize(unpack(packed, self.store.channels, self.rounds), self.rounds)
        with torch.inference_mode():
            pixels = self.tokenizer.decode(feature)
        return to_frames(pixels).cpu().numpy()

    def _automatic(self, grid: tuple[int, int, int]) -> int:
        t, h, w = (n * s for n, s in zip(grid, self.store.stride, strict=True))
        return max(1, min(MAX_BATCH, BATCH_PIXELS // (t * h * w)))


@dataclass(frozen=True)
class Output:
    """One decoded sample on its way to its file."""

    folder: Path
    record: dict[str, Any]
    frames: Frames
    summary: Summary

    def write(self) -> None:
        """Write the file unless an earlier run has."""
        clip = len(self.frames) > 1
        file = self.folder / file_name(self.record["key"], ".mp4" if clip else ".png")
        if file.exists():
            self.summary.present += 1
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if clip:
            write_mp4(file, self.frames, float(self.record.get("fps") or DEFAULT_FPS))
        else:
            write_png(file, self.frames[0])
        self.summary.written += 1


def file_name(key: str, suffix: str) -> str:
    """Path below the output folder for a sample: its key, kept inside the folder, with ``suffix`` in the end.

    The suffix of the source stays where it is another one (``1.jpg`` becomes ``1.jpg.png``), so that two sources
    never share an output.
    """
    stem, *marks = key.split("#")
    inside = [{"..": "_up", "/": "_root"}.get(part, part) for part in PurePosixPath(stem).parts]
    name = "/".join(inside) or "_"
    same = name.lower().endswith(suffix)
    marked = "".join(f"-{int(mark):04d}" if mark.isdigit() else f"-{mark}" for mark in marks)
    return f"{name[: -len(suffix)] if same else name}{marked}{suffix}"


class SourceFrames:
    """The sources of a store's samples, read again the way ``grn tokenize`` read them."""

    def __init__(self, src: str, store: BitStore) -> None:
        options = store.fingerprint.preprocessing
        stride = store.stride
        self._settings = ReadSettings(
            parse_size(options["size"]), stride, options["frames"], options["fps"], options["clips"]
        )
        self._sources = {source.relative: source for source in list_sources(src).sources}
        if not self._sources:
            raise UsageError(f"--compare {src}: holds no media")
        self._last: tuple[Source, dict[int | None, Frames]] | None = None

    def find(self, record: dict[str, Any]) -> Frames | None:
        """uint8 ``[T, H, W, 3]`` that a sample was made from; None where the source is gone or unreadable."""
        source = self._sources.get(record["key"].split("#")[0])
        if source is None:
            return None
        if self._last is None or self._last[0] != source:
            try:
                self._last = (
                    source,
                    {piece.clip: piece.pixels for piece in read_pieces(source, self._settings)},
                )
            except MediaError:
                return None
        frames = self._last[1].get(record.get("clip"))
        return frames[:, :, ::-1] if frames is not None and record.get("flip") else frames


def note_quality(quality: Quality, frames: Frames, original: Frames | None) -> None:
    """Count one sample's PSNR, or that it has none."""
    if original is None or original.shape != frames.shape:
        quality.missing += 1
    else:
        (quality.images if len(frames) == 1 else quality.clips).append(psnr(frames, original))


def psnr(frames: Frames, original: Frames) -> float:
    """Peak signal-to-noise ratio in dB of uint8 arrays of one shape; 100 where they are equal."""
    error = np.square(frames.astype(np.float32) - original).mean(dtype=np.float64)
    return float(10 * np.log10(255**2 / error)) if error > 0 else 100.0


class Sheet:
    """Collects the first samples for a contact sheet, each under its source if there is one.

    Parameters
    ----------
    samples : how many will be offered; those shown are spread evenly over them
    """

    def __init__(self, samples: int) -> None:
        self._every = max(1, samples // SHEET_SAMPLES)
        self._offered = 0
        self.cells: list[tuple[list[Frames], list[Frames] | None, str]] = []

    def add(self, frames: Frames, original: Frames | None, record: dict[str, Any]) -> None:
        """Offer one sample."""
        shown = self._offered % self._every == 0 and len(self.cells) < SHEET_SAMPLES
        self._offered += 1
        if shown:
            self.cells.append((_spread(frames), None if original is None else _spread(original), record["key"]))

    def picture(self) -> Frames:
        """uint8 ``[H, W, 3]``."""
        if not self.cells:
            raise GrnError("there is no sample to show")
        rows: list[list[Frames]] = []
        captions: list[str] = []
        for length, alike in groupby(self.cells, key=lambda cell: len(cell[0])):
            cells = list(alike)
            across = max(1, SHEET_COLUMNS // length)
            for start in range(0, len(cells), across):
                chosen = cells[start : start + across]
                if any(original is not None for _, original, _ in chosen):
                    rows.append([frame for decoded, original, _ in chosen for frame in original or decoded])
                    captions += [""] * len(rows[-1])
                rows.append([frame for decoded, _, _ in chosen for frame in decoded])
                captions += [text for _, _, key in chosen for text in [key] + [""] * (length - 1)]
        return contact_sheet(rows, captions)


def _spread(frames: Frames) -> list[Frames]:
    """Up to four frames, evenly spread."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), SHEET_FRAMES)).round().astype(int)
    return list(frames[chosen])
