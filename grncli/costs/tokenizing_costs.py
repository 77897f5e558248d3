"""What ``grn tokenize`` would take: some sources of each kind are encoded, and their bits dropped."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from grncli.costs.run_costs import DiskNeed, Rate, RunCosts
from grncli.costs.trials import Clock, MemoryWatch
from grncli.machine.system_limits import disk
from grncli.media.batches import ClipBatch, SourceGroup, media_batches
from grncli.media.clip_spans import read_stretch
from grncli.media.clips import ClipReading
from grncli.media.reading import ReadSettings, on_disk, opened
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError
from grncli.runtime.jsonlines import encode_line
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter
from grncli.store import Grid, grid_name
from grncli.store.bits import BitSchema
from grncli.tokenizing.bit_encoder import BitEncoder
from grncli.tokenizing.part_work import find_work
from grncli.tokenizing.tokenizing_plan import TokenizeSettings, TokenizingPlan

MOST_TRIED = 4096  # sources of a kind
MOST_HEADERS = 16  # clips whose length is looked up


@dataclass
class KindTrial:
    """What some sources of one kind gave."""

    clock: Clock
    read: int = 0  # sources that were read to their end, or failed
    failed: int = 0
    samples: int = 0  # of those read
    grids: Counter[Grid] = field(default_factory=Counter)  # of all samples encoded
    line_bytes: float = 0.0  # of what is written about a sample beside its bits

    @property
    def samples_of_a_source(self) -> float:
        """Mean over those that were read to their end; 1 where there is none."""
        return self.samples / self.read if self.read else 1.0


def tokenizing_costs(
    plan: TokenizingPlan, out: Path, settings: TokenizeSettings, *, monitor: Monitor | None = None
) -> RunCosts:
    """What is left to do for ``out``, by some of the sources that are left, drawn at random; ``out`` is not touched.

    ``monitor`` may end the trial early, and what was measured until then is used.
    """
    monitor = monitor or Monitor()
    left = _left(plan, out, settings)
    watch, encoder = MemoryWatch(torch.device(settings.device)), BitEncoder(plan, settings)
    samples: Counter[Grid] = Counter()
    windows, lines, seconds, rates = 0, 0.0, 0.0, []
    failed = float(sum(source.problem is not None for source in left))
    for kind in ("image", "clip"):
        own = [source for source in left if source.kind == kind and source.problem is None]
        if not own:
            continue
        drawn = random.Random(0).sample(own, min(MOST_TRIED, len(own)))
        trial = _try(drawn, plan, settings, encoder, watch, monitor)
        share = _windows_by_headers(drawn, plan.reading) if kind == "clip" else None
        count = round(len(own) * (trial.samples_of_a_source if share is None else share * (1 + settings.flip)))
        windows += count if kind == "clip" else 0
        failed += len(own) * trial.failed / max(1, trial.read)
        tried = trial.grids.total()
        samples.update({grid: round(count * number / tried) for grid, number in trial.grids.items()})
        lines += count * trial.line_bytes
        rate = trial.clock.rate()
        if rate is not None:
            rates.append(rate)
            seconds += rate.seconds_for(count)
    space = disk(out)
    return RunCosts(
        command="tokenize",
        counts={
            "sources": len(left),
            "samples": samples.total(),
            "windows": windows,
            "failing": round(failed),
            "tokens": sum(count * grid[0] * grid[1] * grid[2] for grid, count in samples.items()),
        },
        seconds=seconds if rates or not left else None,
        rates=rates,
        memory=watch.use(decoders=settings.workers, processes=settings.parts),
        disk=DiskNeed(written=_store_bytes(plan, samples) + round(lines), free=space.free, place=space.path),
        details={"grids": {grid_name(grid): count for grid, count in sorted(samples.items())}},
        notes=_notes(left, rates, settings),
    )


def _left(plan: TokenizingPlan, out: Path, settings: TokenizeSettings) -> Sequence[Source]:
    """Sources of this part that an earlier run has not processed."""
    if settings.overwrite or not out.exists() or not any(out.iterdir()):
        return plan.sources
    work = find_work(out, plan, settings)
    return [work.sources[place] for place in work.left]


def _try(
    drawn: Sequence[Source],
    plan: TokenizingPlan,
    settings: TokenizeSettings,
    encoder: BitEncoder,
    watch: MemoryWatch,
    monitor: Monitor,
) -> KindTrial:
    """Encode sources until time is over."""
    trial = KindTrial(Clock("samples"))
    with (
        media_batches(
            drawn,
            plan.reading,
            workers=settings.workers,
            batch=settings.batch,
            flip=settings.flip,
            stop=monitor.stop,
        ) as batches,
        BackgroundWriter() as writer,
    ):
        for batch in batches:
            if isinstance(batch, ClipBatch):
                encoder.encode(batch, writer)
                writer.wait()
                watch.look()
                trial.clock.mark(len(batch.clips))
                trial.grids.update(clip.result.shape[:3] for clip in batch.clips if clip.result is not None)
            else:
                _count(batch, trial)
            if trial.clock.is_over or monitor.stop_reason:
                break
    return trial


def _count(group: SourceGroup, trial: KindTrial) -> None:
    for read in group.sources:
        read.settle()
        trial.read += 1
        trial.failed += read.error is not None
        trial.samples += len(read.clips)
    if trial.samples:
        source = group.sources[-1].source
        line = {"key": source.relative, "source": source.name, "grid": "1x16x16", "row": 1 << 16}
        trial.line_bytes = len(encode_line(line | ({} if source.label is None else {"label": source.label})))


def _windows_by_headers(clips: Sequence[Source], reading: ReadSettings) -> float | None:
    """Mean number of windows of a clip, by the lengths that some of them name; None where none does.

    A trial ends sooner with short clips, so that those it has read are no fair draw.
    """
    if reading.frames is None or reading.clips == 1:
        return None
    counts = []
    for frames in _lengths(clips[:MOST_HEADERS], reading):
        windows = int(frames + 0.5) // reading.frames
        counts.append(windows if reading.clips is None else min(windows, reading.clips))
    return sum(counts) / len(counts) if counts else None


def _lengths(clips: Sequence[Source], reading: ReadSettings) -> Iterator[float]:
    """Frames that clips, or the stretches of them, have by their headers, those that do not say left out."""
    for clip in clips:
        header = ClipReading()
        with suppress(MediaError), opened(clip) as file, on_disk(file) as descriptor:
            for _ in read_stretch(descriptor, clip.span, fps=reading.fps, frames=1, reading=header):
                pass
            if (expected := header.header.expected(reading.fps)) is not None:
                yield expected


def _store_bytes(plan: TokenizingPlan, samples: Counter[Grid]) -> int:
    """Bytes of the chunk files of a part with so many samples of each grid."""
    schema = BitSchema(plan.fingerprint)
    return sum(
        layout.chunk_count(count) * layout.stored_chunk_rows(count, complete=True) * layout.row_bytes
        for grid, count in samples.items()
        for layout in schema.arrays(grid_name(grid))
    )


def _notes(left: Sequence[Source], rates: Sequence[Rate], settings: TokenizeSettings) -> list[str]:
    notes = []
    if left and not rates:
        notes.append("none of the sources that were tried could be read, so no time is known")
    if settings.parts > 1:
        notes.append(f"these are the figures of part {settings.part} of {settings.parts}; each part has its own memory")
    return notes
