"""What ``grn tokenize`` will encode, with what, and what its store's fingerprint says: settled before any work."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from grncli.media.classes import ClassLevel, SourceClasses, doubts, find_classes, parse_labels
from grncli.media.framing import Framing
from grncli.media.reading import ReadSettings, parse_reading
from grncli.media.selection import Selection
from grncli.media.sources import Source, describe_ignored, list_sources
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import printable
from grncli.store import MAX_PARTS, Fingerprint, is_interrupted, open_store

_MIRRORED = (
    "--flip: a mirrored copy shares the captions of its source, which is wrong where they say left or right; "
    "leave --flip out for such captions"
)


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """The options of ``grn tokenize``; the first block decides what the bits are, the second only how they are made."""

    size: str | None = None  # 256 (ADM centre crop), HxW (cover and centre crop), or native, the default
    budget: str | None = None  # 0.06M, ..., 2M or WxH: an area, covered at the nearest of 15 aspect ratios
    frames: int | None = None  # of each clip, 1 + stride * n; None takes whole clips
    fps: float | None = None
    clips: int | None = None  # windows taken from each source; None takes all
    labels: str = "none"  # or dirs, dirs:N: which directory is the class, see `parse_labels`
    flip: bool = False  # store the mirrored picture too
    rounds: int | None = None  # None takes the tokenizer's
    dtype: Literal["float32", "bfloat16"] = "float32"

    batch: int | None = None
    workers: int = 1
    device: str = "cpu"
    part: int = 0
    parts: int = 1
    limit: int | None = None
    sample: int | None = None  # sources drawn by their names; decides what the store is made of
    strict: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    captions: bool = True  # take those that lie beside the media


@dataclass(frozen=True)
class ChosenSources:
    """What of SRC is encoded, by all parts together."""

    sources: Sequence[Source]
    ignored: int  # files that are no media
    ignored_text: str  # how many, and of which suffixes; empty where there are none
    classes: SourceClasses | None
    doubts: Sequence[str]  # in sentences
    captioned: int = 0  # sources with a text file beside them
    lone_captions: int = 0  # text files without media, where others have some

    def class_of(self, source: Source) -> str | None:
        """Name of the class of a source."""
        return None if self.classes is None else self.classes.level.of(source)


@dataclass(frozen=True)
class TokenizingPlan:
    """The work of one part, before any of it is done."""

    src: str
    chosen: ChosenSources
    sources: Sequence[Source]  # of this part
    loaded: LoadedTokenizer
    rounds: int
    reading: ReadSettings
    fingerprint: Fingerprint

    def begins_with(self, done: int, digest: str) -> bool:
        """Whether so many sources of an earlier run, of that digest, are still the first ones."""
        return done <= len(self.sources) and (not done or digest == digest_of(self.sources[:done]).hexdigest())

    def counts(self) -> dict[str, int]:
        """Sources by kind, and those that cannot be read for a reason the listing already shows."""
        kinds = Counter(source.kind for source in self.sources if source.problem is None)
        return {
            "images": kinds["image"],
            "clips": kinds["clip"],
            "problems": len(self.sources) - kinds.total(),
            "ignored": self.chosen.ignored,
            "classes": len(self.fingerprint.labels),
            "captioned": self.chosen.captioned,
        }

    def lines(self) -> list[str]:
        """What is about to be encoded, in a line or two."""
        counts = self.counts()
        words = {"images": "images", "clips": "clips", "problems": "that cannot be read"}
        kinds = ", ".join(f"{counts[name]} {text}" for name, text in words.items() if counts[name])
        ignored = f"; {self.chosen.ignored_text}" if self.chosen.ignored_text else ""
        return [
            f"{printable(self.src)}: {kinds or 'no source falls to this part'}{ignored}",
            *([str(self.chosen.classes)] if self.chosen.classes is not None else []),
            *([self._caption_line()] if self.chosen.captioned else []),
        ]

    def _caption_line(self) -> str:
        chosen = self.chosen
        lone = f", {chosen.lone_captions} more without media" if chosen.lone_captions else ""
        return (
            f"captions: {chosen.captioned} of {len(chosen.sources)} sources have a text file beside them{lone}; "
            "--no-captions leaves them out"
        )


def make_plan(
    src: str, run: str | Path, settings: TokenizeSettings, *, monitor: Monitor | None = None
) -> TokenizingPlan:
    """List the sources, open the tokenizer and settle what the store's fingerprint will be; nothing is written.

    ``monitor`` says where the tokenizer's training is not finished.

    Raises
    ------
    UsageError, MediaError, CheckpointError
    """
    monitor = monitor or Monitor()
    if settings.parts > MAX_PARTS:
        raise UsageError(f"--part {settings.part}/{settings.parts}: expected at most {MAX_PARTS} parts")
    if not 0 <= settings.part < settings.parts:
        raise UsageError(f"--part {settings.part}/{settings.parts}: parts count from 0 to {settings.parts - 1}")
    selection, level = Selection(settings.limit, settings.sample), parse_labels(settings.labels)
    loaded = open_tokenizer(run, say=monitor.say)
    tokenizer = loaded.network
    rounds = settings.rounds or tokenizer.rounds
    if rounds is None:
        raise UsageError(f"{run} was trained without quantization; name the number of bits with --rounds 1 to 8")
    reading = parse_reading(
        tokenizer.stride,
        size=settings.size,
        budget=settings.budget,
        frames=settings.frames,
        fps=settings.fps,
        clips=settings.clips,
    )
    chosen = choose_sources(src, selection, level, captions=settings.captions, flip=settings.flip)
    fingerprint = Fingerprint(
        rounds=rounds,
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        tokenizer=loaded.identity,
        preprocessing={
            **_described_framing(reading.framing),
            "frames": settings.frames,
            "fps": settings.fps,
            "clips": settings.clips,
            "flip": settings.flip,
            "labels": "none" if level is None else str(level),
            "dtype": settings.dtype,
            # A larger draw has other sources among the first ones, so that it cannot resume a smaller one's store.
            **({} if settings.sample is None else {"sample": settings.sample}),
        },
        labels=() if chosen.classes is None else chosen.classes.names,
        parts=settings.parts,
        versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
    )
    sources = chosen.sources[settings.part :: settings.parts]
    return TokenizingPlan(src, chosen, sources, loaded, rounds, reading, fingerprint)


def _described_framing(framing: Framing) -> dict[str, str | int | None]:
    """For the fingerprint; a budget as its area in pixels, whichever way it was written."""
    return {"size": str(framing)} if framing.pixels is None else {"size": None, "budget": framing.pixels}


def choose_sources(
    src: str, selection: Selection, level: ClassLevel | None, *, captions: bool, flip: bool
) -> ChosenSources:
    """List the sources and take those that are selected; their classes are named by all, so that more can follow."""
    listing = list_sources(src)
    everything = listing.sources
    places = selection.places((source.relative for source in everything), len(everything))
    sources = [everything[place] for place in places]
    captioned = sum(source.caption is not None for source in sources) if captions else 0
    classes = None if level is None else find_classes(everything, sources, level, src)
    names = [(level or ClassLevel()).of(source) for source in everything]
    sentences = [
        selection.doubt(names, places),
        None if classes is None else doubts(classes, everything),
        _MIRRORED if flip and captioned else None,
    ]
    return ChosenSources(
        sources=sources,
        ignored=listing.ignored,
        ignored_text=describe_ignored(listing) if listing.ignored else "",
        classes=classes,
        doubts=[text for text in sentences if text is not None],
        captioned=captioned,
        lone_captions=listing.lone_captions if captions else 0,
    )


def describe_target(out: Path, plan: TokenizingPlan, settings: TokenizeSettings) -> str:
    """What a run would do with ``out``, in words; StoreError or StoreMismatch where it would refuse."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return "would be created"
    store = open_store(out)
    if settings.overwrite and not is_interrupted(out, plan.fingerprint, settings.part, plan.begins_with):
        return f"would be replaced, its {len(store)} samples discarded"
    store.fingerprint.require(plan.fingerprint, out, "Use the same settings, another OUT, or --overwrite.")
    done = next((part.position for part in store.parts if part.part == settings.part), 0)
    if done >= len(plan.sources):
        return "has all sources, nothing would be done"
    return f"would resume at source {done} of {len(plan.sources)}"


def digest_of(sources: Iterable[Source]) -> "hashlib._Hash":
    """Over the names of processed sources, so that a resumed run notices when SRC has changed."""
    digest = hashlib.sha256()
    add_to_digest(digest, sources)
    return digest


def add_to_digest(digest: "hashlib._Hash", sources: Iterable[Source]) -> None:
    """Continue the digest of the sources before these."""
    for source in sources:
        digest.update(json.dumps(source.relative).encode())
