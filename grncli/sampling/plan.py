"""Everything about a run of ``grn sample`` that is decided, and refused, before the first step."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from grncli.models.generator import Generator
from grncli.models.tokenizer import Tokenizer
from grncli.models.transformer import Grid
from grncli.refinement import Schedule
from grncli.runs.generator_recipe import Bits, GeneratorRecipe
from grncli.runs.generators import LoadedGenerator, open_generator
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import UsageError
from grncli.sampling.pictures import BITS, PictureFolder, load_fitting_tokenizer
from grncli.sampling.prompts import classes_of, read_prompts
from grncli.sampling.refiner import Job, Rules
from grncli.sampling.settings import SampleSettings, choose_grid, describe_rules, parse_classes
from grncli.sampling.starting import Start
from grncli.sampling.subjects import Classes, Prompted, Started, Subjects
from grncli.store import MAX_PARTS, METADATA, Fingerprint, open_store

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is sampled, how, and where to."""

    run: Path
    network: Generator
    identity: Mapping[str, str]  # of its weights
    recipe: GeneratorRecipe
    bits: Bits
    rules: Rules
    grid: Grid
    subjects: Subjects
    tokenizer: Tokenizer | None
    pictures: PictureFolder | None
    store: Path
    fingerprint: Fingerprint
    settings: SampleSettings

    def numbers(self) -> list[int]:
        """Numbers of the samples of this part, in their order. More samples a subject only add numbers at the end."""
        settings = self.settings
        numbers = [self.number(n) for n in range(settings.per_class * len(self.subjects.chosen))]
        return numbers[settings.part :: settings.parts]

    def number(self, place: int) -> int:
        """Number of the sample at a place of the endless order: the first of each subject, the second of each, ..."""
        chosen = self.subjects.chosen
        return place // len(chosen) * len(self.subjects) + chosen[place % len(chosen)]

    def job(self, number: int) -> Job:
        """The sample with a number."""
        return self.subjects.job(number)

    def record(self, job: Job) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample; its key is the name of its file."""
        labels = self.bits.labels
        name = labels[job.label] if job.label < len(labels) else None
        within, subject = divmod(job.number, len(self.subjects))
        key, told = self.subjects.key(subject, within), self.subjects.told(subject)
        fps = {"fps": self.bits.fps} if self.grid[0] > 1 and self.bits.fps else {}
        return {"key": key, "source": f"sample {job.number}", "class": name, **told, **fps}

    def about(self) -> dict[str, Any]:
        """What made the samples, for the metadata of files."""
        return {"settings": dict(self.fingerprint.preprocessing), "tokenizer": dict(self.fingerprint.tokenizer)}

    def with_schedule(self, schedule: Schedule) -> "Plan":
        """The same samples by another schedule."""
        rules = replace(self.rules, schedule=schedule)
        told = {**self.fingerprint.preprocessing, **describe_rules(rules)}
        return replace(self, rules=rules, fingerprint=replace(self.fingerprint, preprocessing=told))

    def check_store(self) -> None:
        """Refuse a store that was made with other settings; a schedule that is still to be fitted may be any."""
        if self.settings.overwrite or not (self.store / METADATA).exists():
            return
        stored = open_store(self.store).fingerprint
        told = dict(self.fingerprint.preprocessing)
        if self.settings.schedule == "complexity":
            told["schedule"] = stored.preprocessing.get("schedule")
        asked = replace(self.fingerprint, preprocessing=told)
        stored.require(asked, self.store, "Use the same settings, another OUT, or --overwrite.", parts=True)


def make_plan(
    run: Path,
    out: Path,
    settings: SampleSettings,
    *,
    loaded: LoadedGenerator | None = None,
    say: Say = lambda text: None,
) -> Plan:
    """Load the networks and settle what the samples depend on, but for a schedule to fit; nothing is written.

    Parameters
    ----------
    loaded : the generator, where it has been opened already
    say : told in a sentence of each network whose training is not finished

    Raises
    ------
    UsageError, StoreMismatch, StoreError, CheckpointError
        Where the options, the tokenizer, ``--prompts``, ``--init`` or ``out`` do not fit.
    """
    check_options(settings)
    loaded = loaded or open_generator(run, settings.weights, say=say)
    recipe, identity = loaded.recipe, loaded.identity
    bits, config = recipe.bits, recipe.network
    assert bits is not None
    settings.check_guidance(has_classes=bool(bits.labels))
    classes = parse_classes(settings.classes, bits.labels)
    grid = choose_grid(settings.grid, bits.grids)
    tokenizer, made_by = _find_tokenizer(out, settings, bits, recipe, say)
    pictures = None
    if not is_store(out):
        assert tokenizer is not None
        pictures = PictureFolder(out, tokenizer, config.rounds or 0, bits.fps)
    store = out if pictures is None else pictures.bits
    subjects = _find_subjects(settings, classes, store, grid, recipe, made_by)
    rules = settings.rules(settings.first_schedule(), relative=recipe.refinement.target == "relative")
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
            **subjects.described(),
            **describe_rules(rules),
        },
        labels=bits.labels,
        parts=settings.parts,
        versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
    )
    network = loaded.network.to(settings.device, getattr(torch, settings.dtype))
    parts = (run, network, identity, recipe, bits, rules, grid, subjects)
    plan = Plan(*parts, tokenizer, pictures, store, fingerprint, settings)
    plan.check_store()
    return plan


def is_store(out: Path) -> bool:
    """Whether the output is a bit store by its name."""
    return out.suffix == ".zarr"


def stored_dtype(out: Path) -> str | None:
    """The number format of samples that are there already, None where there are none."""
    store = out if is_store(out) else out / BITS
    if not (store / METADATA).is_file():
        return None
    dtype = open_store(store).fingerprint.preprocessing.get("dtype")
    return dtype if dtype in DTYPES else None


def check_options(settings: SampleSettings) -> None:
    """Refuse options that name no place to write to, or contradict each other."""
    if settings.parts > MAX_PARTS:
        raise UsageError(f"--part {settings.part}/{settings.parts}: expected at most {MAX_PARTS} parts")
    if not 0 <= settings.part < settings.parts:
        raise UsageError(f"--part {settings.part}/{settings.parts}: parts count from 0 to {settings.parts - 1}")
    if settings.per_class < 1:
        raise UsageError(f"--per-class {settings.per_class}: expected 1 or more")
    film = settings.film
    if film is not None and film.suffix != ".mp4":
        raise UsageError(f"--film {film}: expected a name that ends in .mp4; a PNG is written beside it")
    beside = None if film is None else film.with_suffix(".png")
    if beside is not None and settings.sheet == beside:
        raise UsageError(f"--sheet {settings.sheet}: is also the picture beside --film; give another name")
    for name, path in (("--sheet", settings.sheet), ("--film", film), ("--film", beside)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{name} {path}: there is no such folder, expected one that exists")
        if path is not None and path.is_dir():
            raise UsageError(f"{name} {path}: is a folder, expected the name of a file")
    if settings.keep is not None and settings.init is None:
        raise UsageError(f"--keep {settings.keep} needs --init STORE, the samples of which something is kept")
    if settings.prompts is not None and settings.classes != "all":
        raise UsageError(f"--prompts {settings.prompts} with --classes {settings.classes}: expected one of the two")
    if settings.prompts is not None and settings.init is not None:
        raise UsageError(f"--prompts {settings.prompts} with --init {settings.init}: expected one of the two")


def _find_tokenizer(
    out: Path, settings: SampleSettings, bits: Bits, recipe: GeneratorRecipe, say: Say
) -> tuple[Tokenizer | None, dict[str, Any]]:
    """The tokenizer, where one is given, and the identity of the one whose bits the samples are."""
    if settings.tokenizer is not None:
        loaded = load_fitting_tokenizer(settings.tokenizer, bits, recipe.network, say=say)
        return loaded.network.to(settings.device), dict(bits.tokenizer or loaded.identity)
    if not is_store(out):
        wanted = f"{out} is no .zarr store, and pictures need"
    elif settings.sheet is not None or settings.film is not None:
        wanted = "--sheet and --film need"
    elif not bits.tokenizer:
        wanted = "an imported generator does not know whose bits it learned, so that its samples need"
    else:
        return None, dict(bits.tokenizer)
    raise UsageError(f"{wanted} --tokenizer RUN, the tokenizer that the generator was trained for")


def _find_subjects(
    settings: SampleSettings,
    classes: Sequence[int],
    store: Path,
    grid: Grid,
    recipe: GeneratorRecipe,
    tokenizer: Mapping[str, str],
) -> Subjects:
    assert recipe.bits is not None
    labels, every = recipe.bits.labels, settings.classes == "all"
    if settings.prompts is not None:
        if not labels:
            raise UsageError(f"--prompts {settings.prompts}: the generator was trained without classes to be named")
        prompts = read_prompts(settings.prompts)
        return Prompted(prompts, classes_of(prompts, labels))
    start = _find_start(settings, store, grid, recipe, tokenizer)
    if start is None:
        return Classes(labels, classes, every)
    if not every and len(classes) > 1:
        raise UsageError(f"--classes {settings.classes} with --init: expected one class, or none for their own")
    return Started(start, None if every else classes[0])


def _find_start(
    settings: SampleSettings, store: Path, grid: Grid, recipe: GeneratorRecipe, tokenizer: Mapping[str, str]
) -> Start | None:
    if settings.init is None:
        return None
    if settings.init.resolve() == store.resolve():
        raise UsageError(f"--init {settings.init}: is where the samples go, expected another OUT")
    assert recipe.bits is not None
    return Start(
        settings.init,
        settings.keep,
        grid,
        recipe.network,
        tokenizer=tokenizer,
        stride=recipe.bits.stride,
        labels=recipe.bits.labels,
        seed=settings.seed,
    )
