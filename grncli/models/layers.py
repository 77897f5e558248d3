"""Layers of the causal video network: convolutions that see only the past, norm, attention, and resampling.

Everything works on ``[B, C, T, H, W]``. A layer that looks back in time takes an optional ``History``: without one the
input is a whole clip; with one it is the next part of a clip, and the layer finds there the frames it saw last.
Both give the same numbers (facts: "a whole-clip pass with causal padding gives the same numbers").
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from grncli.models.streaming import History, is_first


class CausalConv3d(nn.Conv3d):
    """3D convolution, symmetric in space, that pads time on the past side only."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.past = kernel[0] - 1
        self.keeps_slice = True
        self._last_slice: tuple[int, int, Tensor] | None = None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C', T, H, W]``; what lies before the clip's first frame is zero."""
        frames = x.shape[2]
        if history is not None and self.past:
            x = history.extend(self, x, self.past)
        if x.shape[2] == 1:
            # Only the kernel's last slice meets a lone first frame; the others meet zeros.
            return F.conv2d(x.squeeze(2), self._present(), self.bias, padding=self.padding[1:]).unsqueeze(2)
        missing = self.past + frames - x.shape[2]
        if missing:
            x = F.pad(x, (0, 0, 0, 0, missing, 0))
        return super().forward(x)

    def _present(self) -> Tensor:
        """The kernel's last slice in time ``[C', C, kh, kw]``; for inference a contiguous copy, made once.

        Gathering the slice at every call costs as much as the convolution itself on small images.
        """
        if self.past == 0 or torch.is_grad_enabled() or not self.keeps_slice:
            return self.weight[:, :, -1]
        # Tensors made in inference mode have no version: they do not change in place outside of it.
        version = 0 if self.weight.is_inference() else self.weight._version
        if self._last_slice is None or self._last_slice[:2] != (self.weight.data_ptr(), version):
            self._last_slice = self.weight.data_ptr(), version, self.weight[:, :, -1].contiguous()
        return self._last_slice[2]


class ChannelNorm(nn.Module):
    """Scale each pixel's channel vector to length sqrt(C), then by a learned gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, ...]`` to the same shape."""
        # Ten times quicker on a CPU than F.normalize, which reduces over a strided dimension slowly.
        scale = x.square().sum(dim=1, keepdim=True).clamp_min_(1e-24).rsqrt_()
        gain = self.gain * self.gain.numel() ** 0.5
        return x * scale * gain.view(-1, *[1] * (x.dim() - 2))


def silu(x: Tensor) -> Tensor:
    """SiLU of an activation that nothing else reads: in place where no gradient needs it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv, norm, SiLU, conv, plus the input (through a 1x1x1 conv where the widths differ)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, (3, 3, 3))
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, (3, 3, 3))
        self.shortcut = CausalConv3d(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, T, H, W]`` to ``[B, C', T, H, W]``."""
        inner = self.conv1(silu(self.norm1(x)), history)
        inner = self.conv2(silu(self.norm2(inner)), history)
        return inner + (x if self.shortcut is None else self.shortcut(x))


class FrameAttention(nn.Module):
    """Single-head full attention over the pixels of each frame, with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to the same shape."""

        def attend(frames: Tensor) -> Tensor:
            height = frames.shape[2]
            # Contiguous, because only then attention takes the path whose memory does not grow with (h w)^2.
            q, k, v = rearrange(
                self.qkv(self.norm(frames)), "n (three c) h w -> three n 1 (h w) c", three=3
            ).contiguous()
            mixed = F.scaled_dot_product_attention(q, k, v)
            return self.projection(rearrange(mixed, "n 1 (h w) c -> n c h w", h=height))

        return x + per_frame(attend, x)


class Downsample(nn.Module):
    """Halve space (conv 3x3 stride 2, padded right and bottom) and/or time (conv of 3 frames, stride 2, unpadded)."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(channels, channels, 3, stride=2) if space else None
        self.time = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, 1+2n, H, W]`` to ``[B, C, 1+n, H/2, W/2]`` (a later part: 2n frames to n)."""
        if self.space is not None:
            space = self.space
            x = per_frame(lambda frames: space(F.pad(frames, (0, 1, 0, 1))), x)
        if self.time is None:
            return x
        # The first frame passes through untouched, and is also the first one the convolution sees.
        passed = x[:, :, :1] if is_first(history) else None
        if history is not None:
            x = history.extend(self, x, 1)
        if passed is None:
            return self.time(x)
        return passed if x.shape[2] == 1 else torch.cat([passed, self.time(x)], dim=2)


class Upsample(nn.Module):
    """Double time (causal conv to two frames' channels) and/or space (nearest, then conv 3x3)."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.time = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if time else None
        self.space = nn.Conv2d(channels, channels, 3, padding=1) if space else None

    def forward(self, x: Tensor, history: History | None = None) -> Tensor:
        """``[B, C, 1+n, H, W]`` to ``[B, C, 1+2n, 2H, 2W]`` (a later part: n frames to 2n)."""
        if self.time is not None:
            # The first frame passes through, unseen by the convolution: its history starts at frame 2.
            passed, later = (x[:, :, :1], x[:, :, 1:]) if is_first(history) else (x[:, :, :0], x)
            if later.shape[2]:
                later = rearrange(self.time(later, history), "b (p c) t h w -> b c (t p) h w", p=2)
            x = torch.cat([passed, later], dim=2)
        if self.space is not None:
            space = self.space
            x = per_frame(lambda frames: space(F.interpolate(frames, scale_factor=2.0, mode="nearest-exact")), x)
        return x


def fold_shortcut(x: Tensor, channels: int, *, space: int, time: int, history: History | None) -> Tensor:
    """Parameter-free way down: fold space and time into channels, then average groups of them to ``channels``.

    Time is padded by zeros in front of the clip to a multiple of ``time``.
    """
    if is_first(history):
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    x = rearrange(x, "b c (t p) (h q) (w r) -> b (c p q r) t h w", p=time, q=space, r=space)
    return reduce(x, "b (c g) t h w -> b c t h w", "mean", c=channels)


def unfold_shortcut(x: Tensor, channels: int, *, space: int, time: int, history: History | None) -> Tensor:
    """Parameter-free way up: repeat channels, then unfold them into space and time.

    The frames before the clip's first real one are dropped.
    """
    repeats = channels * time * space * space // x.shape[1]
    x = repeat(x, "b c t h w -> b (c g) t h w", g=repeats)
    x = rearrange(x, "b (c p q r) t h w -> b c (t p) (h q) (w r)", p=time, q=space, r=space)
    return x[:, :, time - 1 :] if is_first(history) else x


def per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of images ``[N, C, H, W]`` to every frame of ``[B, C, T, H, W]``."""
    batch = x.shape[0]
    return rearrange(function(rearrange(x, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", b=batch)
