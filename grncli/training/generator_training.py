"""``grn train-gen``: from a recipe and bit stores to a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from grncli.models.generator import Generator
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.networks import check_memory, made_on_meta
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import RecipeError, StoreError
from grncli.runtime.processes import ALONE, Processes
from grncli.runtime.stopping import Stop
from grncli.store import BitStore, open_store
from grncli.training.bit_loader import BitLoader, Samples, check_validation, gather
from grncli.training.logs import check_extras
from grncli.training.loop import Report, train
from grncli.training.precision import describe_start, settle_dtype
from grncli.training.refinement_objective import Preview, RefinementObjective
from grncli.training.run_setup import bits_record, check_division, look_at_run, open_run, touch_complete

GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """A recipe whose sizes the stores have settled, and the samples to train on."""

    recipe: GeneratorRecipe
    samples: Sequence[Samples]


def train_generator(
    plan: Plan,
    run: Path,
    *,
    device: torch.device,
    overwrite: bool = False,
    processes: Processes = ALONE,
    sheet: Preview | None = None,
    stop: Stop | None = None,
    report: Callable[[Report], None] = lambda _: None,
    progress: Callable[[int], None] = lambda step: None,
    say: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a generator into the run directory ``run``; returns the steps this run added.

    Stopping, resuming and several processes are as in ``train_tokenizer``.

    Parameters
    ----------
    plan : from ``make_plan``
    progress, say : as in ``train_tokenizer``
    sheet : leaves a sheet of samples now and then

    Raises
    ------
    Stopped
        If ``stop`` asked for it, after a checkpoint.
    RecipeError, CheckpointError
        If the batch does not divide among the processes, or ``run`` holds something else.
    """
    recipe = settle_dtype(plan.recipe, run, device, processes, overwrite=overwrite, warn=warn)
    assert recipe.bits is not None
    data = bits_record(recipe.bits.stores, sum(recipe.bits.grids.values()))
    done = look_at_run(run, recipe, data, overwrite=overwrite).steps
    if done >= recipe.training.steps:
        if processes.leads:
            touch_complete(run, recipe)
        return 0
    check_extras(recipe.training)
    check_division({"data.batch": recipe.data.batch}, recipe.optimization.accumulate, processes)
    check_memory(made_on_meta(lambda: Generator(recipe.network)), recipe.optimization.copies, device)
    loader = BitLoader(
        plan.samples,
        batch=recipe.data.batch,
        buffer=recipe.data.buffer * GIB,
        validation=recipe.data.validation,
        seed=recipe.training.seed,
        processes=processes,
    )
    with open_run(run, recipe, data, processes, overwrite=overwrite, warn=warn):
        torch.manual_seed(recipe.training.seed)  # of the first weights; nothing later draws from it
        network = Generator(recipe.network)
        say(describe_start("train-gen", network, recipe.training, device, processes))
        network.recompute = recipe.training.recompute
        if recipe.training.compile:
            network.compile()
        train(
            RefinementObjective(recipe, network, loader, device, sheet),
            run,
            training=recipe.training,
            config=asdict(recipe.network),
            device=device,
            dtype=DTYPES[recipe.training.dtype],
            processes=processes,
            stop=stop or Stop(),
            report=report,
            progress=progress,
            warn=warn,
        )
    return recipe.training.steps - done


def make_plan(
    recipe: GeneratorRecipe,
    paths: Sequence[Path],
    *,
    allow_incomplete: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Plan:
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
        _check_complete(store, allow_incomplete, warn)
    bits, samples = gather(stores)
    network = recipe.network
    wanted = BitFormat(owner="the recipe", origin="", tokenizer={}, rounds=network.rounds, channels=network.channels)
    remedy = "leave the field out of the section network, tokenize with more rounds, or train on another store"
    require_fit(BitFormat.of_store(stores[0]), wanted, remedy)
    classes = _classes(recipe, bits.labels, samples, stores)
    network = replace(
        network,
        rounds=network.rounds or stores[0].rounds,
        channels=stores[0].channels,
        classes=classes,
    )
    check_division({"data.batch": recipe.data.batch}, recipe.optimization.accumulate, ALONE)
    check_validation(samples, recipe.data.validation)
    if not classes:
        samples = [replace(part, labels=np.full_like(part.labels, -1)) for part in samples]
    bits = replace(bits, labels=bits.labels if classes else ())
    return Plan(replace(recipe, network=network, bits=bits), samples)


def _check_complete(store: BitStore, allowed: bool, warn: Callable[[str], None]) -> None:
    if store.complete:
        return
    if not allowed:
        raise StoreError(
            f"{store.path} is not complete ({len(store)} samples so far); finish it with the command that makes it, "
            "or add --allow-incomplete"
        )
    warn(f"{store.path}: is not complete, training on the {len(store)} samples it has so far")


def _classes(
    recipe: GeneratorRecipe, labels: Sequence[str], samples: Sequence[Samples], stores: Sequence[BitStore]
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
