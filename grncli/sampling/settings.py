"""The options of ``grn sample``, and what they mean: a schedule, settings of the sampler, classes, a grid."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from grncli.models.transformer import Grid
from grncli.runtime.errors import UsageError
from grncli.sampling.sampler import SamplingSettings, Selection
from grncli.schedules import Complexity, Fixed, Schedule
from grncli.store import grid_name, parse_grid


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The options of ``grn sample``; the first block decides what the samples are, the second only how they are made.

    ``None`` takes the paper's value, for k and b first of all those that were fitted to the run.
    """

    classes: str = "all"  # or numbers and names, comma-separated
    prompts: Path | None = None  # file of prompts that name classes
    grid: str | None = None  # TxHxW tokens; None takes the most frequent of training
    weights: str = "ema"
    schedule: Literal["linear", "cosine", "complexity"] = "linear"
    steps: int = 50
    k: float | None = None
    b: float | None = None
    min_steps: int | None = None
    max_steps: int | None = None
    warmup_steps: int | None = None
    target_steps: float | None = None  # fit k and b to this mean
    guidance: float | None = None
    guidance_interval: str | None = None  # LOW:HIGH
    temperature: float = 1.31
    adapt_temperature: bool = False
    select: Selection = "random"
    seed: int = 0
    init: Path | None = None  # store of samples to start from
    keep: str | None = None  # what of them stays: a PNG mask, first-frame, or a share

    per_class: int = 8  # or per prompt, or per sample to start from
    tokenizer: str | None = None
    batch: int | None = None
    device: str = "cpu"
    dtype: str = "float32"  # auto: that of samples that are there, or else what is fast
    part: int = 0
    parts: int = 1
    sheet: Path | None = None
    film: Path | None = None
    overwrite: bool = False

    def sampling_settings(self, schedule: Schedule, *, relative: bool) -> SamplingSettings:
        """How samples are refined; UsageError for invalid values."""
        guidance = SamplingSettings.guidance if self.guidance is None else self.guidance
        interval = None if self.guidance_interval is None else parse_interval(self.guidance_interval)
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"--temperature {self.temperature}: expected a finite number above 0")
        if not -1e6 < guidance < 1e6:
            raise UsageError(f"--guidance {guidance}: expected a finite number")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: expected 0 to 2^63 - 1")
        return SamplingSettings(
            schedule=schedule,
            guidance=guidance,
            guidance_interval=interval or SamplingSettings.guidance_interval,
            temperature=self.temperature,
            adapt_temperature=self.adapt_temperature,
            selection=self.select,
            relative=relative,
            seed=self.seed,
        )

    def check_guidance(self, *, has_classes: bool) -> None:
        """Refuse guidance of a generator that has nothing to guide it by."""
        if not has_classes and (self.guidance is not None or self.guidance_interval is not None):
            raise UsageError("--guidance: the generator was trained without classes, leave it and its interval out")

    def first_schedule(self) -> Schedule:
        """The schedule, as far as it is known before a fit; UsageError for options that have no part in it."""
        if self.schedule == "complexity":
            first = self.complexity(self.k or 0.0, self.b or 0.0)
            if self.target_steps is None:
                return first
            if self.b is not None:
                raise UsageError("--target-steps chooses b, expected it without --b")
            if not first.min_steps <= self.target_steps <= first.max_steps:
                steps = f"{first.min_steps} to {first.max_steps}"
                raise UsageError(f"--target-steps {self.target_steps:g}: expected {steps}, the range of steps")
            return first
        for name in ("k", "b", "min_steps", "max_steps", "warmup_steps", "target_steps", "adapt_temperature"):
            value = getattr(self, name)
            if value is not None and value is not False:  # 0 is a value
                raise UsageError(f"--{name.replace('_', '-')} is for --schedule complexity, expected it with that")
        return self.fixed_schedule()

    def fixed_schedule(self) -> Fixed:
        """The schedule of equal or cosine steps; UsageError where it cannot be."""
        try:
            return Fixed(self.steps, "cosine" if self.schedule == "cosine" else "linear")
        except ValueError as error:
            raise UsageError(f"--steps: {error}") from None

    def complexity(self, k: float, b: float) -> Complexity:
        """The complexity-aware schedule; UsageError where it cannot be."""
        limits = {"min_steps": self.min_steps, "max_steps": self.max_steps, "warmup_steps": self.warmup_steps}
        try:
            return Complexity(k, b, alpha=self.steps, **{name: n for name, n in limits.items() if n is not None})
        except ValueError as error:
            options = "--k, --b, --min-steps, --max-steps, --warmup-steps and --steps (alpha)"
            raise UsageError(f"{options}: {error}") from None


def describe_settings(settings: SamplingSettings) -> dict[str, Any]:
    """Settings as JSON has them, for fingerprints and metadata."""
    kind = "complexity" if isinstance(settings.schedule, Complexity) else "fixed"
    described = asdict(settings) | {"schedule": {"kind": kind, **asdict(settings.schedule)}}
    return described | {"guidance_interval": list(settings.guidance_interval)}


def parse_interval(text: str) -> tuple[float, float]:
    """``LOW:HIGH``, selection ratios between which guidance is on; UsageError otherwise."""
    low, colon, high = text.partition(":")
    try:
        interval = float(low), float(high)
    except ValueError:
        interval = 1.0, 0.0
    if not colon or not -10 <= interval[0] < interval[1] <= 1:
        raise UsageError(f"--guidance-interval {text}: expected LOW:HIGH with LOW < HIGH <= 1, such as 0.44:1")
    return interval


def parse_classes(text: str, labels: Sequence[str]) -> list[int]:
    """Class numbers of ``all`` or a comma-separated list of names and numbers; UsageError for unknown ones."""
    if not labels:
        if text != "all":
            raise UsageError(f"--classes {text}: the generator was trained without classes, leave the option out")
        return [0]
    if text == "all":
        return list(range(len(labels)))
    names = {name: number for number, name in enumerate(labels)}
    numbers = {str(number): number for number in range(len(labels))}
    chosen = []
    for part in (part.strip() for part in text.split(",")):
        number = names.get(part, numbers.get(part))
        if number is None:
            known = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
            raise UsageError(
                f"--classes {text}: there is no class {part!r}, expected 0 to {len(labels) - 1} or a name ({known})"
            )
        chosen.append(number)
    return list(dict.fromkeys(chosen))


def choose_grid(text: str | None, trained: dict[str, int]) -> Grid:
    """The latent grid to sample; UsageError when ``text`` is none."""
    name = text if text is not None else max(trained, key=lambda grid: trained[grid])
    grid = parse_grid(name)
    if grid is None:
        example = grid_name((1, 16, 16))
        raise UsageError(f"--grid {text}: expected tokens as TxHxW, such as {example}")
    return grid
