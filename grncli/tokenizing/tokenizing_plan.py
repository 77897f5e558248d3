"""What ``grn tokenize`` will encode, with what, and what its store's fingerprint says: settled before any work."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from grncli.media.caption_files import may_have_captions
from grncli.media.classes import ClassLevel, LabelForm, SourceClasses, doubts, find_classes, read_class_names
from grncli.media.framing import Framing
from grncli.media.label_forms import LabelFile, parse_labels
from grncli.media.listing import ListingOptions, list_sources
from grncli.media.reading import ReadSettings, parse_reading
from grncli.media.selection import Selection
from grncli.media.sources import (
    Source,
    describe_arguments,
    describe_ignored,
    describe_lone,
    first_of_each,
)
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import counted
from grncli.store import MAX_PARTS, Fingerprint
from grncli.store.done_sources import OrderedKeys
from grncli.store.fingerprint import read_fingerprint
from grncli.store.root_kinds import BITS_ATTRIBUTE
from grncli.store.rows.byte_source import LocalFiles, root_attributes

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
    labels: str = "none"  # where the class is: a directory, a file beside, a manifest, a file; see `parse_labels`
    class_names: Path | None = None  # file of names in the order of their numbers; None sorts those that there are
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
    add: bool = False  # keep the samples of sources that SRC lists no longer, or that have changed
    captions: bool = True  # take those of a manifest and of files beside the media

    prefix_keys: bool = False  # begin each key with the name of its SRC or shard
    null: bool = False  # paths of lists and standard input end with a zero byte
    comments: bool = False  # lines of lists that begin with # are no paths
    columns: Mapping[str, str] | None = None  # of a manifest, instead of the usual ones
    outside: bool = False  # paths of a manifest may leave its folder
    listing_cache: Path | None = None  # folder that keeps the listings of archives

    @property
    def listing(self) -> ListingOptions:
        """How SRC is read."""
        return ListingOptions(
            prefixed=self.prefix_keys,
            null=self.null,
            comments=self.comments,
            columns=self.columns or {},
            outside=self.outside,
            cache=self.listing_cache,
        )


@dataclass(frozen=True)
class ChosenSources:
    """What of SRC is encoded, by all parts together."""

    sources: Sequence[Source]
    ignored: int  # files that are no media
    ignored_text: str  # how many, and of which suffixes; empty where there are none
    classes: SourceClasses | None
    doubts: Sequence[str]  # in sentences
    captioned: int = 0  # sources with a place for captions: a manifest, or a file beside them
    lone_captions: int = 0  # text files without media, where others have some
    lone_text: str = ""  # these and others like them in a sentence

    def class_of(self, source: Source) -> str | None:
        """Name of the class of a source."""
        return None if self.classes is None else self.classes.of(source)


@dataclass(frozen=True)
class TokenizingPlan:
    """The work of one part, before any of it is done."""

    src: str | Sequence[str]
    chosen: ChosenSources
    sources: Sequence[Source]  # of this part
    loaded: LoadedTokenizer
    rounds: int
    reading: ReadSettings
    fingerprint: Fingerprint
    new_classes: int = 0  # so many of its last labels the store has yet to be given

    @property
    def stored_fingerprint(self) -> Fingerprint:
        """The fingerprint that the store has before it is given new classes."""
        labels = self.fingerprint.labels
        return replace(self.fingerprint, labels=labels[: len(labels) - self.new_classes])

    def begins_with(self, done: int, digest: str) -> bool:
        """Whether so many sources of an earlier run, of that digest, are still the first ones."""
        return begin_with(self.sources, done, digest)

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
        """What is about to be encoded: counts, the first sources of each kind, classes and captions, a line each."""
        counts = self.counts()
        known = [counted(counts[f"{kind}s"], kind) for kind in ("image", "clip") if counts[f"{kind}s"]]
        kinds = ", ".join([*known, *([f"{counts['problems']} that cannot be read"] if counts["problems"] else [])])
        ignored = f"; {self.chosen.ignored_text}" if self.chosen.ignored_text else ""
        return [
            f"{describe_arguments(self.src)}: {kinds or 'no source falls to this part'}{ignored}",
            *first_of_each(self.sources),
            *([self.chosen.lone_text] if self.chosen.lone_text else []),
            *([str(self.chosen.classes)] if self.chosen.classes is not None else []),
            *([self._caption_line()] if self.chosen.captioned else []),
        ]

    def _caption_line(self) -> str:
        chosen = self.chosen
        lone = f", {chosen.lone_captions} more without media" if chosen.lone_captions else ""
        return (
            f"captions: {chosen.captioned} of {len(chosen.sources)} sources have a file beside them or a line of a "
            f"manifest{lone}; --no-captions leaves them out"
        )


def make_plan(
    src: str | Sequence[str], run: str | Path, settings: TokenizeSettings, *, monitor: Monitor | None = None
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
    if settings.add and settings.overwrite:
        raise UsageError("--add with --overwrite: expected one of the two")
    selection, form = Selection(settings.limit, settings.sample), parse_labels(settings.labels)
    class_names = None if settings.class_names is None else read_class_names(str(settings.class_names))
    if class_names is not None and form is None:
        raise UsageError("--class-names needs --labels, which says where the class of a source is")
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
    chosen = choose_sources(
        src, settings.listing, selection, form, class_names, captions=settings.captions, flip=settings.flip
    )
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
            "labels": "none" if form is None else str(form),
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
    src: str | Sequence[str],
    listing_options: ListingOptions,
    selection: Selection,
    form: LabelForm | None,
    class_names: Sequence[str] | None = None,
    *,
    captions: bool,
    flip: bool,
) -> ChosenSources:
    """List the sources and take those that are selected; their classes are named by all, so that more can follow."""
    listing = list_sources(src, listing_options)
    everything = listing.sources
    places = selection.places((source.relative for source in everything), len(everything))
    sources = [everything[place] for place in places]
    captioned = sum(map(may_have_captions, sources)) if captions else 0
    classes = None if form is None else find_classes(everything, sources, form, src, class_names)
    names = list(map(ClassLevel().of if classes is None else classes.of, everything))
    sentences = [
        selection.doubt(names, places),
        None if classes is None else doubts(classes, everything),
        form.doubt() if isinstance(form, LabelFile) else None,
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
        lone_text=describe_lone(listing),
    )


def with_classes_of(out: Path, plan: TokenizingPlan, settings: TokenizeSettings) -> TokenizingPlan:
    """The plan with the classes that the store ``out`` has, where it is there: labels are numbers of these.

    Raises
    ------
    StoreMismatch
        If the store lacks a class that the sources have, unless ``--add`` gives it to the store, behind the others.
    """
    source, ours = LocalFiles(out), plan.fingerprint.labels
    if settings.overwrite or not ours or BITS_ATTRIBUTE not in (root_attributes(source) or {}):
        return plan
    fingerprint = read_fingerprint(source)
    stored = fingerprint.labels
    if not stored or fingerprint.preprocessing != plan.fingerprint.preprocessing:
        return plan  # refused for more than its classes
    if settings.class_names is not None and ours[: len(stored)] != stored:
        return plan  # refused, as the list asks for another order
    known = frozenset(stored)
    lacking = [name for name in ours if name not in known]
    if lacking and not settings.add:
        raise StoreMismatch(
            f"{out} has {len(stored)} classes, and {describe_arguments(plan.src)} has others too (such as "
            f"{lacking[0]}); leave these out, choose another OUT, or add --add to give them the next numbers"
        )
    return replace(plan, fingerprint=replace(plan.fingerprint, labels=(*stored, *lacking)), new_classes=len(lacking))


def begin_with(sources: Sequence[Source], done: int, digest: str) -> bool:
    """Whether the first of ``sources`` are those of which so many were done in order, of that digest."""
    if not done:
        return True
    return done <= len(sources) and digest == OrderedKeys(source.relative for source in sources[:done]).digest()
