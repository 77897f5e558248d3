"""What ``grn sample`` would take: a few steps of one batch, and one picture of it."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from grncli.costs.run_costs import DiskNeed, Rate, RunCosts
from grncli.costs.trials import Clock, MemoryWatch
from grncli.machine.system_limits import disk
from grncli.media.writing import write_media
from grncli.runtime.monitor import Monitor
from grncli.sampling.pictures import decode_packed
from grncli.sampling.plan import SamplingPlan, make_plan
from grncli.sampling.sampler import Sampler
from grncli.sampling.settings import SampleOptions
from grncli.schedules import Complexity, Fixed, Schedule, guidance_scale
from grncli.store import grid_name, open_store
from grncli.store.bits import BitSchema

TRIED_STEPS = 4


def sampling_costs(run: Path, out: Path, options: SampleOptions, *, monitor: Monitor | None = None) -> RunCosts:
    """What is left to sample into ``out``; nothing is written but the answers of a rewriter.

    Raises
    ------
    GrnError
        As the run itself, before its first step.
    """
    monitor = monitor or Monitor()
    watch = MemoryWatch(torch.device(options.device))
    plan = make_plan(run, out, options, monitor=monitor)
    plan.bring(plan.generator.network)
    left = plan.numbers()[_done(plan) :]
    notes: list[str] = []
    steps = _mean_steps(plan, notes)
    passes = sum(_passes(plan, left[0], plan.settings.schedule, steps)) if left else 0.0
    rates, seconds, written = [], 0.0, _bits_of(plan, len(left))
    rate = _try_steps(plan, left, monitor) if left else None
    if rate is not None:
        rates.append(rate)
        seconds = rate.seconds_for(passes * len(left))
    if left and plan.pictures is not None and plan.tokenizer is not None:
        plan.bring(plan.tokenizer.network)
        pictures, size = _try_pictures(plan, left[0])
        rates.append(pictures)
        seconds += pictures.seconds_for(len(left))
        written += size * len(left)
    space = disk(out)
    return RunCosts(
        command="sample",
        counts={"samples": len(left), "steps": round(steps * len(left)), "NFE": round(passes * len(left))},
        seconds=None if left and rate is None else seconds,
        rates=rates,
        memory=watch.use(processes=plan.options.parts),
        disk=DiskNeed(written=written, free=space.free, place=space.path),
        details={"grid": grid_name(plan.grid), "batch": plan.sampler().batch},
        notes=notes,
    )


def _done(plan: SamplingPlan) -> int:
    """Samples of this part that are there."""
    if plan.options.overwrite or not plan.store.exists():
        return 0
    return next((part.position for part in open_store(plan.store).parts if part.part == plan.options.part), 0)


def _mean_steps(plan: SamplingPlan, notes: list[str]) -> float:
    schedule = plan.settings.schedule
    if not isinstance(schedule, Complexity):
        return float(schedule.most_steps)
    if plan.options.target_steps is not None:
        notes.append("fitting the schedule takes 128 samples up to the step that decides, which are not counted")
        return plan.options.target_steps
    notes.append("each sample decides how many steps it takes: these figures are of the most")
    return float(schedule.max_steps)


def _passes(plan: SamplingPlan, number: int, schedule: Schedule, steps: float) -> list[float]:
    """Function evaluations of each step of a sample: two where guidance needs the unconditional pass."""
    count = round(steps)
    if not plan.subjects.condition(number).guides:
        return [1.0] * count
    step, settings = torch.arange(count, dtype=torch.float32), plan.settings
    ratio = schedule.ratio(step, torch.full((count,), float(steps)))
    scale = guidance_scale(ratio, settings.guidance, *settings.guidance_interval)
    return (1.0 + (scale != 1).float()).tolist()


def _try_steps(plan: SamplingPlan, left: Sequence[int], monitor: Monitor) -> Rate | None:
    """Refine one batch in few steps, among them some with guidance and some without, as far as the settings have both.

    Of what takes long only the first steps are done.
    """
    short = Fixed(TRIED_STEPS)
    sampler = Sampler(
        plan.generator.network,
        plan.grid,
        replace(plan.settings, schedule=short),
        batch=plan.options.batch,
        condition_tokens=plan.subjects.condition_tokens,
    )
    rows = min(sampler.batch, len(left))
    clock, passes = Clock("NFE"), iter(_passes(plan, left[0], short, TRIED_STEPS))
    begun = False

    def between_steps() -> bool:
        nonlocal begun
        if begun:
            clock.mark(rows * next(passes))
        begun = True
        return clock.is_over or monitor.stop_reason is not None

    finished = list(sampler.run(map(plan.subjects.request, islice(left, rows)), between_steps))
    if finished:
        clock.mark(rows * next(passes))
    return clock.rate()


def _try_pictures(plan: SamplingPlan, number: int) -> tuple[Rate, int]:
    """Seconds and bytes of the file of a sample; random bits stand for it, which take more of a file than a sample."""
    assert plan.tokenizer is not None
    codec = plan.generator.recipe.network.codec
    random = torch.randint(0, codec.categories, (1, codec.token_channels, *plan.grid), dtype=torch.uint8)
    packed = codec.pack(random).numpy()[0]
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock("pictures")
        while not clock.is_over:
            frames = decode_packed(plan.tokenizer.network, packed, codec.rounds)
            file = Path(folder, "sample.mp4" if len(frames) > 1 else "sample.png")
            write_media(file, frames, plan.bits.fps or 16.0)
            clock.mark(1)
        rate = clock.rate()
        assert rate is not None
        return rate, file.stat().st_size


def _bits_of(plan: SamplingPlan, samples: int) -> int:
    """Bytes of the bits of so many samples, and of what is stored with each."""
    schema = BitSchema(plan.fingerprint)
    row = sum(layout.row_bytes for layout in schema.arrays(grid_name(plan.grid)))
    return samples * (row + 8 * len(plan.columns))
