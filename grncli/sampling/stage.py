"""``grn sample``: from a run of a generator to a bit store, or a folder of pictures and clips with their bits."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.errors import UsageError
from grncli.generators import read_generator
from grncli.hbq import pack
from grncli.media.writing import write_png
from grncli.models.generator import Generator
from grncli.models.tokenizer import Tokenizer
from grncli.models.transformer import Grid
from grncli.overlap import Behind
from grncli.sampling.calibration import settle_schedule
from grncli.sampling.film import SAMPLES as FILMED
from grncli.sampling.film import write_film
from grncli.sampling.pictures import (
    COLUMNS,
    PictureFolder,
    decode_packed,
    load_fitting_tokenizer,
    samples_of,
    to_index,
)
from grncli.sampling.refiner import Job, Refined, Refiner, Rules
from grncli.sampling.settings import SampleSettings, choose_grid, describe_rules, parse_classes
from grncli.sampling.sheets import COLUMNS as SHEET_COLUMNS
from grncli.sampling.sheets import ROWS as SHEET_ROWS
from grncli.sampling.sheets import class_sheet
from grncli.sampling.starting import Start
from grncli.stopping import Stop, Stopped
from grncli.store import BitStore, Fingerprint, PartWriter, open_part, open_store
from grncli.tokenizers import tokenizer_identity
from grncli.training.generator_recipe import GeneratorRecipe

COMMIT_SECONDS = 1.0

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Summary:
    """What ``sample`` made, over all runs of the same command; of one part."""

    samples: int
    made: int  # by this run
    steps: Mapping[int, int]  # steps: samples that took them
    evaluations: int
    mean_entropy: float
    seconds: float
    written: tuple[Path, ...]  # sheet and film


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first step."""

    network: Generator
    recipe: GeneratorRecipe
    rules: Rules
    grid: Grid
    classes: Sequence[int]
    start: Start | None
    tokenizer: Tokenizer | None
    fingerprint: Fingerprint
    settings: SampleSettings

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, none for a generator without classes."""
        assert self.recipe.bits is not None
        return self.recipe.bits.labels

    def numbers(self) -> list[int]:
        """Numbers of the samples of this part, in their order.

        Number n * classes + c is the n-th sample of class c, whichever classes are asked for; of started samples
        n * (samples to start from) + row. More samples a class only add numbers at the end.
        """
        settings = self.settings
        of_one = len(self.start) if self.start is not None else max(1, len(self.labels))
        chosen = range(of_one) if self.start is not None else self.classes
        numbers = [n * of_one + c for n in range(settings.per_class) for c in chosen]
        return numbers[settings.part :: settings.parts]

    def job(self, number: int) -> Job:
        """The sample with a number."""
        if self.start is None:
            return Job(number, number % max(1, len(self.labels)))
        row = number % len(self.start)
        label = self.start.labels[row] if self.settings.classes == "all" else self.classes[0]
        return self.start.job(number, label)

    def record(self, job: Job) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample; its key is the name of its file."""
        assert self.recipe.bits is not None
        name = self.labels[job.label] if job.label < len(self.labels) else None
        if self.start is not None:
            key = f"{self.start.key(job.number % len(self.start))}~{job.number // len(self.start):06d}"
        else:
            within = job.number // max(1, len(self.labels))
            key = f"{name}/{within:06d}" if name is not None else f"{within:06d}"
        fps = {"fps": self.recipe.bits.fps} if self.grid[0] > 1 and self.recipe.bits.fps else {}
        return {"key": key, "source": f"sample {job.number}", "class": name, **fps}


