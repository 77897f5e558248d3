"""``grn bench``: everything in turn, in a folder that is gone afterwards."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch

from grncli import __version__
from grncli.bench.limits import Machine
from grncli.bench.measured_networks import chosen_networks, drawn_plan
from grncli.bench.network_stages import sampling_stages, tokenizer_stages
from grncli.bench.speeds import MachineSpeeds, StageSpeed
from grncli.bench.storage_stages import storage_stages
from grncli.bench.training_stage import training_stage
from grncli.models.class_transformer import ClassTransformerConfig
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.devices import pick_dtype, processor_name
from grncli.runtime.errors import RecipeError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.store import Grid

SECONDS = 4.0
MOST_TOKENS = 1 << 20  # of a sample; no generator has attention over more


def run_benchmark(
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    grid: Grid = (1, 16, 16),
    folder: Path = Path(),
    seconds: float = SECONDS,
    device: torch.device,
    monitor: Monitor | None = None,
) -> MachineSpeeds:
    """Speed of every stage on this machine, each beside a limit of the machine measured at the same moment.

    Parameters
    ----------
    recipe : of a tokenizer or a class generator; None for a tokenizer of the released layout and GRN_ind-B
    overrides : ``dotted.field=value`` assignments to the recipe
    grid : of the tokens that a generator works on
    folder : on the disk to measure; about 0.2 GB are written there and removed
    seconds : for each comparison of a stage with its limit; at least three rounds are compared

    Raises
    ------
    RecipeError, UsageError
        If the recipe cannot be read or is for something else; if an override has no recipe to change, or ``grid`` has
        more than ``MOST_TOKENS`` tokens.
    Unfinished
        If the monitor's stop asks for it; nothing is kept.
    """
    began, load = time.monotonic(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    monitor = monitor or Monitor()
    if prod(grid) > MOST_TOKENS:
        size = "x".join(map(str, grid))
        raise UsageError(f"--grid {size}: has {prod(grid):,} tokens, expected at most {MOST_TOKENS:,}")
    networks = chosen_networks(recipe, overrides)
    dtypes = list(dict.fromkeys([torch.float32, pick_dtype("auto", device)]))
    with tempfile.TemporaryDirectory(prefix=".grn-bench-", dir=folder) as place:
        bench = _Bench(Machine(device, Path(place), dtypes, seconds, monitor), grid)
        parts: list[tuple[str, Callable[[], None]]] = [("bits and stores", bench.measure_storage)]
        if (tokenizer := networks.tokenizer) is not None:
            parts.append(("tokenizer", lambda: bench.measure_tokenizer(tokenizer)))
        if (generator := networks.generator) is not None:
            parts.append(("generator", lambda: bench.measure_generator(generator)))
        for number, (name, measure) in enumerate(parts):
            monitor.progress(number, len(parts), name)
            measure()
        monitor.progress(len(parts), len(parts), "")
    return bench.concluded(time.monotonic() - began, load)


@dataclass
class _Bench:
    """Measures on one machine, and collects what is found."""

    machine: Machine
    grid: Grid
    stages: list[StageSpeed] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def measure_storage(self) -> None:
        self.stages += storage_stages(self.machine)

    def measure_tokenizer(self, recipe: TokenizerRecipe) -> None:
        stages, gains = tokenizer_stages(self.machine, recipe)
        self.stages += stages
        self.gains |= gains

    def measure_generator(self, asked: AskedGeneratorRecipe) -> None:
        try:
            plan = drawn_plan(asked, self.grid, self.machine.folder, self.machine.device)
        except RecipeError as error:
            self.skipped.append(f"generator: {error}")
            return
        assert isinstance(plan.recipe.network, ClassTransformerConfig)
        trained = [training_stage(self.machine, plan, dtype) for dtype in self.machine.products]
        self.stages += trained
        if len(trained) > 1:
            self.gains["training"] = trained[1].value / trained[0].value
        stages, gains = sampling_stages(self.machine, plan.recipe.network, self.grid)
        self.stages += stages
        self.gains |= gains

    def concluded(self, seconds: float, load: float) -> MachineSpeeds:
        products = [limit.value for limit in self.machine.products.values()]
        gains = {"products": products[1] / products[0], **self.gains} if len(products) > 1 else {}
        device = self.machine.device
        return MachineSpeeds(_describe(device), self.machine.limits, self.stages, gains, self.skipped, seconds, load)


def _describe(device: torch.device) -> dict[str, str | int]:
    """What the figures are figures of."""
    threads = torch.get_num_threads()
    gpu = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {"device": device.type}
    return {
        "grn": f"grn {__version__}",
        "torch": f"PyTorch {torch.__version__}",
        "python": f"Python {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "threads": f"{threads} thread{'s' if threads > 1 else ''}",
        **gpu,
    }
