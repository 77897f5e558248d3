"""The recipe of a generator: as the user asks for it, and as its run settles it."""

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Tag

from grncli.models.class_transformer import ClassTransformerConfig, ClassTransformerShape, check_bit_sizes
from grncli.models.generator import check_range
from grncli.models.text_transformer import TextTransformerConfig, TextTransformerShape
from grncli.runs.recipe_fields import by_type, renamed
from grncli.runs.tokenizer_recipe import Optimization, Training
from grncli.runtime.jsonfiles import brief
from grncli.store import parse_grid

MAX_STRIDE = 1 << 16  # pixels per token
MAX_PACKED = 1 << 24  # tokens of a sequence, or samples that are packed together


@dataclass(frozen=True, kw_only=True)
class BitData:
    """Batches of samples from bit stores."""

    batch: int = 64  # samples a step, of all processes together
    buffer: float = 4.0  # GiB of bits that are shuffled together and stay in memory
    # Samples to hold out: loss and accuracy of them are logged every training.validate_every steps.
    validation: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.validation < 0:
            raise ValueError(f"batch is {self.batch} and validation {self.validation}, expected 1 and 0 or more")
        if not 0 < self.buffer < float("inf"):
            raise ValueError(f"buffer is {self.buffer}, expected more than 0 GiB")


