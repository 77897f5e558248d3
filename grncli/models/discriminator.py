"""Discriminators of tokenizer training: patches of frames, patches of clips, and the hinge losses.

The network is the PatchGAN of pix2pix (Isola et al. 2017) as taming-transformers (Esser et al. 2021) builds it, with
its parameter names (``main.N.weight``). Every logit judges one patch, 70x70 pixels at three strided layers.

Batch norm ties the logits of a call together. In training mode each picture is judged by the mean and spread of
everything in that call (all frames of all clips; a batch of one will do), so real and restored pictures go in by calls
of their own, as the field does it. Each such call also moves the running statistics, which are part of the state dict;
only evaluation mode uses them, and only there a picture's logits do not depend on its company.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grncli.models.layers import per_frame


class PatchDiscriminator(nn.Module):
    """2D PatchGAN that sees each frame on its own.

    Parameters
    ----------
    width : channels of the first layer; each later one has twice as many, up to eight times this
    layers : strided layers, each halving height and width
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.least = (1, *_least_sides(layers))
        self.main = _patchgan(nn.Conv2d, nn.BatchNorm2d, width, kernel=(4, 4), strides=[(2, 2)] * layers)

    def forward(self, frames: Tensor) -> Tensor:
        """Judge every patch of every frame.

        Parameters
        ----------
        frames : float ``[B, 3, T, H, W]`` in [-1, 1], at least 24x24 pixels at three layers

        Returns
        -------
        float logits ``[B, 1, T, h, w]`` with ``h = H // 2**layers - 2``, high where a patch looks real.

        Raises
        ------
        ValueError
            If the frames are too small to have a patch.
        """
        _check_size(frames, self.least)
        return per_frame(self.main, frames)


class ClipDiscriminator(nn.Module):
    """3D PatchGAN that also sees time.

    Kernels span three frames, padded by one on both sides, and the first two strided layers halve time as well:
    ``1 + 4n`` frames give ``1 + n`` logits in time, the frames of the tokenizer's feature. A logit looks at 31 frames.

    Parameters
    ----------
    width : channels of the first layer; each later one has twice as many, up to eight times this
    layers : strided layers, each halving height and width
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.least = (2, *_least_sides(layers))
        strides = [(2 if layer < 2 else 1, 2, 2) for layer in range(layers)]
        self.main = _patchgan(nn.Conv3d, nn.BatchNorm3d, width, kernel=(3, 4, 4), strides=strides)

    def forward(self, clips: Tensor) -> Tensor:
        """Judge every patch of every stretch of time.

        Parameters
        ----------
        clips : float ``[B, 3, T, H, W]`` in [-1, 1], at least 2 frames, and 24x24 pixels at three layers

        Returns
        -------
        float logits ``[B, 1, t, h, w]`` with ``t = ceil(T / 4)`` and ``h = H // 2**layers - 2``,
        high where a patch looks real.

        Raises
        ------
        ValueError
            If the clips are too small to have a patch, or a lone frame, which has no motion to judge.
        """
        _check_size(clips, self.least)
        if clips.device.type != "cpu":
            return self.main(clips)
        # There the bfloat16 gradient of a padded 3D convolution over two frames holds unwritten memory (PyTorch 2.13).
        with torch.autocast("cpu", enabled=False):
            return self.main(clips)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator: half the sum of the means over real and restored patches.

    Parameters
    ----------
    real, fake : float logits of any shapes; ``fake`` those of restored pictures that carry no gradient to the tokenizer

    Returns
    -------
    scalar, 0 once every real logit is above 1 and every fake one below -1.

    Source: Lim and Ye 2017, "Geometric GAN"; halved as in taming-transformers and in the release.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """What the hinge loss asks of the tokenizer: minus the mean logit of the restored pictures.

    Parameters
    ----------
    fake : float logits of any shape

    Returns
    -------
    scalar, unbounded below.

    Source: Lim and Ye 2017, "Geometric GAN".
    """
    return -fake.mean()


def _patchgan(
    conv: Callable[..., nn.Module],
    norm: Callable[[int], nn.Module],
    width: int,
    *,
    kernel: tuple[int, ...],
    strides: Sequence[tuple[int, ...]],
) -> nn.Sequential:
    """The strided layers, one that keeps the size but for a pixel, and one that makes a logit of 8x the width."""
    widths = [3] + [width * min(2**layer, 8) for layer in range(len(strides) + 1)]
    stay = (1,) * len(kernel)
    stack: list[nn.Module] = []
    for (before, after), stride in zip(pairwise(widths), [*strides, stay], strict=True):
        first = not stack
        # A bias before a batch norm is subtracted again with the mean.
        stack.append(conv(before, after, kernel, stride, padding=1, bias=first))
        if not first:
            stack.append(norm(after))
        stack.append(nn.LeakyReLU(0.2, inplace=True))
    stack.append(conv(widths[-1], 1, kernel, stay, padding=1))
    return nn.Sequential(*stack).apply(_initialize)


def _initialize(module: nn.Module) -> None:
    """Convolutions normal(0, 0.02), batch-norm gains normal(1, 0.02), biases zero, as in pix2pix."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _least_sides(layers: int) -> tuple[int, int]:
    """Height and width that leave one logit: the last two convolutions take a pixel each of what the others halved."""
    return 3 * 2**layers, 3 * 2**layers


def _check_size(x: Tensor, least: tuple[int, int, int]) -> None:
    given = tuple(x.shape[2:])
    if len(given) != 3 or any(size < need for size, need in zip(given, least, strict=True)):
        found, needed = ("x".join(map(str, sizes)) for sizes in (given, least))
        raise ValueError(f"the discriminator was given {found} (frames x height x width), it needs {needed} or more")
