"""``grn train-gen``: from a recipe and bit stores to a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformer
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import (
    AskedGenerator,
    AskedGeneratorRecipe,
    AskedTextGenerator,
    BitData,
    GeneratorRecipe,
    PackedData,
)
from grncli.runs.generators import build_generator
from grncli.runs.rundir import DataRecord
from grncli.runtime.errors import RecipeError, StoreError, UsageError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import BitStore, open_store
from grncli.store.part_faults import part_faults, unfinished_parts
from grncli.text.text_encoder import TextEncoder
from grncli.training.bit_loader import BitLoader, GridSamples, check_validation, combine_stores
from grncli.training.captioned_plan import CaptionedPlan, make_captioned_plan
from grncli.training.logs import LogLine
from grncli.training.loop import TrainingContext
from grncli.training.objective import Average
from grncli.training.packed_loader import PackedLoader
from grncli.training.refinement_objective import Preview, RefinementObjective
from grncli.training.run_setup import bits_record, check_division
from grncli.training.starting_run import FirstWeights
from grncli.training.text_objective import TextRefinementObjective
from grncli.training.training_run import prepare_run
from grncli.training.wrapping import wrap_generator

GIB = 1 << 30


@dataclass(frozen=True)
class GeneratorPlan:
    """A recipe whose sizes the stores have settled, and the samples to train on."""

    recipe: GeneratorRecipe
    samples: Sequence[GridSamples]


def train_generator(
    plan: GeneratorPlan | CaptionedPlan,
    run: Path,
    *,
    device: torch.device,
    first: FirstWeights | None = None,
    overwrite: bool = False,
    processes: Processes = SINGLE_PROCESS,
    sheet: Preview | None = None,
    monitor: Monitor | None = None,
    report: Callable[[LogLine], None] = lambda line: None,
) -> int:
    """Train a generator into the run directory ``run``; returns the steps this run added.

    Stopping, resuming and several processes are as in ``train_tokenizer``.

    Parameters
    ----------
    plan : from ``make_plan``
    first : weights to begin with; None draws them
    sheet : writes a sheet of samples now and then
    report : called with each line of the log

    Raises
    ------
    Stopped
        If the monitor's stop asked for it, after a checkpoint.
    RecipeError, CheckpointError
        If the batch does not divide among the processes, or ``run`` holds something else.
    """
    data = bits_of(plan)
    context = TrainingContext(device=device, processes=processes, monitor=monitor or Monitor(), report=report)
    training = prepare_run(plan.recipe, run, data, context, overwrite=overwrite)
    if not training.left:
        return 0
    recipe = training.recipe
    check_division(divided(recipe.data), recipe.optimization.gradient_accumulation, processes)
    training = training.spread(lambda: build_generator(recipe.network))
    with training.opened():
        begun = first.weights if first is not None and not training.done else None
        network = training.build("train-gen", lambda: build_generator(recipe.network), begun)
        wrap_generator(network, recipe.training)
        average = first.average if first is not None else None
        training.train(refinement_objective(plan, recipe, network, training.context, sheet, average))
    return training.left


def bits_of(plan: GeneratorPlan | CaptionedPlan) -> DataRecord:
    """The data of a run: bits, and captions where it learns from them."""
    captions, features = (plan.captions, plan.features_dtype) if isinstance(plan, CaptionedPlan) else ((), "")
    return bits_record([*plan.recipe.bits.stores, *captions], sum(plan.recipe.bits.grids.values()), features)


def refinement_objective(
    plan: GeneratorPlan | CaptionedPlan,
    recipe: GeneratorRecipe,
    network: Generator,
    context: TrainingContext,
    sheet: Preview | None = None,
    average: Average | None = None,
) -> RefinementObjective | TextRefinementObjective:
    """What a generator learns from, with the recipe as the run settled it."""
    seed, processes = recipe.training.seed, context.processes
    if isinstance(plan, CaptionedPlan):
        assert isinstance(network, TextTransformer)
        packed = PackedLoader(plan.samples, plan.rows, recipe, processes)
        return TextRefinementObjective(recipe, network, packed, context.device, sheet, average)
    assert isinstance(recipe.data, BitData)
    loader = BitLoader(
        plan.samples,
        batch=recipe.data.batch,
        buffer=recipe.data.buffer * GIB,
        validation=recipe.data.validation,
        seed=seed,
        processes=processes,
    )
    return RefinementObjective(recipe, network, loader, context.device, sheet, average)


def divided(data: BitData | PackedData) -> dict[str, int]:
    """What is divided among processes, by the name of its field."""
    return {"data.batch": data.batch} if isinstance(data, BitData) else {"data.sequences": data.sequences}


def make_plan(
    recipe: AskedGeneratorRecipe,
    paths: Sequence[Path],
    *,
    text: Path | None = None,
    open_encoder: Callable[[], TextEncoder] | None = None,
    place: str | None = None,
    allow_incomplete: bool = False,
    say: Say = lambda text: None,
    processes: Processes = SINGLE_PROCESS,
) -> GeneratorPlan | CaptionedPlan:
    """Open the stores and settle what of the recipe depends on them; nothing is written.

    Parameters
    ----------
    text : features of captions, for a network that is conditioned on text
    open_encoder : what computes them when a step needs them, in their place; called after all that needs no encoder
    place : path of the recipe, for the commands that messages give
    allow_incomplete : train on what an unfinished store holds so far
    processes : which share the work; all call this with the same arguments

    Raises
    ------
    StoreError, StoreMismatch, RecipeError
        If a store is empty, incomplete or unlike the others, or does not fit the recipe.
    """
    stores = [open_store(path) for path in paths]
    for store in stores:
        _check_complete(store, allow_incomplete, say)
    network = recipe.network
    wanted = BitFormat(owner="the recipe", origin="", tokenizer={}, rounds=network.rounds, channels=network.channels)
    remedy = "leave the field out of the section network, tokenize with more rounds, or train on another store"
    require_fit(BitFormat.of_store(stores[0]), wanted, remedy)
    check_division(divided(recipe.data), recipe.optimization.gradient_accumulation, SINGLE_PROCESS)
    if isinstance(network, AskedTextGenerator):
        return make_captioned_plan(
            recipe,
            stores,
            text,
            open_encoder,
            place=place,
            allow_incomplete=allow_incomplete,
            say=say,
            processes=processes,
        )
    if text is not None or open_encoder is not None:
        given = "--text-encoder" if text is None else f"--text {text}"
        raise UsageError(f"{given}: is for recipes with network.type=text_transformer, and this one is for classes")
    assert isinstance(recipe.data, BitData)
    bits, samples = combine_stores(stores)
    classes = _classes(recipe, bits.labels, samples, stores)
    settled = network.settle(rounds=network.rounds or stores[0].rounds, channels=stores[0].channels, classes=classes)
    check_validation(samples, recipe.data.validation)
    if not classes:
        samples = [replace(part, labels=np.full_like(part.labels, -1)) for part in samples]
    bits = replace(bits, labels=bits.labels if classes else ())
    return GeneratorPlan(recipe.settle(settled, bits), samples)


def _check_complete(store: BitStore, allowed: bool, say: Say) -> None:
    """StoreError for a store that lacks samples, or has some twice; where that is allowed, a sentence."""
    faults = part_faults(store)
    if faults and not allowed:
        raise StoreError(f"{faults[0].removesuffix('.')}; or add --allow-incomplete to train on all that is there")
    for fault in faults:
        say(fault)
    if store.complete:
        return
    if not allowed:
        lacking = unfinished_parts(store)
        raise StoreError(
            f"{store.path} is not complete ({len(store)} samples so far){lacking and f': {lacking}'}; finish it with "
            "the command that makes it, or add --allow-incomplete"
        )
    say(f"{store.path}: is not complete, training on the {len(store)} samples it has so far")


def _classes(
    recipe: AskedGeneratorRecipe, labels: Sequence[str], samples: Sequence[GridSamples], stores: Sequence[BitStore]
) -> int:
    """Number of classes to learn, 0 for none."""
    assert isinstance(recipe.network, AskedGenerator)
    wanted = recipe.network.classes
    names = ", ".join(str(store.path) for store in stores)
    if wanted == 0:
        return 0
    missing = sum(int((part.labels < 0).sum()) for part in samples)
    if wanted is not None and len(labels) != wanted:
        raise RecipeError(
            f"{names}: {len(labels) or 'no'} classes, and the recipe says network.classes={wanted}; "
            "tokenize with --labels dirs, or say network.classes=0 for a generator without classes"
        )
    if labels and missing:
        raise StoreError(
            f"{names}: {missing} samples have no label and others do; tokenize all with --labels dirs, "
            "or say network.classes=0 for a generator without classes"
        )
    return len(labels)
