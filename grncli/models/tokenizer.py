"""The visual tokenizer: a causal video autoencoder whose features in (-1, 1) HBQ turns into bits (paper section 3.1).

Particular about it: one network for images and clips (a clip is one frame plus pieces of ``stride[0]`` frames);
a first patchify, so that three halvings give stride 16; a parameter-free shortcut round every stage; tanh features;
long clips pass in pieces of bounded memory.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from grncli.hbq import straight_through
from grncli.models.layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    History,
    ResidualBlock,
    Upsample,
    fold_shortcut,
    unfold_shortcut,
)
from grncli.runtime.jsonfiles import brief

# Input pixels (batch x frames x height x width) up to which a clip passes whole. The released network holds about
# 1 kB of activations per pixel at a time, so this bounds it near 2 GB.
WHOLE_CLIP_PIXELS = 2**21
# Beyond what anybody trains; larger numbers are mistakes, and building their network would take minutes or all memory.
MAX_STAGES, MAX_MULTIPLIER = 12, 256
MOST = {"patch": 64, "encoder_blocks": 256, "decoder_blocks": 256}
MOST |= dict.fromkeys(("channels", "encoder_width", "decoder_width"), 1 << 14)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the network, named as in the recipe. The defaults are the released image tokenizer."""

    type: Literal["causal_conv"] = "causal_conv"
    channels: int = 16  # C, features per token
    patch: int = 2  # side of the pixel block folded into channels first
    encoder_width: int = 160
    decoder_width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # width of each stage
    encoder_blocks: int = 2  # residual blocks a stage
    decoder_blocks: int = 3
    halve_space: tuple[int, ...] = (1, 2, 3)  # encoder stages, from 1, that end in a halving; the decoder mirrors them
    halve_time: tuple[int, ...] = (2, 3)
    attention: bool = True  # in the middle; some checkpoints were trained with it left out

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


class Stage(nn.Module):
    """Residual blocks, and by what factor (time, space) the stage changes the resolution."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, factor: tuple[int, int]) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in itertools.pairwise(widths))
        self.time, self.space = factor
        self.channels = out_channels


class EncoderStage(Stage):
    """Residual blocks, then a halving, with the folding shortcut round both."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, factor: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, blocks, factor)
        time, space = factor
        self.down = Downsample(out_channels, space=space > 1, time=time > 1) if max(factor) > 1 else None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C', T/time, H/space, W/space]``."""
        shortcut = fold_shortcut(x, self.channels, space=self.space, time=self.time, history=history)
        for block in self.blocks:
            x = block(x, history)
        return shortcut + (x if self.down is None else self.down(x, history))


class DecoderStage(Stage):
    """Residual blocks, then a doubling, with the unfolding shortcut round both (none where nothing doubles)."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, factor: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, blocks, factor)
        time, space = factor
        self.up = Upsample(out_channels, space=space > 1, time=time > 1) if max(factor) > 1 else None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C', T*time, H*space, W*space]``."""
        source = x
        for block in self.blocks:
            x = block(x, history)
        if self.up is None:
            return x
        shortcut = unfold_shortcut(source, self.channels, space=self.space, time=self.time, history=history)
        return shortcut + self.up(x, history)


