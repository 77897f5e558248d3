"""``grn sample``: from a run of a generator to a bit store, or a folder of pictures and clips with their bits."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grncli.media.writing import write_png
from grncli.runs.generators import LoadedGenerator
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter
from grncli.runtime.stopping import Stopped
from grncli.runtime.writer_status import reporting
from grncli.sampling.calibration import settle_schedule
from grncli.sampling.film import SAMPLES as FILMED
from grncli.sampling.film import write_film
from grncli.sampling.finished_part import finished_plan
from grncli.sampling.plan import SamplingPlan, make_plan
from grncli.sampling.sample_store import OLD_NFE, StoredSamples, asked_for
from grncli.sampling.sampler import FinishedSample, Sampler
from grncli.sampling.settings import SampleOptions
from grncli.sampling.sheets import stored_sheet
from grncli.sampling.timing import log_timing
from grncli.store import PartWriter, open_part, store_lock
from grncli.text.prompt_features import PromptFeatures

COMMIT_SECONDS = 1.0


@dataclass(frozen=True)
class SamplingSummary:
    """What ``sample`` made, and what the store holds by now: of all parts and earlier runs."""

    out: Path  # the store, or the folder of pictures
    store: Path  # of the bits
    made: int  # by this run
    seconds: float
    samples: int
    steps: Mapping[int, int]  # steps: samples that took them
    nfe: int  # number of function evaluations of all samples
    mean_entropy: float
    written: tuple[Path, ...]  # sheet and film


def sample(
    run: Path,
    out: Path,
    options: SampleOptions,
    monitor: Monitor | None = None,
    *,
    generator: LoadedGenerator | None = None,
    tokenizer: LoadedTokenizer | None = None,
    features: PromptFeatures | None = None,
) -> SamplingSummary:
    """Sample from the generator ``run`` into one part of the bit store ``out``, or a folder of pictures.

    What is there already is left alone; an interrupted run is resumed.

    Parameters
    ----------
    monitor : asked between steps whether to stop; shows samples done, and says what was chosen
    generator, tokenizer, features : the networks of the runs and the text encoder, where they have been opened already

    Raises
    ------
    Stopped
        If ``monitor`` asked for it; finished samples are committed.
    UsageError, StoreMismatch, StoreError, CheckpointError
        Before any work, where the options, the tokenizer, the prompts or ``out`` do not fit.
    """
    began, monitor = time.monotonic(), monitor or Monitor()
    plan = None
    if generator is None and tokenizer is None and features is None:
        plan = finished_plan(run, out, options, monitor)
    if plan is None:
        plan = make_plan(
            run, out, options, generator=generator, tokenizer=tokenizer, features=features, monitor=monitor
        )
    plan.bring(plan.generator.network)
    if options.schedule == "complexity":
        plan = plan.with_schedule(settle_schedule(plan, monitor))
    made = _write_part(plan, monitor)
    samples = StoredSamples.read(plan.store)
    if plan.tokenizer is not None:
        plan.bring(plan.tokenizer.network)
    if plan.pictures is not None:
        samples = plan.pictures.complete(samples, frozenset(plan.numbers()), plan.about(), monitor)
    written = (*_write_sheet(plan, samples), *_write_film(plan))
    return _summary(plan, out, samples, made, time.monotonic() - began, written)


def _write_part(plan: SamplingPlan, monitor: Monitor) -> int:
    """Make the samples of this part that no earlier run has; returns their number."""
    part, parts, numbers = plan.options.part, plan.options.parts, plan.numbers()

    def remove_pictures() -> None:
        # While their names are in the store that is about to be discarded.
        if plan.pictures is not None:
            plan.pictures.remove(part if parts > 1 else None)

    with open_part(
        plan.store,
        plan.fingerprint,
        part,
        parts,
        overwrite=plan.options.overwrite,
        columns=list(plan.columns.items()),
        resumes=lambda done, digest: done <= len(numbers),
        discarding=remove_pictures,
    ) as writer:
        before = writer.samples
        with reporting(writer.directory, "sample", "samples", monitor) as reported:
            PartSampling(plan, numbers, writer, reported).run()
            made = writer.samples - before
            writer.finish()
    return made


class PartSampling:
    """One run over the samples of a part: finished ones go, in the order of their numbers, to the store."""

    def __init__(self, plan: SamplingPlan, numbers: Sequence[int], writer: PartWriter, monitor: Monitor) -> None:
        self._plan = plan
        self._numbers = numbers
        self._writer = writer
        self._monitor = monitor
        self._committed = time.monotonic()

    def run(self) -> None:
        """Make the samples that no earlier run has, and log how long it took; Stopped if that was asked for."""
        if self._writer.position >= len(self._numbers):
            return
        began, before, sampler = time.monotonic(), self._writer.samples, self._plan.sampler()
        try:
            self._sample(sampler)
        finally:
            log_timing(
                self._writer.directory,
                samples=self._writer.samples - before,
                seconds=time.monotonic() - began,
                batch=sampler.batch,
                device=self._plan.options.device,
                dtype=self._plan.options.dtype,
            )

    def _sample(self, sampler: Sampler) -> None:
        done, total, monitor = self._writer.position, len(self._numbers), self._monitor
        steps = count()

        def between_steps() -> bool:
            monitor.progress(done, total, f"{next(steps)} steps computed")
            return monitor.stop_reason is not None

        requests = map(self._plan.subjects.request, self._numbers[done:])
        finished: dict[int, FinishedSample] = {}
        ready: list[FinishedSample] = []
        with BackgroundWriter() as behind:
            for sample in sampler.run(requests, stop_when=between_steps):
                finished[sample.request.number] = sample
                while done + len(ready) < total and self._numbers[done + len(ready)] in finished:
                    ready.append(finished.pop(self._numbers[done + len(ready)]))
                if ready and (monitor.stop_reason or time.monotonic() - self._committed >= COMMIT_SECONDS):
                    done += self._commit(ready, behind)
                    ready = []
            done += self._commit(ready, behind)
            behind.wait()
        monitor.progress(done, total, "")
        if done < total:
            raise Stopped(f"{monitor.stop_reason}: stopped after {done} of {total} samples, which are saved")

    def _commit(self, ready: Sequence[FinishedSample], behind: BackgroundWriter) -> int:
        """Put finished samples into the store, and after that their pictures into the folder."""
        if not ready:
            return 0
        plan, writer = self._plan, self._writer
        packed = plan.generator.recipe.network.codec.pack(torch.stack([sample.drawing for sample in ready])).numpy()
        records = [plan.record(sample.request.number) for sample in ready]
        numbers = [self._numbers_of(sample) for sample in ready]
        columns = {
            name: np.array([each["nfe" if name == OLD_NFE else name] for each in numbers], dtype)
            for name, dtype in plan.columns.items()
        }
        labels = [plan.subjects.label(sample.request.number) for sample in ready]
        writer.append(plan.grid, packed, labels, records, **columns)
        writer.commit(writer.position + len(ready), "", len(self._numbers))
        self._committed = time.monotonic()
        if plan.pictures is not None and not plan.options.offload:
            for bits, record, each in zip(packed, records, numbers, strict=True):
                about = {**each, **asked_for(record), **plan.about()}
                behind.submit(partial(plan.pictures.write, bits, record, about))
        return len(ready)

    def _numbers_of(self, sample: FinishedSample) -> dict[str, Any]:
        return {
            "number": sample.request.number,
            "seed": self._plan.options.seed,
            "steps": sample.steps,
            "nfe": sample.nfe,
            "entropy": sample.entropy,
        }


def _write_sheet(plan: SamplingPlan, samples: StoredSamples) -> list[Path]:
    sheet = plan.options.sheet
    if sheet is None or plan.tokenizer is None or not samples.entries:
        return []
    picture = stored_sheet(samples, plan.tokenizer.network)
    with store_lock(plan.store):  # other parts may write the same sheet
        write_png(sheet, picture)
    return [sheet]


def _write_film(plan: SamplingPlan) -> list[Path]:
    """Refine the first samples once more and trace them: they depend on their numbers only."""
    film, numbers = plan.options.film, plan.numbers()[:FILMED]
    if film is None or plan.tokenizer is None or not numbers:
        return []
    plan.bring(plan.generator.network)
    sampler = plan.sampler(traced=numbers)
    traced = sorted(sampler.run(map(plan.subjects.request, numbers)), key=lambda sample: sample.request.number)
    plan.bring(plan.tokenizer.network)
    return write_film(film, traced, plan.tokenizer.network, plan.generator.recipe.network.codec)


def _summary(
    plan: SamplingPlan, out: Path, samples: StoredSamples, made: int, seconds: float, written: tuple[Path, ...]
) -> SamplingSummary:
    numbers = [sample.numbers for sample in samples.entries]
    return SamplingSummary(
        out=out,
        store=plan.store,
        made=made,
        seconds=seconds,
        samples=len(numbers),
        steps=dict(sorted(Counter(each["steps"] for each in numbers).items())),
        nfe=sum(each["nfe"] for each in numbers),
        mean_entropy=float(np.mean([each["entropy"] for each in numbers])) if numbers else 0.0,
        written=written,
    )
