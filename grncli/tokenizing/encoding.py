"""``grn tokenize``: media to a bit store.

Sources go through in a fixed order, in *groups* that depend on nothing but the sources themselves. A batch never
spans two groups and a commit falls between two groups, so a killed run that is resumed makes the same batches, hence
the same bytes, as one that was never killed.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from grncli.hbq import pack, quantize
from grncli.media.classes import Classes, ClassLevel, doubts, find_classes, parse_labels
from grncli.media.decoder import DecoderPool, Done
from grncli.media.framing import parse_size
from grncli.media.reading import ReadSettings
from grncli.media.selection import Selection
from grncli.media.sources import Source, describe_ignored, list_sources
from grncli.models.tokenizer import to_input
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import GrnError, MediaError, StoreMismatch, UsageError
from grncli.runtime.overlap import Behind, Prefetch
from grncli.runtime.stopping import Stop, Stopped
from grncli.runtime.text import printable
from grncli.store import MAX_PARTS, Fingerprint, PartWriter, is_interrupted, open_part, open_store
from grncli.tokenizing.gathering import Clip, Gatherer, Group, Read, Work, bits_of, neighbours_of_one_grid

COMMIT_SECONDS = 5.0
STOP_PATIENCE = 10.0  # seconds that a run asked to stop still waits for a decoder before it gives up the group
SHOWN_NOTES = 5
MIN_FPS, MAX_FPS = 0.01, 1000.0


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """The options of ``grn tokenize``; the first block decides what the bits are, the second only how they are made."""

    size: str = "native"  # 256 (ADM centre crop), HxW (cover and centre crop), or native
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


@dataclass(frozen=True)
class Summary:
    """What a run of ``tokenize`` found and left."""

    sources: int
    done: int  # sources processed so far, by this run and earlier ones
    samples: int
    failed: int
    ignored: int  # files that are no media
    made: int  # samples added by this run
    cut: int  # sources that were read in part, or lack their end, by this run
    seconds: float


@dataclass(frozen=True)
class Chosen:
    """What of SRC is encoded."""

    sources: Sequence[Source]
    ignored: int  # files that are no media
    ignored_text: str  # how many, and of which suffixes; empty where there are none
    classes: Classes | None
    doubts: Sequence[str]  # in sentences


@dataclass(frozen=True)
class Plan:
    """The work of one part, before any of it is done."""

    src: str
    chosen: Chosen  # for all parts
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
        }

    def lines(self) -> list[str]:
        """What is about to be encoded, in a line or two."""
        counts = self.counts()
        told = {"images": "images", "clips": "clips", "problems": "that cannot be read"}
        kinds = ", ".join(f"{counts[name]} {text}" for name, text in told.items() if counts[name])
        ignored = f"; {self.chosen.ignored_text}" if self.chosen.ignored_text else ""
        return [
            f"{printable(self.src)}: {kinds or 'no source falls to this part'}{ignored}",
            *([str(self.chosen.classes)] if self.chosen.classes is not None else []),
        ]


Report = Callable[[int, int, str], None]
Say = Callable[[str], None]


def tokenize(
    src: str,
    out: Path,
    run: str | Path,
    settings: TokenizeSettings,
    *,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    warn: Say = lambda text: None,
    say: Say = lambda text: None,
) -> Summary:
    """Encode the media of ``src`` with the tokenizer ``run`` into one part of the bit store ``out``.

    A store that is already complete is left alone; one that was interrupted is gone on with.

    Parameters
    ----------
    stop : asked between groups
    report : told (sources done, sources in all, a note) now and then
    warn : told one sentence for each source that could not be read or was read in part only, and for each doubt about
        the tokenizer or the classes
    say : told what is about to be done, in a line or two

    Raises
    ------
    Stopped
        If ``stop`` asked for it; what was encoded is committed.
    UsageError, MediaError, CheckpointError, StoreError
        With nothing lost that was committed. MediaError with ``strict`` at the first unreadable source,
        or when no source at all could be read.
    """
    plan = make_plan(src, run, settings, warn=warn)
    began = time.monotonic()
    with open_part(
        out, plan.fingerprint, settings.part, settings.parts, overwrite=settings.overwrite, goes_on=plan.begins_with
    ) as writer:
        encoder = Encoder(plan, settings, writer, stop or Stop(), report, warn)
        encoder.resume()
        for line in plan.lines():
            say(line)
        for doubt in plan.chosen.doubts:
            warn(doubt)
        if settings.retry_failed:
            encoder.retry()
        encoder.go_on()
        writer.finish()
        if plan.sources and not writer.samples:
            raise MediaError(f"{src}: none of {len(plan.sources)} sources could be read; {out} holds no sample")
        return Summary(
            sources=len(plan.sources),
            done=writer.position,
            samples=writer.samples,
            failed=len(writer.failures),
            ignored=plan.chosen.ignored,
            made=writer.samples - encoder.before,
            cut=encoder.noted,
            seconds=time.monotonic() - began,
        )


def make_plan(src: str, run: str | Path, settings: TokenizeSettings, *, warn: Say = lambda text: None) -> Plan:
    """List the sources, load the tokenizer and settle what the store's fingerprint will be; nothing is written.

    ``warn`` is told in a sentence where the tokenizer's training is not finished.
    """
    if settings.parts > MAX_PARTS:
        raise UsageError(f"--part {settings.part}/{settings.parts}: expected at most {MAX_PARTS} parts")
    if not 0 <= settings.part < settings.parts:
        raise UsageError(f"--part {settings.part}/{settings.parts}: parts count from 0 to {settings.parts - 1}")
    selection, level = Selection(settings.limit, settings.sample), parse_labels(settings.labels)
    loaded = open_tokenizer(run, say=warn)
    tokenizer = loaded.network
    rounds = settings.rounds or tokenizer.rounds
    if rounds is None:
        raise UsageError(f"{run} was trained without quantization; name the number of bits with --rounds 1 to 8")
    reading = read_settings(settings, tokenizer.stride)
    chosen = choose_sources(src, selection, level)
    fingerprint = Fingerprint(
        rounds=rounds,
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        tokenizer=loaded.identity,
        preprocessing={
            "size": str(reading.framing),
            "frames": settings.frames,
            "fps": settings.fps,
            "clips": settings.clips,
            "flip": settings.flip,
            "labels": "none" if level is None else str(level),
            "dtype": settings.dtype,
            # A larger draw has other sources among the first ones, so that it cannot go on with a smaller one's store.
            **({} if settings.sample is None else {"sample": settings.sample}),
        },
        labels=() if chosen.classes is None else chosen.classes.names,
        parts=settings.parts,
        versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
    )
    return Plan(src, chosen, chosen.sources[settings.part :: settings.parts], loaded, rounds, reading, fingerprint)


def choose_sources(src: str, selection: Selection, level: ClassLevel | None) -> Chosen:
    """List the sources and take those that are selected; their classes are named by all, so that more can follow."""
    listing = list_sources(src)
    everything = listing.sources
    places = selection.places((source.relative for source in everything), len(everything))
    sources = [everything[place] for place in places]
    classes = None if level is None else find_classes(everything, sources, level, src)
    names = [(level or ClassLevel()).of(source) for source in everything]
    found = [selection.doubt(names, places), None if classes is None else doubts(classes, everything)]
    ignored = describe_ignored(listing) if listing.ignored else ""
    return Chosen(sources, listing.ignored, ignored, classes, [doubt for doubt in found if doubt is not None])


def check_target(out: Path, plan: Plan, settings: TokenizeSettings) -> str:
    """What a run would do with ``out``, in words; StoreError or StoreMismatch where it would refuse."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return "would be made"
    store = open_store(out)
    if settings.overwrite and not is_interrupted(out, plan.fingerprint, settings.part, plan.begins_with):
        return f"would be made anew, its {len(store)} samples discarded"
    store.fingerprint.require(plan.fingerprint, out, "Use the same settings, another OUT, or --overwrite.")
    done = next((part.position for part in store.parts if part.part == settings.part), 0)
    if done >= len(plan.sources):
        return "has all sources, nothing would be done"
    return f"would be gone on with, {done} of {len(plan.sources)} sources are done"


