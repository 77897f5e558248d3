"""The options of ``grn sample``, and what they mean: a schedule, settings of the sampler, classes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from grncli.runs.generator_recipe import Task, TextConditioning
from grncli.runtime.errors import UsageError
from grncli.sampling.sampler import SamplingSettings, Selection
from grncli.schedules import TEXT_MIN_STEPS, Complexity, Cosine, Fixed, Schedule

SCHEDULES = {Fixed: "fixed", Cosine: "cosine", Complexity: "complexity"}  # as fingerprints name them
# Of options that are not given, for generators of classes; those of the sampler's settings stand there.
CLASS_DEFAULTS: Mapping[str, Any] = {"schedule": "linear", "temperature": SamplingSettings.temperature, "per_class": 8}


def text_defaults(text: TextConditioning, task: Task, *, pictures: bool) -> dict[str, Any]:
    """Of options that are not given, for a generator of texts: what its run records, guidance at every step."""
    return {
        "schedule": text.schedule,
        "cosine_end": text.cosine_end,
        "guidance": task.guidance,
        "guidance_interval": "0:1",
        "temperature": task.temperature,
        "negative_prompt": task.negative_prompt,
        "min_steps": TEXT_MIN_STEPS if pictures else None,
        "per_class": 1,
    }


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The options of ``grn sample``; the first block decides what the samples are, the second only how they are made.

    ``None`` takes the paper's value, or what the run of a generator of texts records; for k and b first of all those
    that were fitted to the run.
    """

    classes: str = "all"  # or numbers and names, comma-separated
    prompt: str | None = None
    prompts: Path | None = None  # file of prompts, which name a class each for a generator of classes
    text_encoder: str | None = None  # folder of it, or minilm
    text: Path | None = None  # store of text features, instead of an encoder
    negative_prompt: str | None = None  # or @FILE
    rewrite: str | None = None  # command that rewrites prompts
    grid: str | None = None  # TxHxW tokens; None takes the most frequent of training
    size: str | None = None  # HEIGHTxWIDTH pixels
    frames: int | None = None
    budget: str | None = None  # pixels, which every ratio fills
    ratio: str | None = None  # WIDTH:HEIGHT
    weights: str = "ema"
    schedule: Literal["linear", "cosine", "complexity"] | None = None
    cosine_end: float | None = None
    shift: float | None = None
    steps: int = 50
    k: float | None = None
    b: float | None = None
    min_steps: int | None = None
    max_steps: int | None = None
    warmup_steps: int | None = None
    target_steps: float | None = None  # fit k and b to this mean
    guidance: float | None = None
    guidance_interval: str | None = None  # LOW:HIGH
    temperature: float | None = None
    adapt_temperature: bool = False
    select: Selection = "random"
    seed: int = 0
    init: Path | None = None  # store of samples to start from
    keep: str | None = None  # what of them stays: a PNG mask, first-frame, or a share
    first_frame: Path | None = None  # picture that clips start from, or a folder with one for each prompt

    per_class: int | None = None  # or per prompt, or per sample to start from
    tokenizer: str | None = None
    batch: int | None = None
    device: str = "cpu"
    dtype: str = "float32"  # auto: that of samples that are there, or else what is fast
    part: int = 0
    parts: int = 1
    sheet: Path | None = None
    film: Path | None = None
    offload: bool = False  # the generator leaves the device before the tokenizer comes
    overwrite: bool = False

    def with_defaults(self, defaults: Mapping[str, Any]) -> "SampleOptions":
        """The same with a value for each of ``defaults`` that is not given."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if (self.schedule or missing.get("schedule")) != "complexity":
            missing.pop("min_steps", None)
        if (self.schedule or missing.get("schedule")) != "cosine":
            missing.pop("cosine_end", None)
        return replace(self, **missing)

    def sampling_settings(self, schedule: Schedule, *, relative: bool) -> SamplingSettings:
        """How samples are refined; UsageError for invalid values."""
        guidance = SamplingSettings.guidance if self.guidance is None else self.guidance
        interval = None if self.guidance_interval is None else parse_interval(self.guidance_interval)
        temperature = SamplingSettings.temperature if self.temperature is None else self.temperature
        if not 0 < temperature < float("inf"):
            raise UsageError(f"--temperature {temperature}: expected a finite number above 0")
        if not -1e6 < guidance < 1e6:
            raise UsageError(f"--guidance {guidance}: expected a finite number")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: expected 0 to 2^63 - 1")
        return SamplingSettings(
            schedule=schedule,
            guidance=guidance,
            guidance_interval=interval or SamplingSettings.guidance_interval,
            temperature=temperature,
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

    def fixed_schedule(self) -> Fixed | Cosine:
        """The schedule of equal or cosine steps; UsageError where it cannot be."""
        shape = {"end": self.cosine_end, "shift": self.shift}
        given = {name: value for name, value in shape.items() if value is not None}
        if given and self.schedule != "cosine":
            raise UsageError("--cosine-end and --shift are for --schedule cosine, expected them with that")
        try:
            if given:
                return Cosine(self.steps, **given)
            return Fixed(self.steps, "cosine" if self.schedule == "cosine" else "linear")
        except ValueError as error:
            raise UsageError(f"--steps, --cosine-end and --shift: {error}") from None

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
    schedule = {"kind": SCHEDULES[type(settings.schedule)], **asdict(settings.schedule)}
    described = asdict(settings) | {"schedule": schedule}
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
