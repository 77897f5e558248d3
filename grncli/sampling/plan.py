"""Everything about a run of ``grn sample`` that is decided, and refused, before the first step."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from grncli.models.transformer import Grid
from grncli.runs.generator_recipe import Bits, GeneratorRecipe
from grncli.runs.generators import LoadedGenerator, open_generator
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.devices import DTYPES, dtype_name, pick_dtype
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Say
from grncli.sampling.pictures import BITS, PictureFolder, load_fitting_tokenizer
from grncli.sampling.prompted_classes import classes_of
from grncli.sampling.sample_store import columns_beside, open_earlier
from grncli.sampling.sampler import SamplingSettings
from grncli.sampling.settings import SampleOptions, choose_grid, describe_settings, parse_classes
from grncli.sampling.starting import Start
from grncli.sampling.subjects import (
    ClassSubjects,
    PromptSubjects,
    StartedSubjects,
    Subjects,
)
from grncli.schedules import Schedule
from grncli.store import MAX_PARTS, BitStore, Fingerprint
from grncli.text.prompts import read_prompts


@dataclass(frozen=True)
class SamplingPlan:
    """What is sampled, how, and where to."""

    run: Path
    options: SampleOptions
    generator: LoadedGenerator  # on its device, in its number format
    tokenizer: LoadedTokenizer | None
    settings: SamplingSettings
    grid: Grid
    subjects: Subjects
    store: Path
    pictures: PictureFolder | None
    columns: Mapping[str, str]  # of the store
    fingerprint: Fingerprint

    @property
    def bits(self) -> Bits:
        """What the generator learned."""
        return self.generator.recipe.bits

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return torch.device(self.options.device)

    def numbers(self) -> list[int]:
        """Numbers of the samples of this part, in their order. More samples a subject only add numbers at the end."""
        options = self.options
        numbers = [self.number(n) for n in range(options.per_class * len(self.subjects.chosen))]
        return numbers[options.part :: options.parts]

    def number(self, place: int) -> int:
        """Number of the sample at a place of the endless order: the first of each subject, the second of each, ..."""
        chosen = self.subjects.chosen
        return place // len(chosen) * len(self.subjects) + chosen[place % len(chosen)]

    def record(self, number: int) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample."""
        fps = {"fps": self.bits.fps} if self.grid[0] > 1 and self.bits.fps else {}
        return self.subjects.record(number) | fps

    def about(self) -> dict[str, Any]:
        """What made the samples, for the metadata of files."""
        return {"settings": dict(self.fingerprint.preprocessing), "tokenizer": dict(self.fingerprint.tokenizer)}

    def with_schedule(self, schedule: Schedule) -> "SamplingPlan":
        """The same samples by another schedule."""
        settings = replace(self.settings, schedule=schedule)
        described = {**self.fingerprint.preprocessing, **describe_settings(settings)}
        return replace(self, settings=settings, fingerprint=replace(self.fingerprint, preprocessing=described))


def make_plan(
    run: Path,
    out: Path,
    options: SampleOptions,
    *,
    generator: LoadedGenerator | None = None,
    tokenizer: LoadedTokenizer | None = None,
    say: Say = lambda text: None,
) -> SamplingPlan:
    """Load the networks and settle what the samples depend on, but for a schedule to fit; nothing is written.

    Parameters
    ----------
    generator, tokenizer : the networks, where they have been opened already
    say : called with a sentence for each network whose training is not finished

    Raises
    ------
    UsageError, StoreMismatch, StoreError, CheckpointError
        Where the options, the tokenizer, ``--prompts``, ``--init`` or ``out`` do not fit.
    """
    check_options(options)
    store = out if names_store(out) else out / BITS
    earlier = open_earlier(store, overwrite=options.overwrite, parts=options.parts)
    options = _with_dtype(options, earlier)
    generator = generator or open_generator(run, options.weights, say=say)
    recipe, bits = generator.recipe, generator.recipe.bits
    options.check_guidance(has_classes=bool(bits.labels))
    classes = parse_classes(options.classes, bits.labels)
    grid = choose_grid(options.grid, bits.grids)
    tokenizer = _find_tokenizer(out, options, recipe, tokenizer, say)
    made_by = dict(bits.tokenizer or (tokenizer.identity if tokenizer is not None else {}))
    pictures = None
    if not names_store(out) and tokenizer is not None:
        pictures = PictureFolder(out, tokenizer.network, recipe.network.codec.rounds, bits.fps)
    subjects = _find_subjects(options, classes, store, grid, recipe, made_by)
    settings = options.sampling_settings(options.first_schedule(), relative=recipe.refinement.target == "relative")
    preprocessing = {
        "generator": generator.identity["sha256"],
        "weights": options.weights,
        "dtype": options.dtype,
        "grid": list(grid),
        **subjects.described(),
        **describe_settings(settings),
    }
    fingerprint = _fingerprint(recipe, options.parts, made_by, preprocessing)
    generator.network.to(options.device, DTYPES[options.dtype])
    if earlier is not None and not options.overwrite:
        _check_same(earlier, fingerprint, options)
    columns = columns_beside(earlier)
    return SamplingPlan(
        run, options, generator, tokenizer, settings, grid, subjects, store, pictures, columns, fingerprint
    )


