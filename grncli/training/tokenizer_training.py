"""``grn train-tokenizer``: from a recipe and a folder of media to a run directory."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from grncli.media.decoder import DecoderPool
from grncli.media.listing import ListingOptions, list_sources
from grncli.media.listing.listing_cache import FOLDER
from grncli.media.sources import Source, describe_arguments
from grncli.metrics.lpips_weights import default_cache, load_lpips
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import Tokenizer
from grncli.runs.tokenizer_recipe import TokenizerLosses, TokenizerRecipe
from grncli.runs.tokenizers import build_tokenizer
from grncli.runtime import cache_folder
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.training.crops import CropLoader, CropSampler
from grncli.training.logs import LogLine
from grncli.training.loop import TrainingContext
from grncli.training.reconstruction_objective import ReconstructionObjective
from grncli.training.run_setup import check_division, media_record
from grncli.training.training_run import prepare_run
from grncli.training.wrapping import wrap_discriminators, wrap_tokenizer


def train_tokenizer(
    recipe: TokenizerRecipe,
    src: str | Sequence[str],
    run: Path,
    *,
    device: torch.device,
    overwrite: bool = False,
    processes: Processes = SINGLE_PROCESS,
    cache: Path | None = None,
    monitor: Monitor | None = None,
    report: Callable[[LogLine], None] = lambda line: None,
) -> int:
    """Train a tokenizer on the media of ``src`` into the run directory ``run``; returns the steps this run added.

    Resumes an interrupted run at its newest checkpoint; ``training.steps`` may have grown since. Of several processes
    each takes its share of every batch, and the first one writes.

    Parameters
    ----------
    cache : where LPIPS weights are looked for that the recipe does not name
    report : called with each line of the log

    Raises
    ------
    Stopped
        If the monitor's stop asked for it, after a checkpoint.
    UsageError, RecipeError, CheckpointError
        If ``src`` lacks the media that the recipe wants, or ``run`` holds something else.
    """
    monitor = monitor or Monitor()
    context = TrainingContext(device=device, processes=processes, monitor=monitor, report=report)
    sources = training_media(src)
    training = prepare_run(recipe, run, media_record(sources, src), context, overwrite=overwrite)
    if not training.left:
        return 0
    recipe = training.recipe
    lpips = find_lpips(recipe.losses, cache or default_cache(), monitor.say)
    sampler = crop_sampler(recipe, sources, src, processes)
    training = training.spread(lambda: build_tokenizer(recipe))
    with training.opened(), DecoderPool(recipe.data.workers) as pool:
        tokenizer = training.build("train-tokenizer", lambda: build_tokenizer(recipe))
        training.train(reconstruction_objective(recipe, tokenizer, sampler, pool, lpips, training.context))
    return training.left


def training_media(src: str | Sequence[str]) -> list[Source]:
    """The sources of a training; archives that did not change are not listed anew."""
    return list_sources(src, ListingOptions(cache=cache_folder.default_cache() / FOLDER)).sources


def crop_sampler(
    recipe: TokenizerRecipe, sources: Sequence[Source], src: str | Sequence[str], processes: Processes
) -> CropSampler:
    """What each step trains on; RecipeError where its batches do not divide."""
    sampler = CropSampler(recipe.data, sources, recipe.training.seed, describe_arguments(src))
    batches = {f"data.{kind}.batch": media.batch for kind, media in sampler.media.items()}
    check_division(batches, recipe.optimization.gradient_accumulation, processes)
    return sampler


def reconstruction_objective(
    recipe: TokenizerRecipe,
    tokenizer: Tokenizer,
    sampler: CropSampler,
    pool: DecoderPool,
    lpips: LPIPS | None,
    context: TrainingContext,
) -> ReconstructionObjective:
    """What a new tokenizer learns from, wrapped as the recipe asks; ``pool`` decodes its crops."""
    wrap_tokenizer(tokenizer, recipe.training)
    loader = CropLoader(sampler, pool, context.processes, context.monitor.say)
    objective = ReconstructionObjective(recipe, tokenizer, loader, lpips, context.device)
    if objective.discriminators is not None:
        wrap_discriminators(objective.discriminators, context.processes)
    return objective


def find_lpips(losses: TokenizerLosses, cache: Path, say: Say) -> LPIPS | None:
    """The perceptual metric with its weights, None where the recipe does not weigh it; CheckpointError without them."""
    if losses.lpips.weight == 0:
        return None
    weights = None if losses.lpips_weights is None else Path(losses.lpips_weights)
    return load_lpips(losses.lpips_network, weights, cache=cache, download=losses.lpips_download, say=say)
