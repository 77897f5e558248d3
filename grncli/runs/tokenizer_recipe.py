"""The recipe of a tokenizer. Names of fields are those of the paper or of common use."""

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Tag

from grncli.hbq import MAX_ROUNDS
from grncli.models.tokenizer import TokenizerConfig
from grncli.rng import MAX_SEED
from grncli.runs.recipe_fields import by_type, renamed


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Batches of square crops from images."""

    size: int = 256
    batch: int = 16
    scale: tuple[float, float] = (0.5, 1.0)  # side of the crop, as a share of the shorter side of the source

    def __post_init__(self) -> None:
        _positive(self, "size", "batch")
        _check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class ClipData:
    """Batches of square crops from clips, a random window in time each."""

    size: int = 256
    batch: int = 2
    frames: int = 17  # 1 + stride in time * n
    fps: float | None = None  # None: the clip's own frames
    share: float = 0.5  # of the steps, where there are images too
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        _positive(self, "size", "batch", "frames")
        if self.fps is not None:
            _positive(self, "fps")
        _check_scale(self.scale)
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, expected above 0 and up to 1")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a step trains on; at least one kind of media."""

    image: ImageData | None = None
    clip: ClipData | None = None
    flip: float = 0.5  # probability of a horizontal flip
    workers: int = 1  # decoding processes
    validation: int = 0  # sources of each kind that measure PSNR and SSIM, and train nothing

    def __post_init__(self) -> None:
        _not_negative(self, "validation", "workers")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss: its weight, and when it sets in; a recipe may give the weight alone."""

    weight: float = 0.0
    start: int = 0  # the first step that has it, counted from 0
    warmup: int = 0  # steps from there until it has its full weight

    def __post_init__(self) -> None:
        if not 0 <= self.weight < inf:
            raise ValueError(f"weight is {self.weight}, expected 0 or more")
        if min(self.start, self.warmup) < 0:
            raise ValueError(f"start is {self.start} and warmup {self.warmup}, expected 0 or more")

    def at(self, step: int) -> float:
        """The weight in a step, counted from 0."""
        if step < self.start:
            return 0.0
        return self.weight * min(1.0, (step - self.start + 1) / max(1, self.warmup))


def _term(value: Any) -> Any:
    """A lone weight as a term; YAML reads 1e-4 as a string."""
    return value if isinstance(value, (dict, Term)) else {"weight": value}


Loss = Annotated[Term, BeforeValidator(_term)]


@dataclass(frozen=True, kw_only=True)
class TokenizerLosses:
    """Weight of each loss, on pixels in [-1, 1] (paper section 3.1 and 4.1)."""

    reconstruction: Loss = Term(weight=1.0)  # mean absolute error (L1)
    # Mean squared error, for small networks: under L1 alone the median, a picture without its small things, is a
    # plateau that hundreds of steps do not leave.
    mse: Loss = Term()
    lpips: Loss = Term()
    gan: Loss = Term()  # of the tokenizer's loss; the discriminators train from its first step on
    lpips_network: Literal["vgg", "alex"] = "vgg"
    lpips_weights: str | None = None  # directory or file; null looks into the cache
    lpips_download: bool = False  # fetch what is missing there, once

    def __post_init__(self) -> None:
        if self.reconstruction.weight + self.mse.weight == 0:
            raise ValueError("reconstruction and mse are both 0, expected at least one of them above 0")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """The PatchGAN discriminators that the GAN loss needs: one of single frames, and one of clips that sees time."""

    width: int = 64
    layers: int = 3  # strided ones
    clips: bool = True  # have the one that sees time, where the recipe has clips
    learning_rate: float | None = None  # null takes the tokenizer's

    def __post_init__(self) -> None:
        _positive(self, "width", "layers")
        if self.width > 1 << 14 or self.layers > 16:
            raise ValueError(f"width is {self.width} and layers {self.layers}, expected up to {1 << 14} and up to 16")
        if self.learning_rate is not None:
            _positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW, its schedule, and the moving average of the weights that everything downstream uses."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01  # on matrices and kernels only
    warmup_steps: int = 0
    schedule: str = "constant"  # or cosine, down to zero at the last step
    clip_norm: float = 1.0
    ema: float | tuple[float, ...] = 0.999  # decay; of several, the first is what everything downstream uses
    # Pieces that each batch passes in, one after the other, to spare memory.
    gradient_accumulation: int = renamed(1, before="accumulate")

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "gradient_accumulation")
        if not self.clip_norm > 0:  # .inf clips nothing
            raise ValueError(f"clip_norm is {self.clip_norm}, expected more than 0")
        _not_negative(self, "weight_decay", "warmup_steps")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}, expected two numbers from 0 up to but without 1")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, expected constant or cosine")
        if not self.decays or not all(0 <= decay < 1 for decay in self.decays):
            raise ValueError(f"ema is {self.ema}, expected 0 up to but without 1")

    @property
    def decays(self) -> tuple[float, ...]:
        """Of each moving average."""
        return self.ema if isinstance(self.ema, tuple) else (self.ema,)

    @property
    def copies(self) -> int:
        """How often training holds the weights: with their gradients, two moments and the moving averages."""
        return 4 + len(self.decays)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Length of a run and what it leaves on the way."""

    steps: int = 1000
    seed: int = 0
    # Of the forward pass: auto takes bfloat16 where the device computes in it. Settled when a run begins, then kept.
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    log_every: int = 20
    checkpoint_every: int = 500
    preview_every: int = 500
    validate_every: int = 500  # where data.validation holds sources out
    keep: int = 2  # newest checkpoints
    keep_every: int | None = None  # keep those of each such step too, such as 10000
    compile: bool = False  # with torch.compile: slower to start, quicker on a GPU
    # Compute activations again in the backward pass: a third slower, far less memory.
    activation_checkpointing: bool = renamed(False, before="recompute")
    tensorboard: bool = False  # write the log for TensorBoard too

    def __post_init__(self) -> None:
        _positive(self, "steps", "log_every", "checkpoint_every", "preview_every", "validate_every", "keep")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}, expected 0 to 2**63 - 1")
        if self.keep_every is not None:
            _positive(self, "keep_every")


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """``grn train-tokenizer``: the network, its data and its training."""

    kind: str = "tokenizer"
    network: Annotated[Annotated[TokenizerConfig, Tag("causal_conv")], by_type("causal_conv")] = field(
        default_factory=TokenizerConfig
    )
    # M; null trains the continuous baseline; of a list each batch draws one, so that every prefix decodes well
    rounds: int | tuple[int, ...] | None = 4
    data: Data = field(default_factory=lambda: Data(image=ImageData()))
    losses: TokenizerLosses = field(default_factory=TokenizerLosses)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    optimization: Optimization = field(default_factory=Optimization)
    training: Training = field(default_factory=Training)
    imported: dict[str, str] | None = None  # where imported weights came from

    def __post_init__(self) -> None:
        if self.kind != "tokenizer":
            raise ValueError(f"kind is {self.kind!r}, expected tokenizer")
        wrong = [rounds for rounds in self.drawn_rounds if rounds is not None and not 1 <= rounds <= MAX_ROUNDS]
        if wrong or not self.drawn_rounds:
            raise ValueError(f"rounds is {self.rounds}, expected 1 to {MAX_ROUNDS}, a list of such, or null for none")
        if self.data.image is None and self.data.clip is None:
            raise ValueError("data names neither image nor clip, expected at least one of them")
        time, height, _ = self.network.stride
        for name, media in (("image", self.data.image), ("clip", self.data.clip)):
            if media is not None and media.size % height:
                raise ValueError(f"data.{name}.size is {media.size}, expected a multiple of the stride {height}")
        if self.data.clip is not None and (self.data.clip.frames - 1) % time:
            raise ValueError(f"data.clip.frames is {self.data.clip.frames}, expected 1 + {time}n")

    @property
    def drawn_rounds(self) -> tuple[int | None, ...]:
        """What a batch draws its number of rounds from."""
        return self.rounds if isinstance(self.rounds, tuple) else (self.rounds,)

    @property
    def most_rounds(self) -> int | None:
        """M of the bits that the tokenizer makes; None for the continuous baseline."""
        return max(self.rounds) if isinstance(self.rounds, tuple) else self.rounds


def _check_scale(scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is {list(scale)}, expected two numbers with 0 < first <= second <= 1")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 < value < inf:  # also refuses NaN
            raise ValueError(f"{name} is {value}, expected {'a finite number' if value == inf else 'more than 0'}")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < inf:
            raise ValueError(f"{name} is {value}, expected {'a finite number' if value == inf else '0 or more'}")