def _fingerprint(
    recipe: GeneratorRecipe, parts: int, tokenizer: Mapping[str, Any], preprocessing: Mapping[str, Any]
) -> Fingerprint:
    bits, codec = recipe.bits, recipe.network.codec
    return Fingerprint(
        rounds=codec.rounds,
        channels=codec.channels,
        stride=bits.stride,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        labels=bits.labels,
        parts=parts,
        versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
    )


def names_store(out: Path) -> bool:
    """Whether the output is a bit store by its name."""
    return out.suffix == ".zarr"


def check_options(options: SampleOptions) -> None:
    """Refuse options that name no place to write to, or contradict each other."""
    if options.parts > MAX_PARTS:
        raise UsageError(f"--part {options.part}/{options.parts}: expected at most {MAX_PARTS} parts")
    if not 0 <= options.part < options.parts:
        raise UsageError(f"--part {options.part}/{options.parts}: parts count from 0 to {options.parts - 1}")
    if options.per_class < 1:
        raise UsageError(f"--per-class {options.per_class}: expected 1 or more")
    film = options.film
    if film is not None and film.suffix != ".mp4":
        raise UsageError(f"--film {film}: expected a name that ends in .mp4; a PNG is written beside it")
    beside = None if film is None else film.with_suffix(".png")
    if beside is not None and options.sheet == beside:
        raise UsageError(f"--sheet {options.sheet}: is also the picture beside --film; give another name")
    for name, path in (("--sheet", options.sheet), ("--film", film), ("--film", beside)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{name} {path}: there is no such folder, expected one that exists")
        if path is not None and path.is_dir():
            raise UsageError(f"{name} {path}: is a folder, expected the name of a file")
    if options.keep is not None and options.init is None:
        raise UsageError(f"--keep {options.keep} needs --init STORE, the samples of which something is kept")
    if options.prompts is not None and options.classes != "all":
        raise UsageError(f"--prompts {options.prompts} with --classes {options.classes}: expected one of the two")
    if options.prompts is not None and options.init is not None:
        raise UsageError(f"--prompts {options.prompts} with --init {options.init}: expected one of the two")


def _with_dtype(options: SampleOptions, earlier: BitStore | None) -> SampleOptions:
    """The options with a number format for ``auto``: that of earlier samples, whatever processor they were made on."""
    stored = None if earlier is None or options.overwrite else earlier.fingerprint.preprocessing.get("dtype")
    asked = stored if options.dtype == "auto" and stored in DTYPES else options.dtype
    return replace(options, dtype=dtype_name(pick_dtype(asked, torch.device(options.device))))


def _check_same(earlier: BitStore, fingerprint: Fingerprint, options: SampleOptions) -> None:
    """Refuse a store that was made with other settings; a schedule that is still to be fitted may be any."""
    stored, described = earlier.fingerprint, dict(fingerprint.preprocessing)
    if options.schedule == "complexity":
        described["schedule"] = stored.preprocessing.get("schedule")
    asked = replace(fingerprint, preprocessing=described)
    stored.require(asked, earlier.path, "Use the same settings, another OUT, or --overwrite.", parts=True)


def _find_tokenizer(
    out: Path, options: SampleOptions, recipe: GeneratorRecipe, tokenizer: LoadedTokenizer | None, say: Say
) -> LoadedTokenizer | None:
    """The tokenizer on its device, where one is given; UsageError where one is needed."""
    bits = recipe.bits
    run = options.tokenizer if tokenizer is None else tokenizer.run
    if run is not None:
        tokenizer = load_fitting_tokenizer(run, bits, recipe.network, loaded=tokenizer, say=say)
        tokenizer.network.to(options.device)
        return tokenizer
    if not names_store(out):
        wanted = f"{out} is no .zarr store, and pictures need"
    elif options.sheet is not None or options.film is not None:
        wanted = "--sheet and --film need"
    elif not bits.tokenizer:
        wanted = "an imported generator does not know whose bits it learned, so that its samples need"
    else:
        return None
    raise UsageError(f"{wanted} --tokenizer RUN, the tokenizer that the generator was trained for")


def _find_subjects(
    options: SampleOptions,
    classes: Sequence[int],
    store: Path,
    grid: Grid,
    recipe: GeneratorRecipe,
    tokenizer: Mapping[str, str],
) -> Subjects:
    labels, every = recipe.bits.labels, options.classes == "all"
    learned = (labels, recipe.network.null_class)
    if options.prompts is not None:
        if not labels:
            raise UsageError(f"--prompts {options.prompts}: the generator was trained without classes to be named")
        prompts = read_prompts(options.prompts)
        return PromptSubjects(*learned, prompts, classes_of(prompts, labels))
    if options.init is None:
        return ClassSubjects(*learned, classes, every)
    if options.init.resolve() == store.resolve():
        raise UsageError(f"--init {options.init}: is where the samples go, expected another OUT")
    stride, seed = recipe.bits.stride, options.seed
    start = Start(
        options.init, options.keep, grid, recipe.network, tokenizer=tokenizer, stride=stride, labels=labels, seed=seed
    )
    if not every and len(classes) > 1:
        raise UsageError(f"--classes {options.classes} with --init: expected one class, or none for their own")
    return StartedSubjects(*learned, start, None if every else classes[0])
