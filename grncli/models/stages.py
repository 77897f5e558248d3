"""What the tokenizer's encoder and decoder are made of: stages that halve or double, middle, head, first weights."""

import itertools

import torch
from torch import Tensor, nn

from grncli.models.layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    ResidualBlock,
    Upsample,
    fold_shortcut,
    silu,
    unfold_shortcut,
)
from grncli.models.streaming import History


class Stage(nn.Module):
    """Residual blocks, and by what factor (time, space) the stage changes the resolution."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, factor: tuple[int, int]) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in itertools.pairwise(widths))
        self.time, self.space = factor
        self.channels = out_channels
        self.widest: int = max(in_channels, out_channels)  # elements of the largest activation per pixel of the input


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
        self.widest = max(self.widest, out_channels * time * space**2)
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
        return self.conv(silu(self.norm(x)), history)


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
