"""``grn sample``: from a run of a generator to a bit store, or a folder of pictures and clips with their bits."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.hbq import pack
from grncli.media.writing import write_png
from grncli.runs.generators import LoadedGenerator
from grncli.runtime.overlap import Behind
from grncli.runtime.stopping import Stop, Stopped
from grncli.sampling.calibration import settle_schedule
from grncli.sampling.film import SAMPLES as FILMED
from grncli.sampling.film import write_film
from grncli.sampling.pictures import COLUMNS, asked_for, decode_packed, samples_of, to_index
from grncli.sampling.plan import Plan, Say, make_plan
from grncli.sampling.refiner import Refined, Refiner
from grncli.sampling.settings import SampleSettings
from grncli.sampling.sheets import COLUMNS as SHEET_COLUMNS
from grncli.sampling.sheets import ROWS as SHEET_ROWS
from grncli.sampling.sheets import class_sheet
from grncli.sampling.timing import log_timing
from grncli.store import PartWriter, open_part, open_store, store_lock

COMMIT_SECONDS = 1.0

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Summary:
    """What ``sample`` made, and what the store holds by now: of all parts and earlier runs."""

    made: int  # by this run
    seconds: float
    samples: int
    steps: Mapping[int, int]  # steps: samples that took them
    evaluations: int
    mean_entropy: float
    written: tuple[Path, ...]  # sheet and film


def sample(
    run: Path,
    out: Path,
    settings: SampleSettings,
    *,
    loaded: LoadedGenerator | None = None,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Say = lambda text: None,
) -> Summary:
    """Sample from the generator ``run`` into one part of the bit store ``out``, or a folder of pictures.

    What is there already is left alone; an interrupted run is gone on with.

    Parameters
    ----------
    loaded : the generator of ``run``, where it has been opened already
    stop : asked between steps
    report : told (samples done, samples in all, a note) now and then
    say : told what was chosen, and of networks whose training is not finished, in one sentence each

    Raises
    ------
    Stopped
        If ``stop`` asked for it; finished samples are committed.
    UsageError, StoreMismatch, StoreError, CheckpointError
        Before any work, where the options, the tokenizer or ``out`` do not fit.
    """
    began, stop = time.monotonic(), stop or Stop()
    plan = make_plan(run, out, settings, loaded=loaded, say=say)
    if settings.schedule == "complexity":
        plan = plan.with_schedule(settle_schedule(plan, stop, say))
    part, parts = settings.part, settings.parts

    def remove_pictures() -> None:
        # While their names are in the store that is about to be discarded.
        if plan.pictures is not None:
            plan.pictures.remove(part if parts > 1 else None)

    with open_part(
        plan.store,
        plan.fingerprint,
        part,
        parts,
        overwrite=settings.overwrite,
        columns=COLUMNS,
        goes_on=lambda done, digest: done <= len(plan.numbers()),
        discarding=remove_pictures,
    ) as writer:
        before = writer.samples
        Sampler(plan, writer, stop, report).go_on()
        made = writer.samples - before
        writer.finish()
    if plan.pictures is not None:
        plan.pictures.complete(frozenset(plan.numbers()), plan.about(), stop)
    written = (*_write_sheet(plan), *_write_film(plan))
    return _summary(plan.store, made, time.monotonic() - began, written)


class Sampler:
    """One run over the samples of a part: finished ones go, in the order of their numbers, to the store."""

    def __init__(self, plan: Plan, writer: PartWriter, stop: Stop, report: Report) -> None:
        self.plan = plan
        self.writer = writer
        self.stop = stop
        self.report = report
        self._refiner = Refiner(plan.network, plan.grid, plan.rules, batch=plan.settings.batch)
        self._numbers = plan.numbers()
        self._committed = time.monotonic()

    def go_on(self) -> None:
        """Make the samples that no earlier run has, and log how long it took; Stopped if that was asked for."""
        began, before = time.monotonic(), self.writer.samples
        settings = self.plan.settings
        try:
            self._refine()
        finally:
            log_timing(
                self.writer.directory,
                samples=self.writer.samples - before,
                seconds=time.monotonic() - began,
                batch=self._refiner.batch,
                device=settings.device,
                dtype=settings.dtype,
            )

    def _refine(self) -> None:
        done, total = self.writer.position, len(self._numbers)
        if done >= total:
            return
        steps = count()

        def between_steps() -> bool:
            self.report(done, total, f"{next(steps)} steps computed")
            return self.stop.reason is not None

        jobs = map(self.plan.job, self._numbers[done:])
        finished: dict[int, Refined] = {}
        ready: list[Refined] = []
        with Behind() as behind:
            for refined in self._refiner.run(jobs, stop_when=between_steps):
                finished[refined.job.number] = refined
                while done + len(ready) < total and self._numbers[done + len(ready)] in finished:
                    ready.append(finished.pop(self._numbers[done + len(ready)]))
                if ready and (self.stop.reason or time.monotonic() - self._committed >= COMMIT_SECONDS):
                    done += self._commit(ready, behind)
                    ready = []
            done += self._commit(ready, behind)
            behind.wait()
        self.report(done, total, "")
        if done < total:
            raise Stopped(f"{self.stop.reason}: stopped after {done} of {total} samples, which are saved")

    def _commit(self, ready: Sequence[Refined], behind: Behind) -> int:
        """Put finished samples into the store, and after that their pictures into the folder."""
        if not ready:
            return 0
        plan, config = self.plan, self.plan.recipe.network
        index = to_index(torch.stack([refined.drawing for refined in ready]), config)
        packed = pack(index, config.rounds or 0).numpy()
        records = [plan.record(refined.job) for refined in ready]
        numbers = [self._numbers_of(refined) for refined in ready]
        columns = {name: np.array([told[name] for told in numbers], dtype) for name, dtype in COLUMNS}
        labels = [r.job.label if r.job.label < len(plan.bits.labels) else -1 for r in ready]
        self.writer.append(plan.grid, packed, labels, records, **columns)
        self.writer.commit(self.writer.position + len(ready), "", len(self._numbers))
        self._committed = time.monotonic()
        if plan.pictures is not None:
            for bits, record, told in zip(packed, records, numbers, strict=True):
                about = {**told, **asked_for(record), **plan.about()}
                behind.submit(partial(plan.pictures.write, bits, record, about))
        return len(ready)

    def _numbers_of(self, refined: Refined) -> dict[str, Any]:
        return {
            "number": refined.job.number,
            "seed": self.plan.settings.seed,
            "steps": refined.steps,
            "evaluations": refined.evaluations,
            "entropy": refined.entropy,
        }


def _write_sheet(plan: Plan) -> list[Path]:
    """A sheet of the first samples of each class that the store has by now."""
    sheet, labels = plan.settings.sheet, plan.bits.labels
    if sheet is None or plan.tokenizer is None:
        return []
    store = open_store(plan.store)
    chosen: dict[str, list[NDArray[np.uint8]]] = {}
    for index, record, _ in samples_of(store):
        name = record.get("class") or ""
        row = chosen.setdefault(name, [])
        if len(chosen) > SHEET_ROWS:
            del chosen[name]
        elif len(row) < SHEET_COLUMNS * (1 if labels else SHEET_ROWS):
            row.append(decode_packed(plan.tokenizer, store[index].bits, store.rounds))
    if not chosen:
        return []
    rows = [
        (name if start == 0 else "", samples[start : start + SHEET_COLUMNS])
        for name, samples in sorted(chosen.items(), key=lambda item: _place(labels, item[0]))
        for start in range(0, len(samples), SHEET_COLUMNS)
    ]
    with store_lock(plan.store):  # other parts may draw the same sheet
        write_png(sheet, class_sheet(rows))
    return [sheet]


def _place(labels: Sequence[str], name: str) -> int:
    return labels.index(name) if name in labels else len(labels)


def _write_film(plan: Plan) -> list[Path]:
    """Refine the first samples once more and watch: they depend on their numbers only."""
    film, numbers = plan.settings.film, plan.numbers()[:FILMED]
    if film is None or plan.tokenizer is None or not numbers:
        return []
    refiner = Refiner(plan.network, plan.grid, plan.rules, watched=numbers)
    watched = sorted(refiner.run(map(plan.job, numbers)), key=lambda refined: refined.job.number)
    return write_film(film, watched, plan.tokenizer, plan.recipe.network, torch.device(plan.settings.device))


def _summary(path: Path, made: int, seconds: float, written: tuple[Path, ...]) -> Summary:
    numbers = [told for _, _, told in samples_of(open_store(path))]
    return Summary(
        made=made,
        seconds=seconds,
        samples=len(numbers),
        steps=dict(sorted(Counter(told["steps"] for told in numbers).items())),
        evaluations=sum(told["evaluations"] for told in numbers),
        mean_entropy=float(np.mean([told["entropy"] for told in numbers])) if numbers else 0.0,
        written=written,
    )