@dataclass(frozen=True, kw_only=True)
class PackedData:
    """Packed sequences of samples of all grids from bit stores, for a network that is conditioned on text."""

    type: Literal["packed"] = "packed"  # packed sequences, which a network of type text_transformer needs
    # Longest sequence in tokens: those of its samples' grids and prompts, and one for each sample's selection ratio.
    tokens: int = 40960
    sequences: int = 1  # sequences a step, of all processes together
    window: int = 16384  # samples that are packed together: more waste fewer tokens, fewer shuffle better
    too_long: Literal["refuse", "drop"] = "refuse"  # what becomes of samples that fit into no sequence
    # Samples to hold out: loss and accuracy of them are logged every training.validate_every steps.
    validation: int = 0

    def __post_init__(self) -> None:
        if min(self.tokens, self.sequences, self.window) < 1 or self.validation < 0:
            raise ValueError(
                f"tokens is {self.tokens}, sequences {self.sequences}, window {self.window} and validation "
                f"{self.validation}, expected 1 or more, and 0 or more for validation"
            )
        if max(self.tokens, self.window) > MAX_PACKED:
            raise ValueError(f"tokens is {self.tokens} and window {self.window}, expected up to {MAX_PACKED}")


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a training sample is made from a true token map (paper section 3.2; facts section 3)."""

    # Distribution of the selection ratio, the share of true tokens in the input.
    ratio: Literal["logit-normal", "uniform"] = "logit-normal"
    mean: float = -0.8  # mean of the normal number whose logistic function the ratio is
    deviation: float = 0.8  # standard deviation of that number
    # Share of samples that learn without their class or text, 0 to 1, for guidance.
    condition_dropout: float = renamed(0.1, before="label_drop")
    # What is predicted: the true bits, or which bits to flip (Appendix E.3; network.prediction=bit only).
    target: Literal["absolute", "relative"] = "absolute"
    # Text only: a, how far the share of noise is shifted up, noise' = a * noise / (1 + (a - 1) * noise); area takes
    # a = sqrt(h * w / 256^2) of each sample's pixels.
    shift: float | Literal["area"] = 1.0
    tokens_power: float = 0.0  # text only: p, 0 to 1; a sample weighs its tokens^p within a sequence
    first_frame: float = 0.0  # text only: share of clips, 0 to 1, whose first frame is clean: image to video

    def __post_init__(self) -> None:
        if not isfinite(self.mean) or not 0 < self.deviation < float("inf"):
            raise ValueError(
                f"mean is {self.mean} and deviation {self.deviation}, expected a finite and a positive one"
            )
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"condition_dropout is {self.condition_dropout}, expected 0 to 1")
        if not 0 <= self.first_frame <= 1 or not 0 <= self.tokens_power <= 1:
            raise ValueError(
                f"first_frame is {self.first_frame} and tokens_power {self.tokens_power}, expected 0 to 1 for both"
            )
        if self.shift != "area" and not 0 < self.shift < float("inf"):
            raise ValueError(f"shift is {self.shift}, expected area or a finite number above 0")


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

    classes: int = 10  # classes on a sheet at most, one row each
    per_class: int = 4  # samples of each class or prompt
    steps: int = 25  # refinement steps of a sample
    guidance: float = 2.0  # scale of classifier-free guidance; 1 is none
    temperature: float = 1.0  # temperature of each prediction, above 0
    prompts: tuple[str, ...] = ()  # text only: the prompts of a sheet, one row each

    def __post_init__(self) -> None:
        if min(self.classes, self.per_class, self.steps) < 1:
            raise ValueError("classes, per_class and steps are counts, expected 1 or more")
        if not self.temperature > 0 or not isfinite(self.guidance):
            raise ValueError(f"temperature is {self.temperature}, expected more than 0, guidance finite")


@dataclass(frozen=True, kw_only=True)
class Bits:
    """The bits a generator was trained on; settled by the stores, not by the user."""

    tokenizer: dict[str, Any]  # name and sha256 of the tokenizer that made the bits
    stride: tuple[int, int, int]  # frames, rows and columns of pixels to a token
    labels: tuple[str, ...]  # names of the classes, in the order of their numbers
    grids: dict[str, int]  # samples of each latent grid TxHxW
    stores: tuple[str, ...] = ()  # hashes of the stores' bits, in the order of training
    fps: float | None = None  # frames a second of the clips

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

    prefix: str = ""  # what every prompt begins with
    suffix: str = ""  # what every prompt ends with
    # Field of captions.jsonl, such as quality_prompt: where a source has it, its words are learned, not the suffix.
    suffix_field: str = ""
    negative_prompt: str = ""  # what samples are guided away from, unless --negative-prompt says
    guidance: float = 3.0  # scale of classifier-free guidance; 1 is none
    temperature: float = 1.0  # temperature of each prediction, above 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf") or not isfinite(self.guidance):
            raise ValueError(
                f"temperature is {self.temperature} and guidance {self.guidance}, expected a positive and a finite one"
            )


@dataclass(frozen=True, kw_only=True)
class TextConditioning:
    """What the texts of a text-conditional generator are, and how it is sampled by default (facts section 8)."""

    encoder: dict[str, str] = field(default_factory=dict)  # name and sha256 of the text encoder, as far as known
    # Most tokens of a text; grn encode-text --recipe cuts what is longer, grn train-gen refuses it.
    max_tokens: int = 512
    # Files of the released tokenizers whose bits the network may have learned; none where it may be any.
    tokenizers: tuple[str, ...] = ()
    image: Task = field(default_factory=Task)  # text to image
    clip: Task = field(default_factory=Task)  # text to video
    first_frame: Task = field(default_factory=Task)  # clips that start from a given frame
    schedule: Literal["linear", "cosine"] = "cosine"  # how the selection ratio grows from step to step
    # Selection ratio of the last step of the cosine schedule: at 1 there would be nothing left to predict.
    cosine_end: float = 0.999

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0 < self.cosine_end <= 1:
            raise ValueError(
                f"max_tokens is {self.max_tokens} and cosine_end {self.cosine_end}, expected 1 or more and a ratio "
                "above 0 up to 1"
            )


@dataclass(frozen=True, kw_only=True)
class AskedGenerator(ClassTransformerShape):
    """The network of a recipe to train by; sizes that are left out follow from the bits."""

    rounds: int | None = None  # M, bits of a feature; null takes those of the stores
    channels: int | None = None  # C, features of a token; null takes those of the stores
    classes: int | None = None  # classes; 0 is an unconditional network, null takes those of the stores

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bit_sizes(self)

    def settle(self, *, rounds: int, channels: int, classes: int) -> ClassTransformerConfig:
        """All sizes of the network, with those of the bits."""
        return ClassTransformerConfig(**{**vars(self), "rounds": rounds, "channels": channels, "classes": classes})


@dataclass(frozen=True, kw_only=True)
class AskedTextGenerator(TextTransformerShape):
    """The network of a recipe to train on captions; sizes that are left out follow from the bits and the features."""

    rounds: int | None = None  # M, bits of a feature; null takes those of the stores
    channels: int | None = None  # C, features of a token; null takes those of the stores
    # Numbers of a text feature; null takes those of the text encoder.
    text_width: int | None = None  # type: ignore[assignment]  # features always say it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 1, "rounds", "channels")

    def settle(self, *, rounds: int, channels: int, text_width: int) -> TextTransformerConfig:
        """All sizes of the network, with those of the bits and the features."""
        sizes = {"rounds": rounds, "channels": channels, "text_width": text_width}
        return TextTransformerConfig(**{**vars(self), **sizes})


AnyData = Annotated[
    Annotated[BitData, Tag("batches")] | Annotated[PackedData, Tag("packed")],
    by_type("batches"),
]


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What both recipes have; each narrows the types of ``network`` and ``bits``."""

    kind: Literal["generator"] = "generator"  # what the recipe is for: grn train-gen
    # Sizes of the network.
    network: ClassTransformerShape | TextTransformerShape
    data: AnyData = field(default_factory=BitData)  # what a step trains on
    refinement: Refinement = field(default_factory=Refinement)  # how a training sample is made from a true token map
    # AdamW, its schedule and the moving averages.
    optimization: GeneratorOptimization = field(default_factory=GeneratorOptimization)
    training: GeneratorTraining = field(default_factory=GeneratorTraining)  # length of the run, and what it writes when
    preview: Preview = field(default_factory=Preview)  # how sheets of samples are drawn during training
    bits: Bits | None  # written by grn train-gen: the bits it was trained on
    text: TextConditioning | None = None  # text only: what the texts are, and how it is sampled by default
    imported: dict[str, str] | None = None  # written by grn import: where the weights came from
    # Written by grn train-gen --from: name and sha256 of the weights it began with, and what became of their average.
    started_from: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.refinement.target == "relative" and self.network.prediction != "bit":
            raise ValueError("refinement.target is relative, which is for network.prediction=bit only")
        packed = isinstance(self.data, PackedData)
        if not isinstance(self.network, TextTransformerShape):
            if packed:
                raise ValueError("data.type is packed, which is for network.type=text_transformer only")
            plain = replace(self.refinement, shift=1.0, tokens_power=0.0, first_frame=0.0)
            if self.refinement != plain:
                raise ValueError(
                    "refinement has shift, tokens_power or first_frame, which are for network.type=text_transformer "
                    "only"
                )


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

    network: Annotated[
        Annotated[AskedGenerator, Tag("class_transformer")] | Annotated[AskedTextGenerator, Tag("text_transformer")],
        by_type("class_transformer"),
    ] = field(default_factory=AskedGenerator)
    # Written by grn train-gen: the bits of the run whose recipe this is; the stores settle them anew.
    bits: Bits | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.network, AskedTextGenerator) and not isinstance(self.data, PackedData):
            raise ValueError("network.type=text_transformer is trained on packed sequences; set data.type=packed")
        if isinstance(self.network, AskedTextGenerator) and self.training.compile:
            raise ValueError(
                "training.compile is true, which is for network.type=class_transformer only: every packed sequence has "
                "lengths of its own, and would be compiled anew"
            )

    def settle(
        self, network: ClassTransformerConfig | TextTransformerConfig, bits: Bits, text: TextConditioning | None = None
    ) -> GeneratorRecipe:
        """The recipe of the run, with what the stores settle."""
        return GeneratorRecipe(**{**vars(self), "network": network, "bits": bits, "text": text})
