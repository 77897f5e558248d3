"""``grn train-gen``: from a recipe and bit stores to a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import AskedGeneratorRecipe, GeneratorRecipe
from grncli.runs.generators import build_generator
from grncli.runs.networks import check_memory, made_on_meta
from grncli.runtime.errors import RecipeError, StoreError
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import BitStore, open_store
from grncli.training.bit_loader import BitLoader, GridSamples, check_validation, combine_stores
from grncli.training.logs import LogLine
from grncli.training.loop import TrainingContext
from grncli.training.refinement_objective import Preview, RefinementObjective
from grncli.training.run_setup import bits_record, check_division
from grncli.training.training_run import prepare_run
from grncli.training.wrapping import wrap_generator

GIB = 1 << 30


@dataclass(frozen=True)
class GeneratorPlan:
    """A recipe whose sizes the stores have settled, and the samples to train on."""

    recipe: GeneratorRecipe
    samples: Sequence[GridSamples]


def train_generator(
    plan: GeneratorPlan,
    run: Path,
    *,
    device: torch.device,
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
    sheet : writes a sheet of samples now and then
    report : called with each line of the log

    Raises
    ------
    Stopped
        If the monitor's stop asked for it, after a checkpoint.
    RecipeError, CheckpointError
        If the batch does not divide among the processes, or ``run`` holds something else.
    """
    data = bits_record(plan.recipe.bits.stores, sum(plan.recipe.bits.grids.values()))
    context = TrainingContext(device=device, processes=processes, monitor=monitor or Monitor(), report=report)
    training = prepare_run(plan.recipe, run, data, context, overwrite=overwrite)
    if not training.left:
        return 0
    recipe = training.recipe
    check_division({"data.batch": recipe.data.batch}, recipe.optimization.gradient_accumulation, processes)
    check_memory(made_on_meta(lambda: build_generator(recipe.network)), recipe.optimization.copies, device)
    loader = BitLoader(
        plan.samples,
        batch=recipe.data.batch,
        buffer=recipe.data.buffer * GIB,
        validation=recipe.data.validation,
        seed=recipe.training.seed,
        processes=processes,
    )
    with training.opened():
        network = training.build("train-gen", lambda: build_generator(recipe.network))
        wrap_generator(network, recipe.training)
        training.train(RefinementObjective(recipe, network, loader, device, sheet))
    return training.left


def make_plan(
    recipe: AskedGeneratorRecipe,
    paths: Sequence[Path],
    *,
    allow_incomplete: bool = False,
    say: Say = lambda text: None,
) -> GeneratorPlan:
    """Open the stores and settle what of the recipe depends on them; nothing is written.

    Parameters
    ----------
    allow_incomplete : train on what an unfinished store holds so far

    Raises
    ------
    StoreError, StoreMismatch, RecipeError
        If a store is empty, incomplete or unlike the others, or does not fit the recipe.
    """
    stores = [open_store(path) for path in paths]
    for store in stores:
        _check_complete(store, allow_incomplete, say)
    bits, samples = combine_stores(stores)
    network = recipe.network
    wanted = BitFormat(owner="the recipe", origin="", tokenizer={}, rounds=network.rounds, channels=network.channels)
    remedy = "leave the field out of the section network, tokenize with more rounds, or train on another store"
    require_fit(BitFormat.of_store(stores[0]), wanted, remedy)
    classes = _classes(recipe, bits.labels, samples, stores)
    settled = network.settle(rounds=network.rounds or stores[0].rounds, channels=stores[0].channels, classes=classes)
    check_division({"data.batch": recipe.data.batch}, recipe.optimization.gradient_accumulation, SINGLE_PROCESS)
    check_validation(samples, recipe.data.validation)
    if not classes:
        samples = [replace(part, labels=np.full_like(part.labels, -1)) for part in samples]
    bits = replace(bits, labels=bits.labels if classes else ())
    return GeneratorPlan(recipe.settle(settled, bits), samples)


def _check_complete(store: BitStore, allowed: bool, say: Say) -> None:
    if store.complete:
        return
    if not allowed:
        raise StoreError(
            f"{store.path} is not complete ({len(store)} samples so far); finish it with the command that makes it, "
            "or add --allow-incomplete"
        )
    say(f"{store.path}: is not complete, training on the {len(store)} samples it has so far")


def _classes(
    recipe: AskedGeneratorRecipe, labels: Sequence[str], samples: Sequence[GridSamples], stores: Sequence[BitStore]
) -> int:
    """Number of classes to learn, 0 for none."""
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