def read_settings(settings: TokenizeSettings, stride: tuple[int, int, int]) -> ReadSettings:
    """How sources become pixels; UsageError where an option does not fit the tokenizer's stride."""
    framing = parse_size(settings.size)
    for side, step in ((framing.height, stride[1]), (framing.width, stride[2])):
        if side is not None and side % step:
            raise UsageError(f"--size {settings.size}: {side} is no multiple of the tokenizer's stride {step}")
    if settings.frames is not None and (settings.frames < 1 or (settings.frames - 1) % stride[0]):
        raise UsageError(f"--frames {settings.frames}: expected 1 + {stride[0]}n, such as {1 + 4 * stride[0]}")
    if settings.fps is not None and not MIN_FPS <= settings.fps <= MAX_FPS:
        raise UsageError(f"--fps {settings.fps:g}: expected {MIN_FPS:g} to {MAX_FPS:g} frames a second")
    if settings.clips is not None and settings.frames is None:
        raise UsageError("--clips needs --frames: without it a source is one clip, taken whole")
    return ReadSettings(framing, stride, settings.frames, settings.fps, settings.clips)


class Encoder:
    """One run over the sources of a part: a reader thread before the network, a writer thread behind it."""

    def __init__(
        self,
        plan: Plan,
        settings: TokenizeSettings,
        writer: PartWriter,
        stop: Stop,
        report: Report,
        warn: Say,
    ) -> None:
        self.plan = plan
        self.settings = settings
        self.writer = writer
        self.stop = stop
        self.report = report
        self.warn = warn
        self.device = torch.device(settings.device)
        self.class_index: dict[str | None, int] = {name: i for i, name in enumerate(plan.fingerprint.labels)}
        self.network = plan.loaded.network.to(self.device)
        self.digest = hashlib.sha256()
        self.committed = time.monotonic()
        self.done = writer.position
        self.before = writer.samples
        self.noted = 0

    def resume(self) -> None:
        """Check that the sources of earlier runs are still the first ones, in the same order."""
        done = self.writer.position
        self.digest = digest_of(self.plan.sources[:done])
        if done > len(self.plan.sources) and self.settings.limit is not None:
            raise UsageError(f"--limit {self.settings.limit}: {self.writer.directory} holds {done} sources already")
        if done > len(self.plan.sources) or (done and self.digest.hexdigest() != self.writer.digest):
            sample = self.settings.sample
            now = "SRC lists now" if sample is None else f"--sample {sample} draws from SRC now"
            same = "the same SRC" + (" (new files may only follow the old ones)" if sample is None else ", unchanged")
            raise StoreMismatch(
                f"{self.writer.directory} holds the first {done} of other sources than {now}; "
                f"give {same}, another OUT, or --overwrite"
            )
        if self.settings.strict and self.writer.failures and not self.settings.retry_failed:
            first = next(iter(self.writer.failures.values()))
            raise MediaError(
                f"{first['source']}: {first['error']}; recorded by an earlier run without --strict. "
                "Mend it and add --retry-failed"
            )

    def go_on(self) -> None:
        """Encode what no earlier run has."""
        self._encode(range(self.writer.position, len(self.plan.sources)))

    def retry(self) -> None:
        """Try the sources again that failed in an earlier run, in their order."""
        self._encode(sorted(line["position"] for line in self.writer.failures.values()))

    def _encode(self, positions: Sequence[int]) -> None:
        left = len(positions)
        self.report(self.done, len(self.plan.sources), "")
        with (
            DecoderPool(self.settings.workers) as pool,
            Prefetch(self._read(pool, positions), depth=3, stop_when=self._must_leave, abandon=pool.abandon) as works,
            Behind() as behind,
        ):
            for work in works:
                if work.ended is None:
                    self._run(work, behind)
                    continue
                # Only here: what a started group has cost would be lost, and a long clip never come to its end.
                behind.submit(partial(self._write, work.ended))
                left -= len(work.ended.reads)
                if left and self.stop.reason:
                    break
            behind.wait()
        self._commit()
        if left:
            raise Stopped(self._account())

    def _must_leave(self, waited: float) -> bool:
        """Whether to stop in the middle of a group, because decoding hangs or crawls."""
        return waited >= STOP_PATIENCE and self.stop.reason is not None

    def _commit(self) -> None:
        self.writer.commit(self.done, self.digest.hexdigest(), len(self.plan.sources))
        self.committed = time.monotonic()

    def _account(self) -> str:
        done = f"stopped after {self.done} of {len(self.plan.sources)} sources"
        return f"{self.stop.reason}: {done}, {self.writer.samples} samples are saved"

    def _read(self, pool: DecoderPool, positions: Sequence[int]) -> Iterator[Work]:
        """Decode sources and gather clips of one shape into batches (on a thread of its own)."""
        sources = self.plan.sources
        gatherer = Gatherer(self.settings.batch, self.settings.flip)
        for index, event in pool.read((sources[i] for i in positions), self.plan.reading):
            if isinstance(event, Done):
                gatherer.end_source(positions[index], sources[positions[index]], event)
                if gatherer.is_full or index == len(positions) - 1:
                    yield from gatherer.end_group()
            else:
                yield from gatherer.add(event)

    def _run(self, work: Work, behind: Behind) -> None:
        """The network's part: frames to packed bits, taken off the device by the writer thread."""
        assert work.frames is not None
        try:
            packed = self._encode_batch(work.frames)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(work.clips) > 1:
                for clip, frames in zip(work.clips, torch.split(work.frames, 1), strict=True):
                    self._run(Work(frames, [clip]), behind)
                return
            _, height, width, _ = work.frames.shape[1:]
            work.clips[0].error = f"{width}x{height} pixels do not fit into memory; give a smaller --size"
            return

        def deliver() -> None:
            for clip, bits in zip(work.clips, packed.cpu().numpy(), strict=True):
                clip.bits = bits

        behind.submit(deliver)

    def _encode_batch(self, frames: Tensor) -> Tensor:
        """uint8 ``[B, T, H, W, 3]`` to packed bits, both on their own devices."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16")
        with torch.inference_mode(), autocast:
            feature = self.network.encode(to_input(frames.to(self.device, non_blocking=True)))
        try:
            return pack(quantize(feature, self.plan.rounds), self.plan.rounds)
        except ValueError as error:
            raise GrnError(f"{self.plan.fingerprint.tokenizer['name']}: {error}") from None

    def _write(self, group: Group) -> None:
        """The writer thread's part: samples and failures in the order of the sources, then perhaps a commit."""
        for read in group.reads:
            read.settle()
            if read.error is not None:
                self._note_failure(read)
            elif read.source.name in self.writer.failures:
                self.writer.fail(read.source.name, read.position, None)
            self._note(read)
        for grid, samples in neighbours_of_one_grid(group.reads):
            self.writer.append(
                grid,
                np.stack([bits_of(clip) for _, clip in samples]),
                [self.class_index.get(self._class_of(read.source), -1) for read, _ in samples],
                [self._line(read, clip) for read, clip in samples],
            )
        first_time = [read for read in group.reads if read.position >= self.done]
        add_to_digest(self.digest, (read.source for read in first_time))
        self.done += len(first_time)
        if time.monotonic() - self.committed >= COMMIT_SECONDS:
            self._commit()
        failed = len(self.writer.failures)
        self.report(self.done, len(self.plan.sources), f"{failed} failed" if failed else "")

    def _note(self, read: Read) -> None:
        """Name the first few sources of which a part was left out, and count the others."""
        if read.note:
            self.noted += 1
            if self.noted <= SHOWN_NOTES:
                self.warn(f"{read.source.name}: {read.note}")
            if self.noted == SHOWN_NOTES:
                self.warn("further sources with a note like these are counted only")

    def _note_failure(self, read: Read) -> None:
        sentence = f"{read.source.name}: {read.error}"
        if self.settings.strict:
            self._commit()
            raise MediaError(f"{sentence}; stopped because of --strict, {self.writer.samples} samples are saved")
        known = self.writer.failures.get(read.source.name)
        if known is None or known["error"] != read.error:
            self.writer.fail(read.source.name, read.position, read.error)
        self.warn(f"{sentence}; skipped")

    def _line(self, read: Read, clip: Clip) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample; ``key`` names it uniquely within the store."""
        key = read.source.relative
        line: dict[str, Any] = {"source": read.source.name}
        if clip.number is not None:
            key += f"#{clip.number}"
            line["clip"] = clip.number
        if clip.fps is not None:
            line |= {"start": clip.start, "frames": clip.frames, "fps": clip.fps}
        if clip.flip:
            key += "#flip"
            line["flip"] = True
        if self.plan.chosen.classes is not None:
            line["label"] = self._class_of(read.source)
        return {"key": key, **line}

    def _class_of(self, source: Source) -> str | None:
        return None if self.plan.chosen.classes is None else self.plan.chosen.classes.level.of(source)


def digest_of(sources: Iterable[Source]) -> "hashlib._Hash":
    """Over the names of processed sources, so that a resumed run notices when SRC has changed."""
    digest = hashlib.sha256()
    add_to_digest(digest, sources)
    return digest


def add_to_digest(digest: "hashlib._Hash", sources: Iterable[Source]) -> None:
    """Go on with the digest of the sources before these."""
    for source in sources:
        digest.update(json.dumps(source.relative).encode())


def _out_of_memory(error: Exception) -> bool:
    """Whether PyTorch or Python failed to get memory; on a CPU PyTorch says so in words only."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
