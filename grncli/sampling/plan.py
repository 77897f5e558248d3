"""Everything about a run of ``grn sample`` that is decided, and refused, before the first step."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grncli.models.text_transformer import TextTransformerConfig
from grncli.models.transformer import Grid
from grncli.runs.generator_recipe import Bits, GeneratorRecipe, TextConditioning
from grncli.runs.generators import LoadedGenerator
from grncli.runs.loading import identify_network
from grncli.runs.recipe_first import OpenedGenerator, load_weights, open_recipe
from grncli.runs.tokenizers import LoadedTokenizer, identify_tokenizer
from grncli.runtime.devices import DTYPES, dtype_name, pick_dtype
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.sampling.from_text.text_plan import TextPlan, free_memory, task_of
from grncli.sampling.option_checks import check_class_options, check_options, check_text_options
from grncli.sampling.pictures import BITS, PictureFolder, load_fitting_tokenizer
from grncli.sampling.prompted_classes import classes_of
from grncli.sampling.sample_grid import asked_grid
from grncli.sampling.sample_store import columns_beside, open_earlier
from grncli.sampling.sampler import Sampler, SamplingSettings
from grncli.sampling.settings import CLASS_DEFAULTS, SampleOptions, describe_settings, parse_classes, text_defaults
from grncli.sampling.starting import Start
from grncli.sampling.subjects import ClassSubjects, PromptSubjects, StartedSubjects, Subjects
from grncli.schedules import Schedule
from grncli.store import BitStore, Fingerprint
from grncli.text.prompt_features import PromptFeatures
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
        assert options.per_class is not None
        numbers = [self.number(n) for n in range(options.per_class * len(self.subjects.chosen))]
        return numbers[options.part :: options.parts]

    def sampler(self, *, traced: Collection[int] = ()) -> Sampler:
        """What refines the samples; ``traced`` are numbers of those whose steps are kept, all of them at once."""
        return Sampler(
            self.generator.network,
            self.grid,
            self.settings,
            batch=self.options.batch,
            traced=traced,
            condition_tokens=self.subjects.condition_tokens,
        )

    def bring(self, network: nn.Module) -> None:
        """With ``--offload``: a network comes to the device, and the others leave it."""
        if not self.options.offload or next(network.parameters()).is_meta:
            return
        networks: list[nn.Module] = [self.generator.network]
        networks += [] if self.tokenizer is None else [self.tokenizer.network]
        for other in networks:
            if other is not network:
                other.to("cpu")
        free_memory()
        network.to(self.options.device)

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
    features: PromptFeatures | None = None,
    monitor: Monitor | None = None,
    computes: bool = True,
) -> SamplingPlan:
    """Load the networks and settle what the samples depend on, but for a schedule to fit.

    Nothing is written but the answers of a rewriter. The recipe alone is read first, and whatever can be refused is
    refused before any weights are read; those of a text encoder leave before those of the generator come.

    Parameters
    ----------
    generator, tokenizer, features : the networks, where they have been opened already
    monitor : told of each network whose training is not finished; may stop the rewriting of prompts
    computes : load the networks; else they have no weights, and are hashed only

    Raises
    ------
    UsageError, StoreMismatch, StoreError, CheckpointError
        Where the options, the tokenizer, the prompts, ``--init`` or ``out`` do not fit.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor = monitor or Monitor()
    check_options(options)
    store = store_of(out)
    earlier = open_earlier(store, overwrite=options.overwrite, parts=options.parts)
    resumed = None if options.overwrite else earlier
    options = _with_dtype(options, resumed)
    opened = generator or open_recipe(run)
    recipe = opened.recipe
    grid = asked_grid(options, recipe.bits)
    options = settled_options(options, recipe, grid, run, has_features=features is not None)
    settings = options.sampling_settings(options.first_schedule(), relative=recipe.refinement.target == "relative")
    tokenizer = _find_tokenizer(out, options, recipe, tokenizer, monitor.say, computes=computes)
    made_by = dict(recipe.bits.tokenizer or (tokenizer.identity if tokenizer is not None else {}))
    pictures = _picture_folder(out, recipe, tokenizer)
    start = _find_start(options, store, grid, recipe, made_by)
    if isinstance(recipe.network, TextTransformerConfig):
        if resumed is not None:  # before an encoder is loaded
            _check_settings(resumed, options, grid, settings)
        texts = TextPlan(run=run, out=out, options=options, recipe=recipe, grid=grid, start=start, resumed=resumed)
        subjects: Subjects = texts.subjects(tokenizer, features, monitor, computes=computes)
    else:
        subjects = _class_subjects(options, recipe, start)
    generator = _find_generator(opened, generator, options, monitor.say, computes=computes)
    preprocessing = _made_with(generator, options, grid) | subjects.described() | describe_settings(settings)
    fingerprint = _fingerprint(recipe, options.parts, made_by, preprocessing)
    if resumed is not None:
        _check_same(resumed, fingerprint, options)
    columns = columns_beside(earlier)
    return SamplingPlan(
        run, options, generator, tokenizer, settings, grid, subjects, store, pictures, columns, fingerprint
    )


