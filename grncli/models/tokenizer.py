"""The visual tokenizer: a causal video autoencoder whose features in (-1, 1) HBQ turns into bits (paper section 3.1).

Particular about it: one network for images and clips (a clip is one frame plus pieces of ``stride[0]`` frames);
a first patchify, so that three halvings give stride 16; a parameter-free shortcut round every stage; tanh features;
long clips pass in pieces of bounded memory.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from grncli.hbq import straight_through
from grncli.models.layers import CausalConv3d
from grncli.models.stages import ConvHead, DecoderStage, EncoderStage, Middle, init_weights
from grncli.models.streaming import History, Part, cut_within, frames_within, join, pieces, through
from grncli.runtime.jsonfiles import brief

# Input pixels (batch x frames x height x width) up to which a clip passes whole; longer ones pass in pieces.
WHOLE_CLIP_PIXELS = 2**21
# Elements (batch x channels x frames x height x width) of the largest activation of a stage. Where a piece has more,
# the stage takes fewer frames at a time, at least one. About six such activations live at once, in float32 1.5 GiB when
# decoding and 3 GiB when encoding: this keeps clips of up to WHOLE_CLIP_PIXELS whole in the released encoder. What the
# convolutions remember of a longer clip comes on top, 7 kB for each pixel of a frame in the released decoder.
MOST_ENCODED, MOST_DECODED = 2**27, 2**26
# Beyond what anybody trains; larger numbers are mistakes, and building their network would take minutes or all memory.
MAX_STAGES, MAX_MULTIPLIER = 12, 256
MOST = {"patch": 64, "encoder_blocks": 256, "decoder_blocks": 256}
MOST |= dict.fromkeys(("channels", "encoder_width", "decoder_width"), 1 << 14)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the network, named as in the recipe. The defaults are the released image tokenizer."""

    type: Literal["causal_conv"] = "causal_conv"  # a causal convolutional autoencoder, the only type
    channels: int = 16  # C, features per token
    patch: int = 2  # side in pixels of the block that is folded into channels first
    encoder_width: int = 160  # channels of the encoder's first stage
    decoder_width: int = 256  # channels of the decoder's last stage
    # Width of each stage, as a multiple of encoder_width and decoder_width; as many stages as numbers.
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    encoder_blocks: int = 2  # residual blocks of an encoder stage
    decoder_blocks: int = 3  # residual blocks of a decoder stage
    # Encoder stages, counted from 1, that end in a halving of height and width; the decoder mirrors them.
    halve_space: tuple[int, ...] = (1, 2, 3)
    halve_time: tuple[int, ...] = (2, 3)  # encoder stages that end in a halving of time; the decoder mirrors them
    attention: bool = True  # whether there is attention in the middle; some checkpoints were trained without

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers is {brief(list(self.multipliers))}, expected at least one number above 0")
        if len(self.multipliers) > MAX_STAGES or max(self.multipliers) > MAX_MULTIPLIER:
            raise ValueError(
                f"multipliers is {brief(list(self.multipliers))}, expected up to {MAX_STAGES} numbers, "
                f"up to {MAX_MULTIPLIER} each"
            )
        for name in ("channels", "patch", "encoder_width", "decoder_width", "encoder_blocks", "decoder_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
            if getattr(self, name) > MOST[name]:
                raise ValueError(f"{name} is {getattr(self, name)}, expected up to {MOST[name]}")
        last = len(self.multipliers)
        for name, stages in (("halve_space", self.halve_space), ("halve_time", self.halve_time)):
            wrong = [stage for stage in stages if not 1 <= stage < last]
            if wrong:
                raise ValueError(f"{name} names stage {wrong[0]}, expected 1 to {last - 1} (the last never halves)")
            if len(set(stages)) < len(stages):
                raise ValueError(f"{name} is {brief(list(stages))}, expected each stage once")
        self._check_shortcuts()

    def _check_shortcuts(self) -> None:
        """The shortcuts average or repeat channels in whole groups."""
        down = list(itertools.pairwise((1, *self.multipliers)))
        up = list(itertools.pairwise((self.multipliers[-1], *reversed(self.multipliers))))
        for stage, (narrow, wide) in enumerate(down, start=1):
            if narrow * self._volume(stage) % wide:
                raise ValueError(f"multipliers grow from {narrow} to {wide} in stage {stage}, {self._remedy(stage)}")
        # A decoder stage that doubles nothing, as the last one, has no shortcut.
        for stage, (wide, narrow) in zip(range(len(up) - 1, 0, -1), up, strict=False):
            if self._volume(stage) > 1 and narrow * self._volume(stage) % wide:
                raise ValueError(
                    f"multipliers shrink from {wide} to {narrow} where the decoder undoes stage {stage}, "
                    f"{self._remedy(stage)}"
                )

    def _remedy(self, stage: int) -> str:
        return f"expected a divisor of what its shortcut has, {self._volume(stage)} times as much"

    def _volume(self, stage: int) -> int:
        time, space = self.factor(stage)
        return time * space**2

    def factor(self, stage: int) -> tuple[int, int]:
        """(time, space) factor of an encoder stage, counted from 1."""
        return 2 if stage in self.halve_time else 1, 2 if stage in self.halve_space else 1

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per token in (time, height, width)."""
        space = self.patch * 2 ** len(self.halve_space)
        return 2 ** len(self.halve_time), space, space


class Encoder(nn.Module):
    """Patches of pixels to the moments of a token: 2C channels, of which the first C are the mean."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.encoder_width * m for m in (1, *config.multipliers)]
        self.stem = CausalConv3d(3 * config.patch**2, widths[0], (3, 3, 3))
        self.stages = nn.ModuleList(
            EncoderStage(a, b, config.encoder_blocks, config.factor(stage))
            for stage, (a, b) in enumerate(itertools.pairwise(widths), start=1)
        )
        self.middle = Middle(widths[-1], attention=config.attention)
        self.head = ConvHead(widths[-1], 2 * config.channels)

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, 3*patch^2, T, H, W]`` to ``[B, 2C, T', H', W']``."""
        x = self.stem(x, history)
        for stage in self.stages:
            x = stage(x, history)
        return self._close(x, history)

    def stream(self, pieces: Iterable[Part]) -> Iterator[Part]:
        """The same for a clip that arrives in pieces, each of the first frame and/or strides in time."""
        history = History()
        for piece in pieces:
            for number, stage in enumerate(self.stages):
                assert isinstance(stage, EncoderStage)
                parts = piece.cut(frames_within(piece.x, stage.widest, MOST_ENCODED), stage.time)
                done = through(stage if number else self._open, parts, history)
                piece = Part(join(part.x for part in done), piece.first, piece.last)
            yield from through(self._close, [piece], history)

    def _open(self, x: Tensor, history: History | None) -> Tensor:
        """Stem and first stage: the stem has as many channels."""
        opened: Tensor = self.stages[0](self.stem(x, history), history)
        return opened

    def _close(self, x: Tensor, history: History | None) -> Tensor:
        moments: Tensor = self.head(self.middle(x, history), history)
        return moments


class Decoder(nn.Module):
    """Quantized features to patches of pixels; the encoder's stages in reverse, the last of them without doubling."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.decoder_width * m for m in (config.multipliers[-1], *reversed(config.multipliers))]
        factors = [config.factor(stage) for stage in range(len(config.multipliers) - 1, 0, -1)] + [(1, 1)]
        self.stem = CausalConv3d(config.channels, widths[0], (3, 3, 3))
        self.middle = Middle(widths[0], attention=config.attention)
        self.stages = nn.ModuleList(
            DecoderStage(a, b, config.decoder_blocks, factor)
            for a, b, factor in zip(widths, widths[1:], factors, strict=False)
        )
        self.head = ConvHead(widths[-1], 3 * config.patch**2)

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T', H', W']`` to ``[B, 3*patch^2, T, H, W]``."""
        x = self._open(x, history)
        for stage in self.stages:
            x = stage(x, history)
        return self.head(x, history)

    def stream(self, pieces: Iterable[Part]) -> Iterator[Part]:
        """The same for a clip that arrives in pieces; its parts may be shorter, and are made when asked for."""
        history = History()
        parts = through(self._open, pieces, history)
        for stage in self.stages:
            assert isinstance(stage, DecoderStage)
            parts = through(stage, cut_within(parts, stage.widest, MOST_DECODED), history)
        return through(self.head, parts, history)

    def _open(self, x: Tensor, history: History | None) -> Tensor:
        opened: Tensor = self.middle(self.stem(x, history), history)
        return opened


class Tokenizer(nn.Module):
    """Pixels to features in (-1, 1) and back.

    Parameters
    ----------
    config : sizes of the network
    rounds : M, how many bits each feature is quantized to; None for the continuous baseline
    """

    def __init__(self, config: TokenizerConfig, rounds: int | None) -> None:
        super().__init__()
        self.config = config
        self.rounds = rounds
        self.encoder = Encoder(config)
        self.to_moments = CausalConv3d(2 * config.channels, 2 * config.channels, (1, 1, 1))
        self.from_feature = CausalConv3d(config.channels, config.channels, (1, 1, 1))
        self.decoder = Decoder(config)
        init_weights(self)

    @property
    def stride(self) -> tuple[int, int, int]:
        """Pixels per token in (time, height, width)."""
        return self.config.stride

    @property
    def channels(self) -> int:
        """C, the features per token."""
        return self.config.channels

    def encode(self, x: Tensor, piece: int | None = None) -> Tensor:
        """Features of images or clips.

        Parameters
        ----------
        x : float in [-1, 1] or uint8, ``[B, 3, 1 + s*T, H, W]``, s the stride in time (an image has one frame);
            H and W multiples of the stride
        piece : latent frames a pass; by default whole for short clips and bounded in memory for long ones

        Returns
        -------
        float ``[B, C, 1 + T, h, w]`` in (-1, 1). The result does not depend on ``piece`` beyond rounding.

        Raises
        ------
        ValueError
            If a size does not fit the stride.
        """
        self._check_pixels(x)
        piece = piece or self._default_piece(x.shape[0] * x.shape[3] * x.shape[4])
        patches = (
            Part(patchify(to_range(part.x), self.config.patch), part.first, part.last)
            for part in pieces(x, piece * self.stride[0])
        )
        return join(self._feature(moments.x) for moments in self.encoder.stream(patches))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Features ``[B, C, 1 + T, h, w]`` of uint8 frames ``[B, 1 + s*T, H, W, 3]``, bounded in memory whatever B.

        Raises
        ------
        ValueError
            If a size does not fit the stride.
        """
        x = rearrange(frames, "b t h w c -> b c t h w")
        return torch.cat([self.encode(group) for group in torch.split(x, self._most_samples(x.shape[3] * x.shape[4]))])

    def _feature(self, moments: Tensor) -> Tensor:
        return torch.tanh(self.to_moments(moments)[:, : self.channels].float())

    def decode(self, feature: Tensor, piece: int | None = None, *, clamp: bool = True) -> Tensor:
        """Pixels of features (quantized or not).

        Parameters
        ----------
        feature : float ``[B, C, 1 + T, h, w]`` in [-1, 1]
        piece : latent frames a pass, as for ``encode``
        clamp : limit the result to [-1, 1]; off for a training loss

        Returns
        -------
        float ``[B, 3, 1 + s*T, H, W]``.
        """
        return join(self.decode_parts(feature, piece, clamp=clamp))

    def decode_parts(self, feature: Tensor, piece: int | None = None, *, clamp: bool = True) -> Iterator[Tensor]:
        """What ``decode`` gives, in consecutive parts of a few frames, each made when it is asked for.

        To be exhausted in the gradient mode in which it starts.
        """
        self._check_feature(feature)
        piece = piece or self._default_piece(feature.shape[0] * self._pixels(feature))
        tokens = (Part(self.from_feature(part.x), part.first, part.last) for part in pieces(feature, piece))
        for part in self.decoder.stream(tokens):
            x = unpatchify(part.x, self.config.patch)
            yield x.clamp_(-1, 1) if clamp else x

    def decode_frames(self, feature: Tensor) -> Tensor:
        """uint8 frames ``[B, 1 + s*T, H, W, 3]`` of features ``[B, C, 1 + T, h, w]``, bounded in memory whatever B."""
        self._check_feature(feature)
        samples, _, latents, height, width = feature.shape
        time, *sides = self.stride
        size = samples, 1 + time * (latents - 1), height * sides[0], width * sides[1], 3
        frames = torch.empty(size, dtype=torch.uint8, device=feature.device)
        count = self._most_samples(self._pixels(feature))
        for group, target in zip(torch.split(feature, count), torch.split(frames, count), strict=True):
            done = 0
            for x in self.decode_parts(group):
                target[:, done : done + x.shape[2]] = to_frames(x)
                done += x.shape[2]
        return frames

    def feature_shape(self, x: Tensor) -> tuple[int, int, int, int]:
        """``(C, 1 + T, h, w)`` of the features of images or clips ``[B, 3, 1 + s*T, H, W]``."""
        time, height, width = self.stride
        return self.channels, 1 + (x.shape[2] - 1) // time, x.shape[3] // height, x.shape[4] // width

    def forward(self, x: Tensor, rounds: int | None = None, flips: Tensor | None = None) -> Tensor:
        """Reconstruction of ``x`` through the quantizer, unclamped, with straight-through gradients (Algorithm 1).

        Parameters
        ----------
        rounds : how many to quantize to, by default all that the tokenizer has
        flips : uint8 ``[B, *feature_shape(x)]``, bits that the decoder gets wrong, see `straight_through`
        """
        whole = torch.is_grad_enabled()  # gradients keep all activations anyway, and compiled networks see one shape
        if whole:
            self._check_pixels(x)
        feature = self._feature(self.encoder(patchify(x, self.config.patch))) if whole else self.encode(x)
        rounds = self.rounds if rounds is None else rounds
        if rounds is not None:
            feature = straight_through(feature, rounds, flips)
        if whole:
            return unpatchify(self.decoder(self.from_feature(feature)), self.config.patch)
        return self.decode(feature, clamp=False)

    def _pixels(self, feature: Tensor) -> int:
        """Pixels of a frame."""
        _, height, width = self.stride
        return feature.shape[-2] * height * feature.shape[-1] * width

    def _most_samples(self, pixels_per_frame: int) -> int:
        """Samples of the largest pass of single frames within the memory bound, at least one."""
        return max(1, WHOLE_CLIP_PIXELS // max(1, pixels_per_frame))

    def _default_piece(self, pixels_per_frame: int) -> int:
        """Latent frames of the largest pass within the memory bound, at least one."""
        return max(1, WHOLE_CLIP_PIXELS // (pixels_per_frame * self.stride[0]))

    def _check_feature(self, feature: Tensor) -> None:
        if feature.dim() != 5 or feature.shape[1] != self.channels:
            raise ValueError(f"features have shape {list(feature.shape)}, expected [B, {self.channels}, 1+T, h, w]")

    def _check_pixels(self, x: Tensor) -> None:
        if x.dim() != 5 or x.shape[1] != 3:
            raise ValueError(f"pixels have shape {list(x.shape)}, expected [B, 3, frames, H, W]")
        time, height, width = self.stride
        if (x.shape[2] - 1) % time:
            raise ValueError(f"a clip has {x.shape[2]} frames, expected 1 + {time}n")
        if x.shape[3] % height or x.shape[4] % width:
            raise ValueError(f"frames are {x.shape[3]}x{x.shape[4]}, expected multiples of the stride {height}x{width}")


def patchify(x: Tensor, patch: int) -> Tensor:
    """Fold blocks of pixels into channels, ordered by colour, then x, then y offset."""
    return rearrange(x, "b c t (h q) (w r) -> b (c r q) t h w", q=patch, r=patch)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Inverse of ``patchify``."""
    return rearrange(x, "b (c r q) t h w -> b c t (h q) (w r)", q=patch, r=patch)


def to_input(frames: Tensor) -> Tensor:
    """Frames as decoded, uint8 ``[B, T, H, W, 3]``, to the network's input: float ``[B, 3, T, H, W]`` in [-1, 1]."""
    return to_range(rearrange(frames, "b t h w c -> b c t h w"))


def to_range(x: Tensor) -> Tensor:
    """uint8 of any shape to float in [-1, 1]; floats stay as they are."""
    return x.contiguous().to(torch.float32).div_(127.5).sub_(1) if x.dtype == torch.uint8 else x


def to_frames(x: Tensor) -> Tensor:
    """The network's output, float ``[B, 3, T, H, W]`` in [-1, 1], to uint8 frames ``[B, T, H, W, 3]``."""
    levels = x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(levels, "b c t h w -> b t h w c").contiguous()
