"""The recipe of a generator: as the user asks for it, and as its run settles it."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Tag

from grncli.models.class_transformer import ClassTransformerConfig, ClassTransformerShape, check_bit_sizes
from grncli.models.text_transformer import TextTransformerConfig
from grncli.runs.recipe_fields import by_type, renamed
from grncli.runs.tokenizer_recipe import Optimization, Training
from grncli.runtime.jsonfiles import brief
from grncli.store import parse_grid

MAX_STRIDE = 1 << 16  # pixels per token


@dataclass(frozen=True, kw_only=True)
class BitData:
    """Batches of samples from bit stores."""

    batch: int = 64
    buffer: float = 4.0  # GiB of bits that are shuffled together and stay in memory
    validation: int = 0  # samples that measure loss and accuracy, and train nothing

    def __post_init__(self) -> None:
        if self.batch < 1 or self.validation < 0:
            raise ValueError(f"batch is {self.batch} and validation {self.validation}, expected 1 and 0 or more")
        if not 0 < self.buffer < float("inf"):
            raise ValueError(f"buffer is {self.buffer}, expected more than 0 GiB")


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a training sample is made from a true token map (paper section 3.2; facts section 3)."""

    ratio: Literal["logit-normal", "uniform"] = "logit-normal"  # distribution of the selection ratio
    mean: float = -0.8  # of the normal number whose logistic function it is
    deviation: float = 0.8
    # Share of samples that learn without their condition, for guidance.
    condition_dropout: float = renamed(0.1, before="label_drop")
    target: Literal["absolute", "relative"] = "absolute"  # relative: which bits to flip (Appendix E.3), GRN_bit only

    def __post_init__(self) -> None:
        if not isfinite(self.mean) or not 0 < self.deviation < float("inf"):
            raise ValueError(
                f"mean is {self.mean} and deviation {self.deviation}, expected a finite and a positive one"
            )
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout is {self.condition_dropout}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class GeneratorOptimization(Optimization):
    """As the paper trains: a constant rate, no weight decay, two moving averages."""

    learning_rate: float = 2e-4
    weight_decay: float = 0.0
    clip_norm: float = 0.1
    ema: float | tuple[float, ...] = (0.9999, 0.9996)


@dataclass(frozen=True, kw_only=True)
class GeneratorTraining(Training):
    """As quick as the device can: a generator loses nothing by bfloat16, where a tokenizer's pixels would show it."""

    dtype: Literal["float32", "bfloat16", "auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """How the sample sheets of a run are drawn, where ``--tokenizer`` is given."""

    classes: int = 10  # at most, one row each
    per_class: int = 4
    steps: int = 25
    guidance: float = 2.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.classes, self.per_class, self.steps) < 1:
            raise ValueError("classes, per_class and steps are counts, expected 1 or more")
        if not self.temperature > 0 or not isfinite(self.guidance):
            raise ValueError(f"temperature is {self.temperature}, expected more than 0, guidance finite")


@dataclass(frozen=True, kw_only=True)
class Bits:
    """The bits a generator was trained on; settled by the stores, not by the user."""

    tokenizer: dict[str, Any]  # name and sha256
    stride: tuple[int, int, int]
    labels: tuple[str, ...]
    grids: dict[str, int]  # TxHxW: samples
    stores: tuple[str, ...] = ()  # hashes of their bits, in the order of training
    fps: float | None = None

    def __post_init__(self) -> None:
        if not all(1 <= pixels <= MAX_STRIDE for pixels in self.stride):
            raise ValueError(f"stride is {list(self.stride)}, expected three numbers from 1 to {MAX_STRIDE}")
        wrong = [name for name, samples in self.grids.items() if parse_grid(name) is None or samples < 0]
        if wrong or not self.grids:
            shown = brief({name: self.grids[name] for name in wrong})
            raise ValueError(f"grids is {shown}, expected numbers of samples by TxHxW")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps is {self.fps}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a text-conditional generator is asked for one kind of sample, and sampled by default.

    Prefix and suffix are part of every prompt but the empty and the negative one.
    """

    prefix: str = ""
    suffix: str = ""
    negative_prompt: str = ""
    guidance: float = 3.0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """What the texts of a text-conditional generator are, and how it is sampled by default (facts section 8)."""

    encoder: dict[str, str] = field(default_factory=dict)  # name and sha256, as far as they are known
    max_tokens: int = 512
    image: Task = field(default_factory=Task)
    clip: Task = field(default_factory=Task)
    first_frame: Task = field(default_factory=Task)  # clips that start from a given frame
    schedule: Literal["linear", "cosine"] = "cosine"
    cosine_end: float = 1.0  # selection ratio at which the cosine schedule ends


@dataclass(frozen=True, kw_only=True)
class AskedGenerator(ClassTransformerShape):
    """The network of a recipe to train by; sizes that are left out follow from the bits."""

    rounds: int | None = None
    channels: int | None = None
    classes: int | None = None  # 0: unconditional

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bit_sizes(self)

    def settle(self, *, rounds: int, channels: int, classes: int) -> ClassTransformerConfig:
        """All sizes of the network, with those of the bits."""
        return ClassTransformerConfig(**{**vars(self), "rounds": rounds, "channels": channels, "classes": classes})


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What both recipes have; each narrows the types of ``network`` and ``bits``."""

    kind: str = "generator"
    network: ClassTransformerShape | TextTransformerConfig
    data: BitData = field(default_factory=BitData)
    refinement: Refinement = field(default_factory=Refinement)
    optimization: GeneratorOptimization = field(default_factory=GeneratorOptimization)
    training: GeneratorTraining = field(default_factory=GeneratorTraining)
    preview: Preview = field(default_factory=Preview)
    bits: Bits | None
    text: TextConditioning | None = None  # of a network that is conditioned on text
    imported: dict[str, str] | None = None  # where imported weights came from

    def __post_init__(self) -> None:
        if self.kind != "generator":
            raise ValueError(f"kind is {self.kind!r}, expected generator")
        if self.refinement.target == "relative" and self.network.prediction != "bit":
            raise ValueError("refinement.target is relative, which is for network.prediction=bit only")


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe(_Settings):
    """The recipe of a run: all sizes of the network are settled, and its bits are named."""

    network: Annotated[
        Annotated[ClassTransformerConfig, Tag("class_transformer")]
        | Annotated[TextTransformerConfig, Tag("text_transformer")],
        by_type("class_transformer"),
    ]
    bits: Bits


@dataclass(frozen=True, kw_only=True)
class AskedGeneratorRecipe(_Settings):
    """The recipe that ``grn train-gen`` takes: sizes of the network that follow from the bits may be left out."""

    network: Annotated[Annotated[AskedGenerator, Tag("class_transformer")], by_type("class_transformer")] = field(
        default_factory=AskedGenerator
    )
    bits: Bits | None = None  # of the run whose recipe this is; the stores settle them anew

    def settle(self, network: ClassTransformerConfig, bits: Bits) -> GeneratorRecipe:
        """The recipe of the run, with what the stores settle."""
        return GeneratorRecipe(**{**vars(self), "network": network, "bits": bits})
