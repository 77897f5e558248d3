"""LPIPS v0.1, the learned perceptual distance of pictures.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric". Both pictures go through
the same image classifier; at five of its layers the features of each pixel are scaled to length 1 over the channels,
and the squared differences are weighted by channel (the heads, fitted to human judgments) and averaged over pixels.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

Network = Literal["vgg", "alex"]

TAPS: Mapping[Network, tuple[int, ...]] = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}  # the ReLUs compared
WIDTHS: Mapping[Network, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
LEAST: Mapping[Network, int] = {"vgg": 16, "alex": 31}  # height and width that leave a pixel at the last one


class LPIPS(nn.Module):
    """Distance of two pictures in the features of VGG16 or AlexNet.

    The parameters are named ``features.N.weight``, ``features.N.bias`` as in torchvision, and ``heads.N.weight``. They
    are frozen and the module stays in evaluation mode; gradients reach the pictures. A new one has random weights and
    measures nothing: see `grncli.metrics.lpips_weights`. Call it outside autocast: half precision loses small
    differences.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network = "vgg") -> None:
        super().__init__()
        self.network = network
        self.features = _vgg16() if network == "vgg" else _alexnet()
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in WIDTHS[network])
        for name, values in (("shift", (-0.030, -0.088, -0.188)), ("scale", (0.458, 0.448, 0.450))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in evaluation mode, also as part of a module that is switched to training."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each pair.

        Parameters
        ----------
        x, y : float ``[B, 3, H, W]`` or ``[B, 3, T, H, W]`` in [-1, 1]; at least 16x16 pixels for VGG16, 31x31 for
            AlexNet

        Returns
        -------
        float ``[B]``, 0 for equal pictures; for clips the mean over their frames.

        Raises
        ------
        ValueError
            If the shapes differ, are none of these, or are too small.
        """
        self._check(x, y)
        if x.dim() == 4:
            return self._distance(x, y)
        frames = self._distance(rearrange(x, "b c t h w -> (b t) c h w"), rearrange(y, "b c t h w -> (b t) c h w"))
        return frames.view(x.shape[0], x.shape[2]).mean(dim=1)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        # Apart, not as one batch: a picture that asks for no gradient then keeps no activations.
        x, y = (x - self.shift) / self.scale, (y - self.shift) / self.scale
        total = x.new_zeros(())
        heads = dict(zip(TAPS[self.network], self.heads, strict=True))
        for place, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if place in heads:
                difference = (_unit(x) - _unit(y)).square()
                total = total + heads[place](difference).mean(dim=(1, 2, 3))
        return total

    def _check(self, x: Tensor, y: Tensor) -> None:
        least = LEAST[self.network]
        if x.shape != y.shape or x.dim() not in (4, 5) or x.shape[1] != 3:
            wanted = "two of one shape, [B, 3, H, W] or [B, 3, T, H, W]"
            raise ValueError(f"LPIPS was given {list(x.shape)} and {list(y.shape)}, expected {wanted}")
        if min(x.shape[-2:]) < least:
            raise ValueError(f"LPIPS was given {x.shape[-2]}x{x.shape[-1]} pixels, it needs {least}x{least} or more")


def _unit(features: Tensor) -> Tensor:
    """``[N, C, h, w]`` scaled to length 1 over the channels; what is all zero stays so."""
    squares = features.square().sum(dim=1, keepdim=True)
    # Squares of faint features underflow to zero, where the root has an infinite slope; unbounded, gradients are NaN.
    return features / (squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt() + 1e-10)


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    )
