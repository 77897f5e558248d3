"""Decoded samples against their sources: PSNR and contact sheets."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any

import numpy as np
from pydantic import Field, Strict

from grncli.decoding.outputs import source_key
from grncli.media.budgets import MOST_PIXELS
from grncli.media.framing import budget_framing, parse_size
from grncli.media.listing import ListingOptions, list_sources
from grncli.media.reading import ReadSettings, read_pieces
from grncli.media.sources import Source
from grncli.media.writing import Frames, contact_sheet, shown_frames
from grncli.metrics.quality import mean_over_frames, psnr
from grncli.runtime.checking import Text, check
from grncli.runtime.errors import MediaError, StoreError, UsageError
from grncli.store import METADATA, BitStore

SHEET_SAMPLES = 24
SHEET_COLUMNS = 8


@dataclass
class Quality:
    """Peak signal-to-noise ratio in dB against the sources, of each sample: the mean over its frames."""

    images: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    missing: int = 0  # samples whose source was not found or not read

    def add(self, frames: Frames, original: Frames | None) -> None:
        """Count one sample's PSNR, or that it has none."""
        if original is None or original.shape != frames.shape:
            self.missing += 1
        else:
            (self.images if len(frames) == 1 else self.clips).append(mean_over_frames(psnr, frames, original))

    def means(self) -> dict[str, float | int]:
        """Mean over images and over clips, each where there are any."""
        named = (("image_psnr", self.images), ("clip_psnr", self.clips))
        means: dict[str, float | int] = {name: float(np.mean(values)) for name, values in named if values}
        return means | ({"not_compared": self.missing} if self.missing else {})


@dataclass(frozen=True)
class _StoredReading:
    """What the settings of a store say about how sources became pixels."""

    size: Text | None
    frames: Annotated[int, Strict(), Field(ge=1)] | None
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    clips: Annotated[int, Strict(), Field(ge=1)] | None
    budget: Annotated[int, Strict(), Field(ge=1, le=MOST_PIXELS)] | None = None  # instead of a size


class SourceFrames:
    """The sources of a store's samples, read again the way ``grn tokenize`` read them."""

    def __init__(self, src: str, store: BitStore) -> None:
        if "size" not in store.fingerprint.preprocessing:
            raise UsageError(f"--compare {src}: {store.path} was not made from media, its samples have no sources")
        name, remedy = f"{store.path / METADATA}: preprocessing", "restore the file, or make the store again"
        options = check(dict(store.fingerprint.preprocessing), _StoredReading, name, error=StoreError, remedy=remedy)
        try:
            framing = parse_size(options.size or "") if options.budget is None else budget_framing(options.budget)
        except UsageError as error:
            raise StoreError(f"{name}: {error}; {remedy}") from None
        self._settings = ReadSettings(framing, store.stride, options.frames, options.fps, options.clips)
        self._sources = _sources_by_key(src)
        if not self._sources:
            raise UsageError(f"--compare {src}: holds no media")
        self._last: tuple[Source, dict[int | None, Frames]] | None = None

    def find(self, record: dict[str, Any]) -> Frames | None:
        """uint8 ``[T, H, W, 3]`` that a sample was made from; None where the source is gone or unreadable."""
        source = self._sources.get(source_key(record))
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


def _sources_by_key(src: str) -> dict[str, Source]:
    """Sources by the keys that ``grn tokenize`` gives them, without and with ``--prefix-keys``."""
    sources = list_sources(src, ListingOptions(prefixed=True)).sources
    plain = {source.within: source for source in sources}
    # Where shards share names, only their prefixed keys are keys.
    return {source.relative: source for source in sources} | (plain if len(plain) == len(sources) else {})


class Comparison:
    """Decoded samples beside their sources: PSNR, and the first samples on a contact sheet.

    Parameters
    ----------
    sources : where the originals are found, if they are compared
    samples : how many will be added, those on the sheet spread evenly over them; 0 for no sheet
    """

    def __init__(self, sources: SourceFrames | None, samples: int) -> None:
        self.quality = Quality()
        self._sources = sources
        self._samples = samples
        self._every = max(1, samples // SHEET_SAMPLES)
        self._added = 0
        self._cells: list[tuple[list[Frames], list[Frames] | None, str]] = []

    @property
    def wanted(self) -> bool:
        """Whether anything is measured or shown, which takes the pixels of all samples."""
        return self._sources is not None or self._samples > 0

    def add(self, frames: Frames, record: dict[str, Any]) -> None:
        """Add the next sample."""
        original = None
        if self._sources is not None:
            original = self._sources.find(record)
            self.quality.add(frames, original)
        if self._samples and self._added % self._every == 0 and len(self._cells) < SHEET_SAMPLES:
            shown = None if original is None else shown_frames(original)
            self._cells.append((shown_frames(frames), shown, record["key"]))
        self._added += 1

    def sheet(self) -> Frames:
        """uint8 ``[H, W, 3]``, each sample below its source if there is one."""
        rows: list[list[Frames]] = []
        captions: list[str] = []
        for length, alike in groupby(self._cells, key=lambda cell: len(cell[0])):
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