class Middle(nn.Module):
    """Residual block, attention within frames, residual block."""

    def __init__(self, channels: int, *, attention: bool) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels)
        self.attention = FrameAttention(channels) if attention else None
        self.block2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to the same shape."""
        x = self.block1(x, history)
        if self.attention is not None:
            x = self.attention(x)
        return self.block2(x, history)


class ConvHead(nn.Module):
    """Norm, SiLU, conv."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(in_channels)
        self.conv = CausalConv3d(in_channels, out_channels, (3, 3, 3))

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C', T, H, W]``."""
        return self.conv(F.silu(self.norm(x)), history)


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
        return self.head(self.middle(x, history), history)


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
        x = self.middle(self.stem(x, history), history)
        for stage in self.stages:
            x = stage(x, history)
        return self.head(x, history)


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
        x : float ``[B, 3, 1 + s*T, H, W]`` in [-1, 1], s the stride in time (an image has one frame);
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
        history = History() if 1 + piece * self.stride[0] < x.shape[2] else None
        features = []
        for frames in pieces(x, piece * self.stride[0]):
            moments = self.to_moments(self.encoder(patchify(frames, self.config.patch), history))
            features.append(torch.tanh(moments[:, : self.channels].float()))
            if history is not None:
                history.first = False
        return torch.cat(features, dim=2)

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
        if feature.dim() != 5 or feature.shape[1] != self.channels:
            raise ValueError(f"features have shape {list(feature.shape)}, expected [B, {self.channels}, 1+T, h, w]")
        _, height, width = self.stride
        piece = piece or self._default_piece(feature.shape[0] * feature.shape[3] * height * feature.shape[4] * width)
        history = History() if 1 + piece < feature.shape[2] else None
        pixels = []
        for tokens in pieces(feature, piece):
            pixels.append(unpatchify(self.decoder(self.from_feature(tokens), history), self.config.patch))
            if history is not None:
                history.first = False
        x = torch.cat(pixels, dim=2)
        return x.clamp_(-1, 1) if clamp else x

    def forward(self, x: Tensor, rounds: int | None = None) -> Tensor:
        """Reconstruction of ``x`` through the quantizer, unclamped, with straight-through gradients (Algorithm 1).

        ``rounds`` is how many to quantize to, by default all that the tokenizer has.
        """
        feature = self.encode(x, piece=x.shape[2])
        rounds = self.rounds if rounds is None else rounds
        if rounds is not None:
            feature = straight_through(feature, rounds)
        return self.decode(feature, piece=x.shape[2], clamp=False)

    def _default_piece(self, pixels_per_frame: int) -> int:
        """Latent frames of the largest pass within the memory bound, at least one."""
        return max(1, WHOLE_CLIP_PIXELS // (pixels_per_frame * self.stride[0]))

    def _check_pixels(self, x: Tensor) -> None:
        if x.dim() != 5 or x.shape[1] != 3:
            raise ValueError(f"pixels have shape {list(x.shape)}, expected [B, 3, frames, H, W]")
        time, height, width = self.stride
        if (x.shape[2] - 1) % time:
            raise ValueError(f"a clip has {x.shape[2]} frames, expected 1 + {time}n")
        if x.shape[3] % height or x.shape[4] % width:
            raise ValueError(f"frames are {x.shape[3]}x{x.shape[4]}, expected multiples of the stride {height}x{width}")


def init_weights(network: nn.Module) -> None:
    """Start as a network of single frames that keeps the variance of its signals.

    Causal kernels start with zeros before the slice that sees the present frame. PyTorch's own start counts the slices
    that meet only zeros in an image, and leaves its signals too faint by a factor of 3 a layer.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, CausalConv3d):
            with torch.no_grad():
                module.weight[:, :, :-1] = 0
                module.weight *= module.kernel_size[0] ** 0.5
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            with torch.no_grad():
                module.conv2.weight *= 0.5  # the shortcuts carry most of the signal at first


def pieces(x: Tensor, frames: int) -> Iterator[Tensor]:
    """Cut ``[B, C, T, H, W]`` along time: first ``1 + frames`` frames, then ``frames`` at a time."""
    yield x[:, :, : 1 + frames]
    for start in range(ceil((x.shape[2] - 1 - frames) / frames)):
        begin = 1 + frames * (start + 1)
        yield x[:, :, begin : begin + frames]


def patchify(x: Tensor, patch: int) -> Tensor:
    """Fold blocks of pixels into channels, ordered by colour, then x, then y offset."""
    return rearrange(x, "b c t (h q) (w r) -> b (c r q) t h w", q=patch, r=patch)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Inverse of ``patchify``."""
    return rearrange(x, "b (c r q) t h w -> b c t (h q) (w r)", q=patch, r=patch)


def to_input(frames: Tensor) -> Tensor:
    """Frames as decoded, uint8 ``[B, T, H, W, 3]``, to the network's input: float ``[B, 3, T, H, W]`` in [-1, 1]."""
    return rearrange(frames, "b t h w c -> b c t h w").contiguous().to(torch.float32).div_(127.5).sub_(1)


def to_frames(x: Tensor) -> Tensor:
    """The network's output, float ``[B, 3, T, H, W]`` in [-1, 1], to uint8 frames ``[B, T, H, W, 3]``."""
    levels = x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(levels, "b c t h w -> b t h w c").contiguous()