def sample(
    run: Path,
    out: Path,
    settings: SampleSettings,
    *,
    stop: Stop | None = None,
    report: Report = lambda done, total, note: None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Sample from the generator ``run`` into one part of the bit store ``out``, or a folder of pictures.

    What is there already is left alone; an interrupted run is gone on with.

    Parameters
    ----------
    stop : asked between steps
    report : told (samples done, samples in all, a note) now and then
    say : told what was chosen, in one sentence

    Raises
    ------
    Stopped
        If ``stop`` asked for it; finished samples are committed.
    UsageError, StoreMismatch, StoreError, CheckpointError
        Before any work, where the options, the tokenizer or ``out`` do not fit.
    """
    began, stop = time.monotonic(), stop or Stop()
    check_outputs(settings)
    plan = make_plan(run, out, settings, say)
    pictures: PictureFolder | None = None
    store = out
    if not is_store(out):
        assert plan.tokenizer is not None
        assert plan.recipe.bits is not None
        pictures = PictureFolder(out, plan.tokenizer, plan.fingerprint.rounds, plan.recipe.bits.fps)
        store = pictures.bits
        if settings.overwrite:
            pictures.discard()
        out.mkdir(parents=True, exist_ok=True)
    with open_part(
        store, plan.fingerprint, settings.part, settings.parts, overwrite=settings.overwrite, columns=COLUMNS
    ) as writer:
        before = writer.samples
        sampler = Sampler(plan, writer, pictures, stop, report)
        sampler.go_on()
        writer.finish()
    if pictures is not None:
        pictures.complete(about(plan))
    written = [*_write_sheet(plan, store), *_write_film(plan)]
    return _summary(store, settings, sampler.evaluations, before, time.monotonic() - began, written)


def is_store(out: Path) -> bool:
    """Whether the output is a bit store by its name."""
    return out.suffix == ".zarr"


def check_outputs(settings: SampleSettings) -> None:
    """Refuse options that name no place to write to, or contradict each other."""
    if not 0 <= settings.part < settings.parts:
        raise UsageError(f"--part {settings.part}/{settings.parts}: parts count from 0 to {settings.parts - 1}")
    if settings.per_class < 1:
        raise UsageError(f"--per-class {settings.per_class}: expected 1 or more")
    for name, path in (("--sheet", settings.sheet), ("--film", settings.film)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{name} {path}: there is no such folder, expected one that exists")
    if settings.film is not None and settings.film.suffix != ".mp4":
        raise UsageError(f"--film {settings.film}: expected a name that ends in .mp4; a PNG is written beside it")
    if settings.film is not None and settings.sheet == settings.film.with_suffix(".png"):
        raise UsageError(f"--sheet {settings.sheet}: is also the picture beside --film; give another name")
    if settings.keep is not None and settings.init is None:
        raise UsageError(f"--keep {settings.keep} needs --init STORE, the samples of which something is kept")


def make_plan(run: Path, out: Path, settings: SampleSettings, say: Callable[[str], None]) -> Plan:
    """Load the generator and settle everything that the samples depend on; nothing is written to ``out``."""
    network, recipe, identity = read_generator(run, settings.weights)
    bits, config = recipe.bits, recipe.network
    assert bits is not None
    classes = parse_classes(settings.classes, bits.labels)
    grid = choose_grid(settings.grid, bits.grids)
    tokenizer = None
    if settings.tokenizer is not None:
        tokenizer = load_fitting_tokenizer(settings.tokenizer, bits, config).to(settings.device)
    elif not is_store(out) or settings.sheet is not None or settings.film is not None:
        wanted = "--sheet and --film need" if is_store(out) else f"{out} is no .zarr store, and pictures need"
        raise UsageError(f"{wanted} --tokenizer RUN, the tokenizer that the generator was trained for")
    made_by = dict(bits.tokenizer)
    if not made_by and settings.tokenizer is not None:
        made_by = dict(tokenizer_identity(settings.tokenizer))
    start = None
    if settings.init is not None:
        start = Start(
            settings.init,
            settings.keep,
            grid,
            config,
            tokenizer=made_by,
            stride=bits.stride,
            labels=bits.labels,
            seed=settings.seed,
        )
        if settings.classes != "all" and len(classes) > 1:
            raise UsageError(f"--classes {settings.classes} with --init: expected one class, or none for their own")
    network = network.to(settings.device, getattr(torch, settings.dtype))
    relative = recipe.refinement.target == "relative"
    if settings.schedule == "complexity":
        schedule = settle_schedule(settings, run, identity, network, grid, classes, relative=relative, say=say)
        rules = settings.rules(schedule, relative=relative)
    else:
        if settings.target_steps is not None:
            raise UsageError("--target-steps is for --schedule complexity, expected it together with that")
        rules = settings.rules(settings.fixed_schedule(), relative=relative)
    fingerprint = Fingerprint(
        rounds=config.rounds or 0,
        channels=config.channels or 0,
        stride=bits.stride,
        tokenizer=made_by,
        preprocessing={
            "generator": identity["sha256"],
            "weights": settings.weights,
            "dtype": settings.dtype,
            "grid": list(grid),
            "classes": "all" if settings.classes == "all" else list(classes),
            "init": None if start is None else start.digest,
            "keep": settings.keep,
            **describe_rules(rules),
        },
        labels=bits.labels,
        parts=settings.parts,
        versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
    )
    return Plan(network, recipe, rules, grid, classes, start, tokenizer, fingerprint, settings)


class Sampler:
    """One run over the samples of a part: finished ones go, in the order of their numbers, to the store."""

    def __init__(
        self, plan: Plan, writer: PartWriter, pictures: PictureFolder | None, stop: Stop, report: Report
    ) -> None:
        self.plan = plan
        self.writer = writer
        self.pictures = pictures
        self.stop = stop
        self.report = report
        self.evaluations = 0  # of this run
        self._numbers = plan.numbers()
        self._committed = time.monotonic()

    def go_on(self) -> None:
        """Make the samples that no earlier run has; Stopped if that was asked for."""
        done, total = self.writer.position, len(self._numbers)
        if done >= total:
            return
        self.report(done, total, "")
        refiner = Refiner(self.plan.network, self.plan.grid, self.plan.rules, batch=self.plan.settings.batch)
        finished: dict[int, Refined] = {}
        ready: list[Refined] = []
        with Behind() as behind:
            for refined in refiner.run(self._jobs(done), stop_when=lambda: self.stop.reason is not None):
                self.evaluations += refined.evaluations
                finished[refined.job.number] = refined
                while done + len(ready) < total and self._numbers[done + len(ready)] in finished:
                    ready.append(finished.pop(self._numbers[done + len(ready)]))
                if ready and (self.stop.reason or time.monotonic() - self._committed >= COMMIT_SECONDS):
                    done += self._commit(ready, behind)
                    ready = []
                    self.report(done, total, f"{refined.steps} steps")
            done += self._commit(ready, behind)
            behind.wait()
        self.report(done, total, "")
        if done < total:
            raise Stopped(f"{self.stop.reason}: stopped after {done} of {total} samples, which are saved")

    def _jobs(self, done: int) -> Iterator[Job]:
        """Samples to begin."""
        for number in self._numbers[done:]:
            yield self.plan.job(number)

    def _commit(self, ready: Sequence[Refined], behind: Behind) -> int:
        """Put finished samples into the store, and after that their pictures into the folder."""
        if not ready:
            return 0
        config = self.plan.recipe.network
        index = to_index(torch.stack([refined.drawing for refined in ready]), config)
        packed = pack(index, config.rounds or 0).numpy()
        records = [self.plan.record(refined.job) for refined in ready]
        columns = {name: np.array([self._numbers_of(r)[name] for r in ready], dtype) for name, dtype in COLUMNS}
        labels = [r.job.label if r.job.label < len(self.plan.labels) else -1 for r in ready]
        self.writer.append(self.plan.grid, packed, labels, records, **columns)
        self.writer.commit(self.writer.position + len(ready), "", len(self._numbers))
        self._committed = time.monotonic()
        if self.pictures is not None:
            for bits, record, refined in zip(packed, records, ready, strict=True):
                told = {**self._numbers_of(refined), "class": record["class"], **about(self.plan)}
                behind.submit(partial(self.pictures.write, bits, record, told))
        return len(ready)

    def _numbers_of(self, refined: Refined) -> dict[str, Any]:
        return {
            "number": refined.job.number,
            "seed": self.plan.settings.seed,
            "steps": refined.steps,
            "evaluations": refined.evaluations,
            "entropy": refined.entropy,
        }


def about(plan: Plan) -> dict[str, Any]:
    """What made the samples, for the metadata of files."""
    return {"settings": dict(plan.fingerprint.preprocessing), "tokenizer": dict(plan.fingerprint.tokenizer)}


def _write_sheet(plan: Plan, path: Path) -> list[Path]:
    sheet = plan.settings.sheet
    if sheet is None or plan.tokenizer is None:
        return []
    store = open_store(path)
    chosen: dict[str, list[NDArray[np.uint8]]] = {}
    for index, record, _ in samples_of(store):
        name = record.get("class") or ""
        row = chosen.setdefault(name, [])
        if len(chosen) > SHEET_ROWS:
            del chosen[name]
        elif len(row) < SHEET_COLUMNS * (1 if plan.labels else SHEET_ROWS):
            row.append(decode_packed(plan.tokenizer, store[index].bits, store.rounds))
    rows = [
        (name if start == 0 else "", samples[start : start + SHEET_COLUMNS])
        for name, samples in sorted(chosen.items(), key=lambda item: _place(plan.labels, item[0]))
        for start in range(0, len(samples), SHEET_COLUMNS)
    ]
    write_png(sheet, class_sheet(rows))
    return [sheet]


def _place(labels: Sequence[str], name: str) -> int:
    return labels.index(name) if name in labels else len(labels)


def _write_film(plan: Plan) -> list[Path]:
    """Refine the first samples once more and watch: they depend on their numbers only."""
    film = plan.settings.film
    if film is None or plan.tokenizer is None:
        return []
    numbers = plan.numbers()[:FILMED]
    refiner = Refiner(plan.network, plan.grid, plan.rules, watched=numbers)
    watched = sorted(refiner.run(map(plan.job, numbers)), key=lambda refined: refined.job.number)
    return write_film(film, watched, plan.tokenizer, plan.recipe.network, torch.device(plan.settings.device))


def _summary(
    path: Path, settings: SampleSettings, evaluations: int, before: int, seconds: float, written: Sequence[Path]
) -> Summary:
    store: BitStore = open_store(path)
    columns: dict[str, list[Any]] = {name: [] for name, _ in COLUMNS}
    for grid in store.grids:
        for name, values in columns.items():
            values += store.grid(grid).column(name).tolist()
    own = store.parts[settings.part].samples
    return Summary(
        samples=len(store),
        made=own - before,
        steps=dict(sorted(Counter(columns["steps"]).items())),
        evaluations=sum(columns["evaluations"]),
        mean_entropy=float(np.mean(columns["entropy"])),
        seconds=seconds,
        written=tuple(written),
    )