def settled_options(
    options: SampleOptions, recipe: GeneratorRecipe, grid: Grid, run: Path, *, has_features: bool = False
) -> SampleOptions:
    """The options with the defaults of the run; UsageError for those of the other kind of generator."""
    if isinstance(recipe.network, TextTransformerConfig):
        check_text_options(options, run, has_features=has_features)
        text = recipe.text or TextConditioning()
        return options.with_defaults(text_defaults(text, task_of(text, options, grid), pictures=grid[0] == 1))
    check_class_options(options, run)
    options.check_guidance(has_classes=bool(recipe.bits.labels))
    return options.with_defaults(CLASS_DEFAULTS)


def _made_with(generator: LoadedGenerator, options: SampleOptions, grid: Grid) -> dict[str, Any]:
    return {
        "generator": generator.identity["sha256"],
        "weights": options.weights,
        "dtype": options.dtype,
        "grid": list(grid),
    }


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


def store_of(out: Path) -> Path:
    """Where the bits of samples go."""
    return out if names_store(out) else out / BITS


def _with_dtype(options: SampleOptions, resumed: BitStore | None) -> SampleOptions:
    """The options with a number format for ``auto``: that of earlier samples, whatever processor they were made on."""
    stored = None if resumed is None else resumed.fingerprint.preprocessing.get("dtype")
    asked = stored if options.dtype == "auto" and stored in DTYPES else options.dtype
    return replace(options, dtype=dtype_name(pick_dtype(asked, torch.device(options.device))))


def _check_same(earlier: BitStore, fingerprint: Fingerprint, options: SampleOptions) -> None:
    """Refuse a store that was made with other settings; a schedule that is still to be fitted may be any."""
    stored, described = earlier.fingerprint, dict(fingerprint.preprocessing)
    if options.schedule == "complexity":
        described["schedule"] = stored.preprocessing.get("schedule")
    asked = replace(fingerprint, preprocessing=described)
    stored.require(asked, earlier.path, "Use the same settings, another OUT, or --overwrite.", parts=True)


def _check_settings(earlier: BitStore, options: SampleOptions, grid: Grid, settings: SamplingSettings) -> None:
    """As `_check_same`, but only of what no network or prompt has a part in."""
    stored = earlier.fingerprint
    known = {"weights": options.weights, "dtype": options.dtype, "grid": list(grid), **describe_settings(settings)}
    _check_same(earlier, replace(stored, preprocessing={**stored.preprocessing, **known}), options)


def _find_generator(
    opened: OpenedGenerator, generator: LoadedGenerator | None, options: SampleOptions, say: Say, *, computes: bool
) -> LoadedGenerator:
    """The network on its device, in its number format."""
    if not computes:
        return identify_network(opened, options.weights)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    generator = generator or load_weights(opened, options.weights, device=device, dtype=dtype, say=say)
    generator.network.to(device, dtype)
    return generator


def _find_tokenizer(
    out: Path,
    options: SampleOptions,
    recipe: GeneratorRecipe,
    tokenizer: LoadedTokenizer | None,
    say: Say,
    *,
    computes: bool,
) -> LoadedTokenizer | None:
    """The tokenizer on its device, where one is given; UsageError where one is needed."""
    bits = recipe.bits
    run = options.tokenizer if tokenizer is None else tokenizer.run
    if run is not None:
        belonging = () if recipe.text is None else recipe.text.tokenizers
        tokenizer = tokenizer if computes else identify_tokenizer(run)
        tokenizer = load_fitting_tokenizer(run, bits, recipe.network, belonging=belonging, loaded=tokenizer, say=say)
        if computes and not options.offload:
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


def _picture_folder(out: Path, recipe: GeneratorRecipe, tokenizer: LoadedTokenizer | None) -> PictureFolder | None:
    if names_store(out) or tokenizer is None:
        return None
    return PictureFolder(out, tokenizer.network, recipe.network.codec.rounds, recipe.bits.fps)


def _find_start(
    options: SampleOptions, store: Path, grid: Grid, recipe: GeneratorRecipe, tokenizer: Mapping[str, str]
) -> Start | None:
    """The samples of ``--init``."""
    if options.init is None:
        return None
    if options.init.resolve() == store.resolve():
        raise UsageError(f"--init {options.init}: is where the samples go, expected another OUT")
    return Start(
        options.init,
        options.keep,
        grid,
        recipe.network,
        tokenizer=tokenizer,
        stride=recipe.bits.stride,
        labels=recipe.bits.labels,
        seed=options.seed,
    )


def _class_subjects(options: SampleOptions, recipe: GeneratorRecipe, start: Start | None) -> Subjects:
    labels, every = recipe.bits.labels, options.classes == "all"
    learned, classes = (labels, recipe.network.null_class), parse_classes(options.classes, labels)
    if options.prompts is not None:
        if not labels:
            raise UsageError(f"--prompts {options.prompts}: the generator was trained without classes to be named")
        prompts = read_prompts(options.prompts)
        return PromptSubjects(*learned, prompts, classes_of(prompts, labels))
    if start is None:
        return ClassSubjects(*learned, classes, every)
    if not every and len(classes) > 1:
        raise UsageError(f"--classes {options.classes} with --init: expected one class, or none for their own")
    return StartedSubjects(*learned, start, None if every else classes[0])
