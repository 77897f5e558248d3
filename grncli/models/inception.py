"""Inception v3 as TensorFlow's graph of 2015-12-05 has it: the network that the FID is defined with.

Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"; Heusel et al. 2017 for the FID. Unlike
torchvision's, it resizes as TensorFlow 1 did, its average pools do not count the padding, its last block pools by
maximum, and it tells 1,008 classes apart.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299  # pixels, height and width that the graph resizes to
FEATURES, CLASSES = 2048, 1008

Kernel = tuple[int, int]
# Output channels and kernel of one convolution; two kernels are two convolutions of one input, side by side.
Step = tuple[int, Sequence[Kernel]]
Branches = Mapping[str, Sequence[Step]]

POINT, THREE, FIVE = [(1, 1)], [(3, 3)], [(5, 5)]
WIDE, TALL, CROSS = [(1, 7)], [(7, 1)], [(1, 3), (3, 1)]


def _local(pooled: int) -> Branches:
    return {
        "branch1x1": [(64, POINT)],
        "branch5x5": [(48, POINT), (64, FIVE)],
        "branch3x3dbl": [(64, POINT), (96, THREE), (96, THREE)],
        "branch_pool": [(pooled, POINT)],
    }


def _factorized(width: int) -> Branches:
    return {
        "branch1x1": [(192, POINT)],
        "branch7x7": [(width, POINT), (width, WIDE), (192, TALL)],
        "branch7x7dbl": [(width, POINT), (width, TALL), (width, WIDE), (width, TALL), (192, WIDE)],
        "branch_pool": [(192, POINT)],
    }


_EXPANDED: Branches = {
    "branch1x1": [(320, POINT)],
    "branch3x3": [(384, POINT), (384, CROSS)],
    "branch3x3dbl": [(448, POINT), (384, THREE), (384, CROSS)],
    "branch_pool": [(192, POINT)],
}
BLOCKS: Mapping[str, Branches] = {  # those without branch_pool halve the resolution
    "Mixed_5b": _local(32),
    "Mixed_5c": _local(64),
    "Mixed_5d": _local(64),
    "Mixed_6a": {"branch3x3": [(384, THREE)], "branch3x3dbl": [(64, POINT), (96, THREE), (96, THREE)]},
    "Mixed_6b": _factorized(128),
    "Mixed_6c": _factorized(160),
    "Mixed_6d": _factorized(160),
    "Mixed_6e": _factorized(192),
    "Mixed_7a": {
        "branch3x3": [(192, POINT), (320, THREE)],
        "branch7x7x3": [(192, POINT), (192, WIDE), (192, TALL), (192, THREE)],
    },
    "Mixed_7b": _EXPANDED,
    "Mixed_7c": _EXPANDED,
}
MAXIMUM = "Mixed_7c"  # the block whose pooling branch does not average


class InceptionV3(nn.Module):
    """Pictures to features and class logits.

    Parameters and buffers are named as in the weights of torch-fidelity. They are frozen and the module stays in
    evaluation mode. A new one has random weights and measures nothing. Call it outside autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, (3, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, (3, 3), padded=False)
        channels = 192
        for name, branches in BLOCKS.items():
            block = Mixed(channels, branches, maximum=name == MAXIMUM)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "InceptionV3":
        """Stay in evaluation mode, also as part of a module that is switched to training."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and logits without the bias of the last layer, as the Inception Score takes them.

        Parameters
        ----------
        pictures : uint8 ``[B, 3, H, W]`` of any size

        Returns
        -------
        float ``[B, 2048]`` and float ``[B, 1008]``.

        Raises
        ------
        ValueError
            If ``pictures`` has another shape or type.
        """
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[1] != 3:
            raise ValueError(
                f"Inception was given {list(pictures.shape)} in {pictures.dtype}, expected uint8 [B, 3, H, W]"
            )
        x = resize_like_tensorflow(pictures.to(self.fc.weight.dtype), SIDE)
        x = (x - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        features = x.mean(dim=(2, 3))
        return features, features @ self.fc.weight.T


class Mixed(nn.Module):
    """Branches of convolutions side by side, and one over a pooled input; ``channels`` is how many come out."""

    def __init__(self, channels: int, branches: Branches, *, maximum: bool = False) -> None:
        super().__init__()
        self.halves = "branch_pool" not in branches
        self.maximum = maximum
        self.branches = {name: self._add_branch(name, channels, steps) for name, steps in branches.items()}
        self.channels = channels if self.halves else 0
        self.channels += sum(steps[-1][0] * len(steps[-1][1]) for steps in branches.values())

    def _add_branch(self, name: str, channels: int, steps: Sequence[Step]) -> list[list[str]]:
        """Make its convolutions; the names of those of each step."""
        names = []
        for place, (width, kernels) in enumerate(steps, start=1):
            numbered = name if len(steps) == 1 else f"{name}_{place}"
            letters = "ab" if len(kernels) > 1 else [""]
            names.append([numbered + letter for letter in letters])
            halves = self.halves and place == len(steps)
            for convolution, kernel in zip(names[-1], kernels, strict=True):
                made = ConvNorm(channels, width, kernel, stride=2 if halves else 1, padded=not halves)
                self.add_module(convolution, made)
            channels = width
        return names

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H, W]``, or to half the height and width."""
        outputs = []
        for branch, steps in self.branches.items():
            parts = [self._pool(x) if branch == "branch_pool" else x]
            for names in steps:  # only the last one has two parts
                parts = [self.get_submodule(name)(parts[0]) for name in names]
            outputs += parts
        if self.halves:
            outputs.append(F.max_pool2d(x, 3, stride=2))
        return torch.cat(outputs, dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        if self.maximum:
            return F.max_pool2d(x, 3, stride=1, padding=1)
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, channels: int, width: int, kernel: Kernel, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H', W']``."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def resize_like_tensorflow(x: Tensor, side: int) -> Tensor:
    """Bilinear resizing of TensorFlow 1: output pixel i lies at i * size / side of the input, without half a pixel.

    Parameters
    ----------
    x : float ``[B, C, H, W]``
    side : height and width of the result

    Returns
    -------
    float ``[B, C, side, side]``. No smoothing: much smaller results alias, and the FID is defined so.
    """
    for dim in (3, 2):
        size = x.shape[dim]
        place = torch.arange(side, device=x.device, dtype=x.dtype) * (size / side)
        low = place.long()
        share = (place - low).view(-1, *[1] * (3 - dim))
        near, far = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp_max(size - 1))
        x = near + (far - near) * share
    return x
