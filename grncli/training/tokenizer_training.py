"""``grn train-tokenizer``: from a recipe and a folder of media to a run directory."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from grncli.media.decoder import DecoderPool
from grncli.media.sources import list_sources
from grncli.metrics.lpips_weights import default_cache, load_lpips
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import Tokenizer
from grncli.runs.networks import check_memory, made_on_meta
from grncli.runs.tokenizer_recipe import TokenizerLosses, TokenizerRecipe
from grncli.runtime.devices import DTYPES
from grncli.runtime.processes import ALONE, Processes, share_batch_norm
from grncli.runtime.stopping import Stop
from grncli.training.crops import CropLoader, CropSampler
from grncli.training.logs import check_extras
from grncli.training.loop import Report, train
from grncli.training.precision import describe_start, settle_dtype
from grncli.training.reconstruction_objective import Reconstruction
from grncli.training.run_setup import check_division, look_at_run, media_record, open_run, touch_complete


def train_tokenizer(
    recipe: TokenizerRecipe,
    src: str,
    run: Path,
    *,
    device: torch.device,
    overwrite: bool = False,
    processes: Processes = ALONE,
    cache: Path | None = None,
    stop: Stop | None = None,
    report: Callable[[Report], None] = lambda _: None,
    progress: Callable[[int], None] = lambda step: None,
    say: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a tokenizer on the media of ``src`` into the run directory ``run``; returns the steps this run added.

    An interrupted run goes on from its newest checkpoint; ``training.steps`` may have grown since. Of several
    processes each takes its share of every batch, and the first one writes.

    Parameters
    ----------
    progress : told the number of steps done, at the start and after every step
    say : told what is trained in which number format, before the first step
    cache : where LPIPS weights are looked for that the recipe does not name

    Raises
    ------
    Stopped
        If ``stop`` asked for it, after a checkpoint.
    UsageError, RecipeError, CheckpointError
        If ``src`` lacks the media that the recipe wants, or ``run`` holds something else.
    """
    recipe = settle_dtype(recipe, run, device, processes, overwrite=overwrite, warn=warn)
    sources = list_sources(src).sources
    data = media_record(sources, src)
    done = look_at_run(run, recipe, data, overwrite=overwrite).steps
    if done >= recipe.training.steps:
        if processes.leads:
            touch_complete(run, recipe)
        return 0
    check_extras(recipe.training)
    lpips = find_lpips(recipe.losses, cache or default_cache(), warn)
    sampler = CropSampler(recipe.data, sources, recipe.training.seed, src)
    media = {"image": recipe.data.image, "clip": recipe.data.clip}
    batches = {f"data.{kind}.batch": data.batch for kind, data in media.items() if data is not None}
    check_division(batches, recipe.optimization.gradient_accumulation, processes)
    network = made_on_meta(lambda: Tokenizer(recipe.network, recipe.most_rounds))
    check_memory(network, recipe.optimization.copies, device)
    with (
        open_run(run, recipe, data, processes, overwrite=overwrite, warn=warn),
        DecoderPool(recipe.data.workers) as pool,
    ):
        torch.manual_seed(recipe.training.seed)  # of the first weights; nothing later draws from it
        tokenizer = Tokenizer(recipe.network, recipe.most_rounds)
        say(describe_start("train-tokenizer", tokenizer, recipe.training, device, processes))
        loader = CropLoader(sampler, pool, processes, warn)
        objective = Reconstruction(recipe, tokenizer, loader, lpips, device)
        if recipe.training.activation_checkpointing:
            tokenizer.recompute_activations()
        if recipe.training.compile:
            tokenizer.encoder.compile()
            tokenizer.decoder.compile()
        if objective.discriminators is not None and processes.count > 1:
            share_batch_norm(objective.discriminators)
        train(
            objective,
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


def find_lpips(losses: TokenizerLosses, cache: Path, say: Callable[[str], None]) -> LPIPS | None:
    """The perceptual metric with its weights, None where the recipe does not weigh it; CheckpointError without them."""
    if losses.lpips.weight == 0:
        return None
    weights = None if losses.lpips_weights is None else Path(losses.lpips_weights)
    return load_lpips(losses.lpips_network, weights, cache=cache, download=losses.lpips_download, say=say)
