"""What a training recipe says, as typed objects. Field names are the paper's and the field's."""

from dataclasses import dataclass, field
from math import inf

from grncli.models.tokenizer import TokenizerConfig


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

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TokenizerLosses:
    """Weight of each loss, on pixels in [-1, 1]."""

    reconstruction: float = 1.0  # mean absolute error (L1)
    # Mean squared error, for small networks: under L1 alone the median, a picture without its small things, is a
    # plateau that hundreds of steps do not leave.
    mse: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in (("reconstruction", self.reconstruction), ("mse", self.mse)):
            if not 0 <= weight < inf:
                raise ValueError(f"{name} is {weight}, expected 0 or more")
        if self.reconstruction + self.mse == 0:
            raise ValueError("reconstruction and mse are both 0, expected at least one of them above 0")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW, its schedule, and the moving average of the weights that everything downstream uses."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01  # on matrices and kernels only
    warmup_steps: int = 0
    schedule: str = "constant"  # or cosine, down to zero at the last step
    clip_norm: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "clip_norm")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}, expected constant or cosine")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected 0 up to but without 1")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Length of a run and what it leaves on the way."""

    steps: int = 1000
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    preview_every: int = 500
    keep: int = 2  # checkpoints

    def __post_init__(self) -> None:
        _positive(self, "steps", "log_every", "checkpoint_every", "preview_every", "keep")


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """``grn train-tokenizer``: the network, its data and its training."""

    kind: str = "tokenizer"
    network: TokenizerConfig = field(default_factory=TokenizerConfig)
    rounds: int | None = 4  # M; null trains the continuous baseline
    data: Data = field(default_factory=lambda: Data(image=ImageData()))
    losses: TokenizerLosses = field(default_factory=TokenizerLosses)
    optimization: Optimization = field(default_factory=Optimization)
    training: Training = field(default_factory=Training)
    imported: dict[str, str] | None = None  # where imported weights came from

    def __post_init__(self) -> None:
        if self.kind != "tokenizer":
            raise ValueError(f"kind is {self.kind!r}, expected tokenizer")
        if self.rounds is not None and not 1 <= self.rounds <= 8:
            raise ValueError(f"rounds is {self.rounds}, expected 1 to 8, or null for no quantization")
        if self.data.image is None and self.data.clip is None:
            raise ValueError("data names neither image nor clip, expected at least one of them")
        time, height, _ = self.network.stride
        for name, media in (("image", self.data.image), ("clip", self.data.clip)):
            if media is not None and media.size % height:
                raise ValueError(f"data.{name}.size is {media.size}, expected a multiple of the stride {height}")
        if self.data.clip is not None and (self.data.clip.frames - 1) % time:
            raise ValueError(f"data.clip.frames is {self.data.clip.frames}, expected 1 + {time}n")


def _check_scale(scale: tuple[float, float]) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is {list(scale)}, expected two numbers with 0 < first <= second <= 1")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        if not getattr(owner, name) > 0:  # also refuses NaN
            raise ValueError(f"{name} is {getattr(owner, name)}, expected more than 0")
