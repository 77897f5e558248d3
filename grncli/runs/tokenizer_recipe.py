"""The recipe of a tokenizer. Names of fields are those of the paper or of common use."""

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from grncli.hbq import MAX_ROUNDS
from grncli.models.tokenizer import TokenizerConfig
from grncli.rng import MAX_SEED
from grncli.runs.recipe_fields import renamed


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Batches of square crops from images."""

    size: int = 256  # height and width of a crop, in pixels; a multiple of the network's stride in space
    batch: int = 16  # images a step, of all processes together
    # Smallest and largest side of a crop before it is resized, as a share of the shorter side of the source.
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        _positive(self, "size", "batch")
        _check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class ClipData:
    """Batches of square crops from clips, a random window in time each."""

    size: int = 256  # height and width of a crop, in pixels; a multiple of the network's stride in space
    batch: int = 2  # clips a step, of all processes together
    frames: int = 17  # frames of a window, 1 + n times the network's stride in time
    fps: float | None = None  # frames a second to resample clips to; null takes each clip's own frames
    share: float = 0.5  # share of the steps that train on clips, above 0 up to 1, where there are images too
    # First step that trains on clips, counted from 0, where there are images too: a step of images is far cheaper, and
    # teaches what frames of clips have in common with them.
    start: int = 0
    # Smallest and largest side of a crop before it is resized, as a share of the shorter side of the source.
    scale: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        _positive(self, "size", "batch", "frames")
        if self.fps is not None:
            _positive(self, "fps")
        _check_scale(self.scale)
        _not_negative(self, "start")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, expected above 0 and up to 1")


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a step trains on; at least one kind of media."""

    image: ImageData | None = None  # batches of images; null trains on none
    clip: ClipData | None = None  # batches of clips; null trains on none
    flip: float = 0.5  # probability of a horizontal flip, 0 to 1
    workers: int = 1  # processes that decode media; 0 decodes in the training process
    # Sources of each kind to hold out: their PSNR and SSIM are logged every training.validate_every steps.
    validation: int = 0

    def __post_init__(self) -> None:
        _not_negative(self, "validation", "workers")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss: its weight, and when it sets in; a recipe may give the weight alone."""

    weight: float = 0.0  # factor of the loss in the sum; 0 leaves it out
    start: int = 0  # first step that has the loss, counted from 0
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


Loss = Annotated[Term, BeforeValidator(_term, json_schema_input_type=float | Term)]


@dataclass(frozen=True, kw_only=True)
class TokenizerLosses:
    """Weight of each loss, on pixels in [-1, 1] (paper section 3.1 and 4.1)."""

    reconstruction: Loss = Term(weight=1.0)  # mean absolute error (L1), the paper's
    # Mean squared error, for small networks: under L1 alone the median, a picture without its small things, is a
    # plateau that hundreds of steps do not leave.
    mse: Loss = Term()
    lpips: Loss = Term()  # perceptual loss, the mean LPIPS of the pictures
    gan: Loss = Term()  # adversarial loss; the discriminators train from its first step on
    lpips_network: Literal["vgg", "alex"] = "vgg"  # backbone of LPIPS: VGG16 or AlexNet
    lpips_weights: str | None = None  # directory or file with the weights of LPIPS; null looks into the cache
    lpips_download: bool = False  # whether to fetch the weights of LPIPS that the cache lacks, once

    def __post_init__(self) -> None:
        if self.reconstruction.weight + self.mse.weight == 0:
            raise ValueError("reconstruction and mse are both 0, expected at least one of them above 0")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSettings:
    """The PatchGAN discriminators that the GAN loss needs: one of single frames, and one of clips that sees time."""

    width: int = 64  # channels of the first layer
    layers: int = 3  # strided layers, 1 to 16; each but the first doubles the width, up to eightfold
    clips: bool = True  # whether there is one that sees time, where the recipe has clips
    learning_rate: float | None = None  # rate of their AdamW; null takes the tokenizer's

    def __post_init__(self) -> None:
        _positive(self, "width", "layers")
        if self.width > 1 << 14 or self.layers > 16:
            raise ValueError(f"width is {self.width} and layers {self.layers}, expected up to {1 << 14} and up to 16")
        if self.learning_rate is not None:
            _positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW, its schedule, and the moving average of the weights that everything downstream uses."""

    learning_rate: float = 1e-4  # rate of AdamW after the warm-up
    betas: tuple[float, float] = (0.9, 0.95)  # decays of AdamW's first and second moment
    weight_decay: float = 0.01  # decoupled weight decay, on matrices and kernels only
    warmup_steps: int = 0  # steps in which the rate grows linearly to its full height
    schedule: Literal["constant", "cosine"] = "constant"  # the rate after that; cosine falls to 0 at the last step
    clip_norm: float = 1.0  # largest norm of the gradient of all weights; .inf clips nothing
    # Decay of the moving average of the weights, a step; of a list, the first is what everything downstream uses.
    ema: float | tuple[float, ...] = 0.999
    # Pieces of equal size that each batch passes in, one after the other, to spare memory.
    gradient_accumulation: int = renamed(1, before="accumulate")

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "gradient_accumulation")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}, expected more than 0")
        _not_negative(self, "weight_decay", "warmup_steps")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}, expected two numbers from 0 up to but without 1")
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


