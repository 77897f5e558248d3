"""``grn train-tokenizer``: from a recipe and a folder of media to a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from grncli.checkpoint import RECIPE, check_run_is_free, clear_run, is_run, list_checkpoints
from grncli.errors import CheckpointError, RecipeError
from grncli.lpips_weights import default_cache, load_lpips
from grncli.media.decoder import DecoderPool
from grncli.media.sources import list_sources
from grncli.media.writing import whole_file
from grncli.models.lpips import LPIPS
from grncli.models.tokenizer import Tokenizer
from grncli.recipe import dump_recipe, read_recipe
from grncli.stopping import Stop
from grncli.training.crops import CropLoader, CropSampler
from grncli.training.loop import Report, train
from grncli.training.processes import ALONE, Processes, share_batch_norm
from grncli.training.recipes import TokenizerLosses, TokenizerRecipe
from grncli.training.reconstruction import Reconstruction

# What of a recipe may change between the parts of a run.
EXTENDABLE = (
    *("steps", "log_every", "checkpoint_every", "preview_every", "validate_every"),
    *("keep", "keep_every", "compile", "recompute", "tensorboard"),
)


def train_tokenizer(
    recipe: TokenizerRecipe,
    src: str,
    run: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    processes: Processes = ALONE,
    cache: Path | None = None,
    stop: Stop | None = None,
    report: Callable[[Report], None] = lambda _: None,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Train a tokenizer on the media of ``src`` into the run directory ``run``; returns the steps this run added.

    An interrupted run goes on from its newest checkpoint; ``training.steps`` may have grown since. Of several
    processes each takes its share of every batch, and the first one writes.

    Parameters
    ----------
    cache : where LPIPS weights are looked for that the recipe does not name

    Raises
    ------
    Stopped
        If ``stop`` asked for it, after a checkpoint.
    UsageError, RecipeError, CheckpointError
        If ``src`` lacks the media that the recipe wants, or ``run`` holds something else.
    """
    done = steps_done(run, recipe, overwrite=overwrite)
    if done >= recipe.training.steps:
        return 0
    lpips = find_lpips(recipe.losses, cache or default_cache(), warn)
    sampler = CropSampler(recipe.data, list_sources(src).sources, recipe.training.seed, src)
    check_division(recipe, processes)
    processes.wait()  # all have looked before one writes
    if processes.leads:
        prepare_run(run, recipe, overwrite=overwrite)
    processes.wait()
    torch.manual_seed(recipe.training.seed)  # of the first weights; nothing later draws from it
    tokenizer = Tokenizer(recipe.network, recipe.most_rounds)
    with DecoderPool(recipe.data.workers) as pool:
        loader = CropLoader(sampler, pool, processes, warn)
        objective = Reconstruction(recipe, tokenizer, loader, lpips, device)
        if recipe.training.recompute:
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
            dtype=dtype,
            processes=processes,
            stop=stop or Stop(),
            report=report,
            warn=warn,
        )
    return recipe.training.steps - done


def find_lpips(losses: TokenizerLosses, cache: Path, say: Callable[[str], None]) -> LPIPS | None:
    """The perceptual metric with its weights, None where the recipe does not weigh it; CheckpointError without them."""
    if losses.lpips.weight == 0:
        return None
    weights = None if losses.lpips_weights is None else Path(losses.lpips_weights)
    return load_lpips(losses.lpips_network, weights, cache=cache, download=losses.lpips_download, say=say)


def check_division(recipe: TokenizerRecipe, processes: Processes) -> None:
    """Raise RecipeError unless every batch divides among the processes, and there into its pieces."""
    pieces = processes.count * recipe.optimization.accumulate
    for kind, media in (("image", recipe.data.image), ("clip", recipe.data.clip)):
        if media is not None and media.batch % pieces:
            raise RecipeError(
                f"data.{kind}.batch is {media.batch}, expected a multiple of {pieces}: "
                f"{processes.count} processes times optimization.accumulate={recipe.optimization.accumulate}"
            )


def steps_done(run: Path, recipe: TokenizerRecipe, *, overwrite: bool) -> int:
    """Steps that the run directory has done with this recipe, 0 where there is none; nothing is written.

    Raises
    ------
    CheckpointError
        If ``run`` was trained with another recipe, is an imported one, or is no run directory.
    """
    if overwrite or not is_run(run):
        check_run_is_free(run, overwrite=overwrite)
        return 0
    present = read_recipe(run / RECIPE, TokenizerRecipe)
    if present.imported is not None:
        raise CheckpointError(f"{run}: was made by grn import and cannot be trained further; give another --out")
    comparable = replace(
        present,
        training=replace(present.training, **{k: getattr(recipe.training, k) for k in EXTENDABLE}),
    )
    if comparable != recipe:
        raise CheckpointError(
            f"{run} was made with another recipe ({_differences(comparable, recipe)}); "
            "use the same one, another --out, or --overwrite"
        )
    checkpoints = list_checkpoints(run)
    return int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0


def prepare_run(run: Path, recipe: TokenizerRecipe, *, overwrite: bool) -> None:
    """Make the run directory, or empty one that is to be overwritten, and put the recipe into it."""
    if overwrite or not is_run(run):
        clear_run(run)
        run.mkdir(parents=True, exist_ok=True)
    text = dump_recipe(recipe)
    if not is_run(run) or (run / RECIPE).read_text(encoding="utf-8") != text:
        with whole_file(run / RECIPE) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _differences(there: TokenizerRecipe, asked: TokenizerRecipe) -> str:
    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for key, inner in value.items() for k, v in flat(f"{prefix}.{key}".lstrip("."), inner).items()}

    old, new = flat("", asdict(there)), flat("", asdict(asked))
    return ", ".join(
        f"{key}={old.get(key)} there, {new.get(key)} asked"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def read_tokenizer_recipe(path: Path, overrides: Sequence[str] = ()) -> TokenizerRecipe:
    """A recipe for ``grn train-tokenizer``; RecipeError when it is one for something else."""
    recipe = read_recipe(path, TokenizerRecipe, overrides)
    if recipe.imported is not None:
        raise RecipeError(f"{path}: is the recipe of an imported run, which has no training to repeat")
    return recipe
