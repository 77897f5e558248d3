"""Encoded sources into one part of a bit store: samples, failures, commits."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from grncli.media.batches import ReadSource, SourceClip, SourceGroup
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.store import PartWriter
from grncli.tokenizing.part_work import PartWork, nbytes_of
from grncli.tokenizing.tokenizing_plan import TokenizeSettings, TokenizingPlan

COMMIT_SECONDS = 5.0
SHOWN_NOTES = 5


class SampleWriter:
    """Writes the sources of a part in their order, and commits every few seconds.

    Attributes
    ----------
    done : sources processed so far, by this run and earlier ones
    noted : sources of this run that were read in part, or without their end
    enlarged : sources of this run that are smaller than the size or budget asked for, and were scaled up
    """

    def __init__(
        self, plan: TokenizingPlan, work: PartWork, settings: TokenizeSettings, part: PartWriter, monitor: Monitor
    ) -> None:
        self._plan = plan
        self._work = work
        self._settings = settings
        self._part = part
        self._monitor = monitor
        self._labels: dict[str | None, int] = {name: i for i, name in enumerate(plan.fingerprint.labels)}
        self._digest = work.digest
        self._committed = time.monotonic()
        self.done = work.done
        self.noted = 0
        self.enlarged = 0

    @property
    def saved(self) -> int:
        """Samples of the part."""
        return self._part.samples

    def require_strict(self) -> None:
        """MediaError where an earlier run recorded failures, and this one is to stop at the first."""
        settings, failures = self._settings, self._part.failures
        if settings.strict and failures and not settings.retry_failed:
            first = next(iter(failures.values()))
            raise MediaError(
                f"{first['source']}: {first['error']}; recorded by an earlier run without --strict. "
                "Repair it and add --retry-failed"
            )

    def write(self, group: SourceGroup) -> None:
        """Samples and failures of a group, all batches of which have run, in the order of the sources."""
        for read in group.sources:
            read.settle()
            if read.error is not None:
                self._add_failure(read)
            elif read.source.name in self._part.failures:
                self._note_failure(read, None)
            self._say_note(read)
            self.enlarged += any(clip.enlarged for clip in read.clips)
        samples = [(read, clip) for read in group.sources for clip in read.clips]
        for grid, neighbours in groupby(samples, key=lambda sample: sample[1].result.shape[:3]):
            self._append(grid, list(neighbours))
        first_time = [read.source.relative for read in group.sources if read.position >= self._work.known]
        self._digest.add(first_time)
        self.done += len(first_time)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()
        failed = len(self._part.failures)
        self._monitor.progress(self.done, self._work.total, f"{failed} failed" if failed else "")

    def commit(self) -> None:
        """Make durable what was written so far."""
        # A digest of the order stays until other sources are to be added than those that follow in it.
        part, total = self._part, self._work.total
        unchanged = self.done == part.position and part.sources in (None, total)
        part.commit(self.done, part.digest if unchanged else self._digest.digest(), total)
        self._committed = time.monotonic()

    def _append(self, grid: tuple[int, int, int], samples: Sequence[tuple[ReadSource, SourceClip]]) -> None:
        class_of = self._plan.chosen.class_of
        self._part.append(
            grid,
            np.stack([clip.result for _, clip in samples]),
            [self._labels.get(class_of(read.source), -1) for read, _ in samples],
            [self._line(read, clip) for read, clip in samples],
        )

    def _say_note(self, read: ReadSource) -> None:
        """Name the first few sources of which a part was left out, and count the others."""
        if read.note:
            self.noted += 1
            if self.noted <= SHOWN_NOTES:
                self._monitor.say(f"{read.source.name}: {read.note}")
            if self.noted == SHOWN_NOTES:
                self._monitor.say("further sources with a note like these are counted only")

    def _add_failure(self, read: ReadSource) -> None:
        name, sentence = read.source.name, f"{read.source.name}: {read.error}"
        if self._settings.strict:
            self.commit()
            raise MediaError(f"{sentence}; stopped because of --strict, {self._part.samples} samples are saved")
        known = self._part.failures.get(name)
        if known is None or known["error"] != read.error:
            self._note_failure(read, read.error)
        self._monitor.say(f"{sentence}; skipped")

    def _note_failure(self, read: ReadSource, error: str | None) -> None:
        known = self._part.failures.get(read.source.name)
        position = self._work.done - self._work.known + read.position if known is None else known["position"]
        self._part.fail(read.source.name, position, error, key=read.source.relative)

    def _line(self, read: ReadSource, clip: SourceClip) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample; ``key`` names it uniquely within the store."""
        key = read.source.relative
        line: dict[str, Any] = {"source": read.source.name}
        nbytes = nbytes_of(read.source)
        if nbytes is not None:  # else the file was removed since it was read
            line["bytes"] = nbytes
        if clip.number is not None:
            key += f"#{clip.number}"
            line["clip"] = clip.number
        if clip.fps is not None:
            line |= {"start": clip.start, "frames": clip.shape[0], "fps": clip.fps}
        if clip.flip:
            key += "#flip"
            line["flip"] = True
        if self._plan.chosen.classes is not None:
            line["label"] = self._plan.chosen.class_of(read.source)
        return {"key": key, **line}
