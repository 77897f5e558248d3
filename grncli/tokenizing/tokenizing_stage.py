"""``grn tokenize``: media to pixels, batches, bits, and one part of a bit store.

A batch never spans two groups of sources and a commit falls between two groups, so a killed run that is resumed makes
the same batches, hence the same bytes, as one that was never killed. A thread reads before the network, and another
writes after it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grncli.media.batches import ClipBatch, media_batches
from grncli.media.sources import describe_arguments
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter
from grncli.runtime.stopping import Stopped
from grncli.runtime.writer_status import reporting
from grncli.store import add_classes, open_part
from grncli.tokenizing.bit_encoder import BitEncoder
from grncli.tokenizing.caption_writing import add_captions
from grncli.tokenizing.part_work import PartWork, find_work, require_one_list
from grncli.tokenizing.sample_writer import SampleWriter
from grncli.tokenizing.tokenizing_plan import TokenizeSettings, TokenizingPlan, make_plan, with_classes_of

STOP_PATIENCE = 10.0  # seconds that a run asked to stop still waits for a decoder before it drops the group


@dataclass(frozen=True)
class TokenizingSummary:
    """What a run of ``tokenize`` read, and what the part holds."""

    out: Path  # the store
    sources: int  # of the part, also those that SRC lists no longer
    done: int  # sources processed so far, by this run and earlier ones
    samples: int
    failed: int
    ignored: int  # files that are no media
    made: int  # samples added by this run
    cut: int  # sources that were read in part, or without their end, by this run
    enlarged: int  # sources smaller than the size or budget, scaled up by this run
    captioned: int  # sources of the part that have captions
    uncaptioned: int  # sources with samples that have none
    lone_captions: int  # text files without media, where others have some; of all parts together
    seconds: float


def tokenize(
    src: str | Sequence[str], out: Path, run: str | Path, settings: TokenizeSettings, *, monitor: Monitor | None = None
) -> TokenizingSummary:
    """Encode the media of ``src`` with the tokenizer ``run`` into one part of the bit store ``out``.

    A complete store is left alone; an interrupted one is resumed. ``monitor`` is asked to stop between groups of
    sources, and says what is about to be encoded, each source that could not be read or was read in part only, each
    caption file that is none, and each doubt about the tokenizer, the classes or the captions.

    Raises
    ------
    Stopped
        If the monitor's stop asks for it; what was encoded is committed.
    UsageError, MediaError, CheckpointError, StoreError
        With nothing lost that was committed. MediaError with ``strict`` at the first unreadable source,
        or when no source at all could be read.
    """
    monitor = monitor or Monitor()
    plan = with_classes_of(out, make_plan(src, run, settings, monitor=monitor), settings)
    began = time.monotonic()
    with open_part(
        out,
        plan.stored_fingerprint,
        settings.part,
        settings.parts,
        overwrite=settings.overwrite,
        resumes=plan.begins_with,
    ) as part:
        before = part.samples
        work = find_work(out, plan, settings)
        if plan.new_classes:
            add_classes(out, plan.fingerprint.labels)
        with reporting(part.directory, "tokenize", "sources", monitor) as monitor:
            samples = SampleWriter(plan, work, settings, part, monitor)
            samples.require_strict()
            for line in [*plan.lines(), *plan.chosen.doubts, *work.lines()]:
                monitor.say(line)
            _encode(work, plan, settings, samples, monitor)
            sources = work.sources if settings.captions else ()
            captioned = len(add_captions(sources, part, monitor, strict=settings.strict))
            part.finish(partial(require_one_list, out, plan))
        if work.total and not part.samples:
            raise MediaError(
                f"{describe_arguments(src)}: none of {work.total} sources could be read; {out} holds no sample"
            )
        return TokenizingSummary(
            out=out,
            sources=work.total,
            done=part.position,
            samples=part.samples,
            failed=len(part.failures),
            ignored=plan.chosen.ignored,
            made=part.samples - before,
            cut=samples.noted,
            enlarged=samples.enlarged,
            captioned=captioned,
            uncaptioned=work.total - len(part.failures) - captioned,
            lone_captions=plan.chosen.lone_captions,
            seconds=time.monotonic() - began,
        )


def _encode(
    work: PartWork, plan: TokenizingPlan, settings: TokenizeSettings, samples: SampleWriter, monitor: Monitor
) -> None:
    """What failed, where it is to be tried again, then what is left; Stopped where the monitor asked for it."""
    encoder = BitEncoder(plan, settings)
    if settings.retry_failed:
        _encode_at(work.failed, work, plan, settings, encoder, samples, monitor)
    _encode_at(work.left, work, plan, settings, encoder, samples, monitor)


def _encode_at(
    places: Sequence[int],
    work: PartWork,
    plan: TokenizingPlan,
    settings: TokenizeSettings,
    encoder: BitEncoder,
    samples: SampleWriter,
    monitor: Monitor,
) -> None:
    """Sources at these places of the work into the store; Stopped where some are left."""
    left, total = len(places), work.total
    monitor.progress(samples.done, total, "")
    with (
        media_batches(
            work.sources,
            plan.reading,
            places,
            workers=settings.workers,
            batch=settings.batch,
            flip=settings.flip,
            stop=monitor.stop,
            patience=STOP_PATIENCE,
        ) as batches,
        BackgroundWriter() as writer,
    ):
        for batch in batches:
            if isinstance(batch, ClipBatch):
                encoder.encode(batch, writer)
                continue
            # Only here: stopping inside a group would lose its work, and a long clip would never be finished.
            writer.submit(partial(samples.write, batch))
            left -= len(batch.sources)
            if left and monitor.stop_reason:
                break
        writer.wait()
    samples.commit()
    if left:
        done = f"stopped after {samples.done} of {total} sources"
        raise Stopped(f"{monitor.stop_reason}: {done}, {samples.saved} samples are saved")
