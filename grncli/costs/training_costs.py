"""What a training would take: a few steps on its own data, of networks that are then dropped."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.costs import trials
from grncli.costs.run_costs import DiskNeed, MemoryUse, Rate, RunCosts
from grncli.costs.trials import MemoryWatch
from grncli.machine.system_limits import disk, memory
from grncli.media.decoder import DecoderPool
from grncli.metrics.lpips_weights import default_cache
from grncli.models.unfilled import made_on_meta
from grncli.runs.generators import build_generator
from grncli.runs.rundir import DataRecord
from grncli.runs.tokenizer_recipe import Optimization, TokenizerRecipe, Training
from grncli.runs.tokenizers import build_tokenizer
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import CheckpointError
from grncli.runtime.freed_memory import freed_memory_kept
from grncli.training.captioned_plan import CaptionedPlan
from grncli.training.estimate import FLOAT_BYTES
from grncli.training.generator_training import GeneratorPlan, bits_of, divided, refinement_objective
from grncli.training.loop import TrainingContext, make_states, optimize
from grncli.training.objective import Batch, Objective, StepBatch
from grncli.training.packed_loader import PackedBatch
from grncli.training.run_setup import PresentRun, check_division, media_record, settle_dtype
from grncli.training.sharding import Sharding, local
from grncli.training.tokenizer_training import crop_sampler, find_lpips, reconstruction_objective, training_media
from grncli.training.training_run import spread_state
from grncli.training.training_state import TrainingState
from grncli.training.wrapping import wrap_generator

FEWEST = 3  # steps of a kind, the first of which warms up
LONGEST_STEP = 30.0  # seconds; from here on no whole step is tried
MOMENTS = 2  # of AdamW


@dataclass(frozen=True)
class StepTrial:
    """What some steps of a training took.

    Attributes
    ----------
    seconds : of a step by the shape of its batch, without the first of each shape
    steps : that were done, by the same
    activations : bytes that a forward pass of this process keeps for the backward pass, at most
    whole : whether steps of the whole batch were done; else one of its pieces stands for all
    """

    seconds: Mapping[str, float]
    steps: Mapping[str, int]
    activations: int
    whole: bool

    def seconds_a_step(self, shares: Mapping[str, float] | None = None) -> float:
        """Mean over the shapes by their share of the steps; as they were met without ``shares``."""
        weights = shares or self.steps
        known = {shape: weights[shape] for shape in self.seconds}
        return sum(self.seconds[shape] * weight for shape, weight in known.items()) / sum(known.values())


def generator_costs(
    plan: GeneratorPlan | CaptionedPlan,
    out: Path | None,
    context: TrainingContext,
    *,
    counted: Mapping[str, Any],
    overwrite: bool = False,
) -> RunCosts:
    """What is left to train of a generator into ``out``, or all of it; nothing is written.

    Parameters
    ----------
    plan : with the number format of its recipe settled
    context : with a decision on how the state lies in the processes, from `spread_state`
    counted : by `estimate` or `estimate_packed`; it stands among the details
    """
    recipe, processes = plan.recipe, context.processes
    check_division(divided(recipe.data), recipe.optimization.gradient_accumulation, processes)
    left, notes = _steps_left(recipe, out, bits_of(plan), overwrite=overwrite)
    context = replace(context, dtype=DTYPES[recipe.training.dtype])
    parameters = sum(p.numel() for p in made_on_meta(lambda: build_generator(recipe.network)).parameters())
    watch, trial = MemoryWatch(context.device), None
    if left and _has_room(parameters, recipe.optimization, context, notes):
        torch.manual_seed(recipe.training.seed)
        network = build_generator(recipe.network)
        wrap_generator(network, recipe.training)
        objective = refinement_objective(plan, recipe, network, context)
        trial = try_steps(objective, recipe.training, context, recipe.training.steps - left)
    use = watch.use(processes=processes.count)
    activations = counted["memory"]["activations"]
    costs = _costs("train-gen", recipe, parameters, context.sharding, activations, left, trial, use, out, notes)
    return replace(costs, details={**costs.details, "counted": counted})


def tokenizer_costs(
    recipe: TokenizerRecipe, src: str | Sequence[str], out: Path, context: TrainingContext, *, overwrite: bool = False
) -> RunCosts:
    """The same of a tokenizer on the media of ``src``.

    The steps that are tried have all losses, also those that set in later.
    """
    present = PresentRun(out)
    recipe = settle_dtype(recipe, None if overwrite else present, context.device, context.processes)
    sources = training_media(src)
    left, notes = _steps_left(recipe, out, media_record(sources, src), overwrite=overwrite)
    context = replace(context, dtype=DTYPES[recipe.training.dtype])
    sampler = crop_sampler(recipe, sources, src, context.processes)
    context = spread_state(recipe, lambda: build_tokenizer(recipe), context)
    parameters = sum(p.numel() for p in made_on_meta(lambda: build_tokenizer(recipe)).parameters())
    watch, trial, lpips = MemoryWatch(context.device), None, None
    if left and _has_room(parameters, recipe.optimization, context, notes):
        lpips = find_lpips(recipe.losses, default_cache(), context.monitor.say)
        first = _all_losses_from(recipe, recipe.training.steps - left, notes)
        with DecoderPool(recipe.data.workers) as pool:
            torch.manual_seed(recipe.training.seed)
            tokenizer = build_tokenizer(recipe)
            objective = reconstruction_objective(recipe, tokenizer, sampler, pool, lpips, context)
            others = objective.trainables()[1:]
            trial = try_steps(objective, recipe.training, context, first, after_step=watch.look)
        parameters += sum(p.numel() for trainable in others for p in trainable.module.parameters())
    counts = {f"{kind}s": len(own) for kind, own in sampler.sources.items()}
    use = watch.use(decoders=recipe.data.workers, processes=context.processes.count)
    kept = None if trial is None else trial.activations
    return _costs("train-tokenizer", recipe, parameters, context.sharding, kept, left, trial, use, out, notes, counts)


def try_steps(
    objective: Objective,
    training: Training,
    context: TrainingContext,
    first: int,
    *,
    after_step: Callable[[], object] = lambda: None,
) -> StepTrial:
    """Train from step ``first`` on for a few seconds.

    Of a batch that takes too long, or more memory than there is, only one piece is tried, which stands for all.

    ``after_step`` is called after each step. Every process of a training does as many steps, each its share of them.
    """
    states = make_states(objective, context)
    times: dict[str, list[float]] = defaultdict(list)
    activations, step, began = 0, first, 0.0
    with freed_memory_kept(), closing(objective.batches(first)) as batches:
        for batch in batches:
            shape = _shape(batch)
            if shape not in times:
                kept, seconds = _one_piece(states, batch, step, context)
                activations = max(activations, kept)
                is_too_much = seconds > LONGEST_STEP or kept > _free_bytes(context.device)
                if context.processes.total(torch.tensor(float(is_too_much), device=context.device)).item():
                    return StepTrial({shape: seconds}, {shape: 1}, activations, whole=False)
            start = time.monotonic()
            optimize(states, batch, step, training.steps, context)["loss"].item()
            times[shape].append(time.monotonic() - start)
            after_step()
            step, began = step + 1, began or time.monotonic()
            is_over = _is_enough(times, began) or context.monitor.stop_reason is not None
            if context.processes.total(torch.tensor(float(is_over), device=context.device)).item():
                break
    means = {shape: sum(own[1:] or own) / len(own[1:] or own) for shape, own in times.items()}
    return StepTrial(means, {shape: len(own) for shape, own in times.items()}, activations, whole=True)


def _is_enough(times: Mapping[str, Sequence[float]], began: float) -> bool:
    """Whether each shape met so far was met often enough, and time is over; or it is long over."""
    waited, steps = time.monotonic() - began, [len(own) for own in times.values()]
    often = min(steps) >= FEWEST and sum(steps) >= 2 * FEWEST  # a second kind may come after the first
    return waited >= (1 if often else 4) * trials.TRIAL_SECONDS


def _one_piece(
    states: Sequence[TrainingState], batch: StepBatch, step: int, context: TrainingContext
) -> tuple[int, float]:
    """Bytes that a piece of a step keeps for its backward pass, and seconds that the step takes by its smallest piece.

    The gradients are dropped.
    """
    data = batch.sequences if isinstance(batch, PackedBatch) else batch.keys
    piece = batch.pieces(len(data))[0]
    kept, seconds = _forward_and_back(states, piece, step, context)
    # The first one warms up. Processes compute together, each as often as the others.
    is_quick = torch.tensor(float(seconds < trials.TRIAL_SECONDS), device=context.device)
    if context.processes.total(is_quick).item():
        kept, seconds = _forward_and_back(states, piece, step, context)
    return kept * max(1, len(data) // states[0].settings.gradient_accumulation), seconds * len(data)


def _forward_and_back(
    states: Sequence[TrainingState], piece: StepBatch, step: int, context: TrainingContext
) -> tuple[int, float]:
    kept, start = 0, time.monotonic()
    for state in states:
        own = {local(p).untyped_storage().data_ptr() for p in state.module.parameters()}
        with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
            loss, size = _with_kept_bytes(partial(_loss, state, piece, step), own)
        kept = max(kept, size)
        if loss.requires_grad:
            # What is dropped again need not be averaged, but shards keep it until they are.
            state.backward(loss, is_last=state.is_sharded)
        loss.item()
    seconds = time.monotonic() - start
    for state in states:
        state.optimizer.zero_grad(set_to_none=True)
    return kept, seconds


def _loss(state: TrainingState, piece: StepBatch, step: int) -> Tensor:
    loss, _ = state.trainable.losses(piece, step)
    return loss


def _with_kept_bytes(compute: Callable[[], Tensor], parameters: set[int]) -> tuple[Tensor, int]:
    """A loss, and the bytes kept for its backward pass beside the ``parameters``, which are told by their addresses."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        whole = tensor if tensor._base is None else tensor._base  # of shards, gathered for this pass alone
        if storage.data_ptr() not in parameters and not isinstance(whole, torch.nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = compute()
    return loss, sum(kept.values())


def _shape(batch: StepBatch) -> str:
    return "x".join(map(str, batch.data.shape)) if isinstance(batch, Batch) else "packed"


def _steps_left(recipe: Any, out: Path | None, data: DataRecord, *, overwrite: bool) -> tuple[int, list[str]]:
    """Steps that ``out`` lacks, and a sentence where the training would be refused there."""
    if out is None:
        return recipe.training.steps, []
    try:
        done = PresentRun(out).steps_done(recipe, data, overwrite=overwrite) or 0
    except CheckpointError as error:
        return recipe.training.steps, [f"would be refused: {error}"]
    return max(0, recipe.training.steps - done), []


def _has_room(parameters: int, settings: Optimization, context: TrainingContext, notes: list[str]) -> bool:
    """Whether weights, gradients, moments and averages fit; else a note says so."""
    needed, free = context.sharding.bytes_of(parameters, settings), _free_bytes(context.device)
    if needed > free:
        notes.append(
            f"no step was tried: weights, gradients, moments and averages take {needed / 1e9:.4g} GB, "
            f"and {free / 1e9:.4g} GB are free"
        )
    return needed <= free


def _free_bytes(device: torch.device) -> int:
    """Memory that a device has left; without end where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    state = memory()
    return min((size for size in (state.available, state.limit) if size is not None), default=sys.maxsize)


def _all_losses_from(recipe: TokenizerRecipe, done: int, notes: list[str]) -> int:
    losses = recipe.losses
    terms = (losses.reconstruction, losses.mse, losses.lpips, losses.gan)
    starts = [term.start for term in terms if term.weight > 0 and term.start < recipe.training.steps]
    last = max(starts, default=0)
    if last > done:
        notes.append(f"time and memory are those of steps with all losses, from step {last} on")
    clip = recipe.data.clip
    # A few steps of images first, where clips set in later and may be all there is from then on.
    return max(last, done, 0 if clip is None else min(clip.start - FEWEST, recipe.training.steps - 1))


def _costs(
    command: str,
    recipe: Any,
    parameters: int,
    sharding: Sharding,
    activations: int | None,
    left: int,
    trial: StepTrial | None,
    use: MemoryUse,
    out: Path | None,
    notes: list[str],
    counts: Mapping[str, int] | None = None,
) -> RunCosts:
    training, settings = recipe.training, recipe.optimization
    state = sharding.bytes_of(parameters, settings)
    seconds = None if trial is None else trial.seconds_a_step(_shares(recipe, trial, left))
    if trial is not None and not trial.whole:
        notes.append(
            "no whole step was tried, as one takes too long or too much memory: a piece of its batch stands for all"
        )
        if use.device is None and use.process is not None:
            use = replace(
                use, process=use.process + state * (settings.copies - 2) // settings.copies + (activations or 0)
            )
    if use.process is not None:
        use = replace(use, process=use.process + sharding.bytes_of_save(parameters, settings))
    checkpoint = parameters * FLOAT_BYTES * (1 + MOMENTS + len(settings.decays))
    kept = min(training.keep, -(-training.steps // training.checkpoint_every))
    kept += training.steps // training.keep_every if training.keep_every else 0
    space = disk(out or Path())
    rates = []
    if trial is not None and seconds is not None and trial.whole:
        tried = sum(trial.steps.values())
        rates.append(Rate(unit="steps", done=tried, seconds=seconds * tried))
    return RunCosts(
        command=command,
        counts={"steps": left, **(counts or {})},
        seconds=0.0 if not left else None if seconds is None else seconds * left,
        rates=rates,
        memory=use,
        disk=DiskNeed(written=checkpoint * kept, free=space.free, place=space.path),
        details={
            "parameters": parameters,
            "state_bytes": state,
            "parallel": sharding.kind,
            "shards": sharding.shards,
            "activation_bytes": activations,
            "dtype": training.dtype,
        },
        notes=notes,
    )


def _shares(recipe: Any, trial: StepTrial, left: int) -> Mapping[str, float] | None:
    """Of the steps left of a tokenizer, those on images and on clips; None where both were not met."""
    if not isinstance(recipe, TokenizerRecipe) or recipe.data.clip is None or recipe.data.image is None:
        return None
    is_clip = {shape: shape.split("x")[1] != "1" for shape in trial.seconds}
    if len(set(is_clip.values())) < 2:
        return None
    clip, steps = recipe.data.clip, recipe.training.steps
    share = clip.share * max(0, steps - max(clip.start, steps - left)) / left
    return {shape: share if clips else 1 - share for shape, clips in is_clip.items()}