Parallel = Literal["auto", "none", "ddp", "fsdp", "hsdp"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Length of a run and what it leaves on the way."""

    steps: int = 1000  # steps in all; a finished run is extended by more
    seed: int = 0  # seed of the first weights, the order of the data and every draw, 0 to 2**63 - 1
    # Number format of the forward pass: auto takes bfloat16 where the device computes in it. Settled when a run begins,
    # then kept.
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    log_every: int = 20  # steps from one line of metrics.jsonl to the next
    checkpoint_every: int = 500  # steps from one checkpoint to the next
    preview_every: int = 500  # steps from one preview to the next
    validate_every: int = 500  # steps from one validation to the next, where data.validation holds samples out
    keep: int = 2  # newest checkpoints to keep
    keep_every: int | None = None  # keep the checkpoint of every such step too, such as 10000
    compile: bool = False  # whether to use torch.compile: slower to start, quicker on a GPU
    # Whether to compute activations again in the backward pass: a third slower, far less memory.
    activation_checkpointing: bool = renamed(False, before="recompute")
    # How several processes share the work: ddp holds all weights in each, fsdp a shard of them, hsdp shards within each
    # machine; none is for one process. auto takes ddp where weights, gradients, moments and averages fit.
    parallel: Parallel = "auto"
    tensorboard: bool = False  # whether to write the log for TensorBoard too

    def __post_init__(self) -> None:
        _positive(self, "steps", "log_every", "checkpoint_every", "preview_every", "validate_every", "keep")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}, expected 0 to 2**63 - 1")
        if self.keep_every is not None:
            _positive(self, "keep_every")


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """``grn train-tokenizer``: the network, its data and its training."""

    kind: Literal["tokenizer"] = "tokenizer"  # what the recipe is for: grn train-tokenizer
    # Sizes of the network.
    network: TokenizerConfig = field(default_factory=TokenizerConfig)
    # M, the bits of a feature, 1 to 8; null trains the continuous baseline; of a list such as [1, 2, 4] each batch
    # draws one, so that every prefix of the bits decodes well.
    rounds: int | tuple[int, ...] | None = 4
    # Largest share of the bits that training gets wrong, 0 to 0.5; each sample draws its own from 0 to this. A decoder
    # that never met wrong bits answers those of a young generator with blocks and stray colours; the paper has 0.
    bit_errors: float = 0.0
    data: Data = field(default_factory=lambda: Data(image=ImageData()))  # what a step trains on
    losses: TokenizerLosses = field(default_factory=TokenizerLosses)  # weight of each loss
    # The discriminators of the adversarial loss.
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    optimization: Optimization = field(default_factory=Optimization)  # AdamW, its schedule and the moving average
    training: Training = field(default_factory=Training)  # length of the run, and what it writes when
    imported: dict[str, str] | None = None  # written by grn import: where the weights came from

    def __post_init__(self) -> None:
        wrong = [rounds for rounds in self.drawn_rounds if rounds is not None and not 1 <= rounds <= MAX_ROUNDS]
        if wrong or not self.drawn_rounds:
            raise ValueError(f"rounds is {self.rounds}, expected 1 to {MAX_ROUNDS}, a list of such, or null for none")
        if not 0 <= self.bit_errors <= 0.5:
            raise ValueError(f"bit_errors is {self.bit_errors}, expected a share of bits from 0 to 0.5")
        if self.data.image is None and self.data.clip is None:
            raise ValueError("data names neither image nor clip, expected at least one of them")
        if self.data.image is None and self.data.clip is not None and self.data.clip.start:
            raise ValueError(f"data.clip.start is {self.data.clip.start}, expected 0 as there are no images before it")
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
