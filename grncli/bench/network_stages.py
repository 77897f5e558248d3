"""Speed of the networks without gradients: encoding, decoding and sampling, in each number format that is fast here."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from grncli.bench.alternation import Work, ratio
from grncli.bench.limits import Machine
from grncli.bench.speeds import StageSpeed
from grncli.bench.spent_time import profiler, shares_of_kinds
from grncli.conditions import ClassCondition
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.tokenizer import Tokenizer
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.devices import dtype_name
from grncli.sampling.sampler import Request, Sampler, SamplingSettings
from grncli.schedules import Fixed, guidance_scale
from grncli.store import Grid

PIXELS = 1 << 17  # of pictures that are measured at a time, where the recipe's batch has more
STEPS = 2  # of the samples that are measured
WHOLE_STEPS = 50  # of a sample as images/s counts it

# Shares of the product rate that the default networks reach on two cores of an AMD EPYC with AVX-512 and bfloat16.
ENCODING = {torch.float32: 0.4, torch.bfloat16: 0.3}
DECODING = {torch.float32: 0.4, torch.bfloat16: 0.3}
SAMPLING = {torch.float32: 0.6, torch.bfloat16: 0.5}

Gains = dict[str, float]
"""Speed in bfloat16 in units of that in float32, by the name of the stage."""


def tokenizer_stages(machine: Machine, recipe: TokenizerRecipe) -> tuple[list[StageSpeed], Gains]:
    """Encoding and decoding of pictures and of clips, those of them that the recipe has."""
    torch.manual_seed(0)
    network = Tokenizer(recipe.network, recipe.most_rounds).to(machine.device).eval().requires_grad_(False)
    stages: list[StageSpeed] = []
    gains: Gains = {}
    shapes = []
    if (image := recipe.data.image) is not None:
        shapes.append(("images/s", (min(image.batch, max(1, PIXELS // image.size**2)), 1, image.size, image.size, 3)))
    if (clip := recipe.data.clip) is not None:
        shapes.append(("frames/s", (1, clip.frames, clip.size, clip.size, 3)))
    for unit, shape in shapes:
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=machine.device)
        with torch.inference_mode():
            feature = network.encode_frames(frames)
        calls: dict[str, tuple[Callable[[Tokenizer, Tensor], object], Tensor, dict[torch.dtype, float]]] = {
            f"encode {unit[:6]}": (Tokenizer.encode_frames, frames, ENCODING),
            f"decode {unit[:6]}": (Tokenizer.decode_frames, feature, DECODING),
        }
        for name, (call, data, expected) in calls.items():
            acts = {dtype: _autocast(machine, dtype, call, network, data) for dtype in machine.products}
            operations = _operations(recipe, call, data)
            subject = f"{_millions(network)} M, {shape[0]} x {shape[1]} frames of {shape[2]}x{shape[3]}"
            _add(machine, acts, operations, stages, gains, name, subject, prod(shape[:2]), unit, expected)
    return stages, gains


def sampling_stages(machine: Machine, config: ClassTransformerConfig, grid: Grid) -> tuple[list[StageSpeed], Gains]:
    """Samples a second at ``WHOLE_STEPS`` guided steps, from the rate of the passes of fewer."""
    acts, samples = {}, 0
    for dtype in machine.products:
        torch.manual_seed(0)
        network = ClassTransformer(config).to(machine.device, dtype).eval().requires_grad_(False)
        sampler = Sampler(network, grid, SamplingSettings(schedule=Fixed(STEPS)))
        conditions = ClassCondition.of(torch.arange(sampler.batch) % max(1, config.classes), config.null_class)
        requests = [Request(number, conditions[number : number + 1]) for number in range(sampler.batch)]
        acts[dtype] = machine.timed(lambda sampler=sampler, requests=requests: list(sampler.run(requests)))  # type: ignore[misc]
        samples = sampler.batch
    guided = config.classes > 0
    each, passes = _passes(WHOLE_STEPS, guided=guided), _passes(STEPS, guided=guided) * samples
    subject = f"{_millions(network)} M, {samples} at a time of {'x'.join(map(str, grid))} tokens, {each} passes each"
    stages: list[StageSpeed] = []
    gains: Gains = {}
    operations = passes * _pass_operations(config, grid)
    _add(machine, acts, operations, stages, gains, "sampling", subject, passes / each, "images/s", SAMPLING)
    return stages, gains


def _passes(steps: int, *, guided: bool) -> int:
    """Function evaluations of a sample: those without the condition are for guidance, in its interval."""
    settings = SamplingSettings(schedule=Fixed(steps))
    ratio = settings.schedule.ratio(torch.arange(float(steps)), torch.full((steps,), float(steps)))
    scale = guidance_scale(ratio, settings.guidance, *settings.guidance_interval)
    return steps + (int((scale != 1).sum()) if guided else 0)


def _add(
    machine: Machine,
    acts: dict[torch.dtype, Callable[[], None]],
    operations: float,
    stages: list[StageSpeed],
    gains: Gains,
    name: str,
    subject: str,
    made: float,
    unit: str,
    expected: dict[torch.dtype, float],
) -> None:
    """Measure a stage in all number formats, beside the products of each."""
    works = [Work(made, act) for act in acts.values()]
    limits = [(machine.products[dtype], machine.multiplying(dtype)) for dtype in acts]
    rates, best = machine.compare(works, limits)
    for number, (dtype, act) in enumerate(acts.items()):
        with profiler(machine.device) as profiled:
            act()
        stages.append(
            StageSpeed(
                name=name,
                subject=subject,
                dtype=dtype_name(dtype),
                value=float(np.median(rates[number])),
                unit=unit,
                share=ratio(rates[number], best[number]) * operations / made,
                of=machine.products[dtype].name,
                expected=expected[dtype],
                spent=shares_of_kinds(profiled, machine.device),
            )
        )
    if len(rates) > 1:
        gains[name] = ratio(rates[1], rates[0])


def _autocast(
    machine: Machine,
    dtype: torch.dtype,
    call: Callable[[Tokenizer, Tensor], object],
    network: Tokenizer,
    data: Tensor,
) -> Callable[[], None]:
    def run() -> None:
        with torch.autocast(machine.device.type, dtype, enabled=dtype != torch.float32):
            call(network, data)

    return machine.timed(run)


def _operations(recipe: TokenizerRecipe, call: Callable[[Tokenizer, Tensor], object], data: Tensor) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.inference_mode():
        call(Tokenizer(recipe.network, recipe.most_rounds), torch.empty_like(data, device="meta"))
    return counter.get_total_flops()


def _pass_operations(config: ClassTransformerConfig, grid: Grid) -> int:
    """Of one sample."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.inference_mode():
        state = torch.zeros(1, config.codec.token_channels, *grid, dtype=torch.uint8)
        ClassTransformer(config)(state, torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    return counter.get_total_flops()


def _millions(network: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.4g}"
