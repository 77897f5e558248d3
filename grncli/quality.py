"""How far pictures are from their originals, frame by frame: PSNR, SSIM, multi-scale SSIM and LPIPS.

Both are uint8, as they would be in files, so that nothing is better on paper than on the screen.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from grncli.lpips_weights import load_lpips
from grncli.models.lpips import LEAST, Network

SSIM_WINDOW = 11  # pixels
MS_SSIM_LEAST = 176  # the last of five scales, a sixteenth, must hold that window
EQUAL_PSNR = 100.0  # dB, of pictures without any difference
PIXELS_AT_ONCE = 2**20  # that SSIM or LPIPS take: their maps are many times as large

# What is measured of (decoded, original), both uint8 [N, H, W, 3]: a float tensor [N].
Metric = Callable[[Tensor, Tensor], Tensor]


def psnr(frames: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each of uint8 ``[N, H, W, 3]``; 100 where there is no difference."""
    difference = frames.flatten(1).int() - originals.flatten(1).int()
    # Whole numbers: exact, and not every device has float64.
    error = difference.square().sum(dim=1).cpu().double() / difference.shape[1]
    return torch.where(error > 0, 10 * torch.log10(255**2 / error), EQUAL_PSNR)


def ssim(frames: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each of uint8 ``[N, H, W, 3]``, mean over colours; NaN below 11 pixels a side.

    Wang et al. 2004, with a Gaussian window of 11 pixels (sigma 1.5), without downsampling, and over those pixels only
    whose window lies within the picture: torchmetrics by itself counts mirrored edges too, a tenth more or less at 32
    pixels.
    """
    edge = SSIM_WINDOW // 2

    def inner_mean(index: Any) -> Tensor:
        similarity: Tensor = index[1][..., edge:-edge, edge:-edge]
        return similarity.mean(dim=(1, 2, 3))

    name = "structural_similarity_index_measure"
    return _by_torchmetrics(name, SSIM_WINDOW, frames, originals, inner_mean, return_full_image=True)


def ms_ssim(frames: Tensor, originals: Tensor) -> Tensor:
    """Multi-scale structural similarity of each of uint8 ``[N, H, W, 3]``; NaN below 176 pixels a side.

    Wang et al. 2003, with their five scales and weights.
    """
    name = "multiscale_structural_similarity_index_measure"
    return _by_torchmetrics(name, MS_SSIM_LEAST, frames, originals, lambda index: index.reshape(-1))


def _by_torchmetrics(
    name: str, least: int, frames: Tensor, originals: Tensor, each: Callable[[Any], Tensor], **options: bool
) -> Tensor:
    """A measure of torchmetrics; ``each`` takes the value of each picture out of what it gives."""
    from torchmetrics.functional import image  # takes a second, and decoding needs none of it

    n, height, width, _ = frames.shape
    if min(height, width) < least:
        return torch.full((n,), math.nan, dtype=torch.float64)
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    values = []
    for ours, theirs in zip(_cut(frames, at_once), _cut(originals, at_once), strict=True):
        pair = (rearrange(part, "n h w c -> n c h w").float() for part in (ours, theirs))
        values.append(each(getattr(image, name)(*pair, data_range=255.0, reduction="none", **options)).cpu().double())
    return torch.cat(values)


def _cut(frames: Tensor, size: int) -> list[Tensor]:
    return [frames[start : start + size] for start in range(0, len(frames), size)]


METRICS: Mapping[str, Metric] = {"psnr": psnr, "ssim": ssim, "ms-ssim": ms_ssim}
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms-ssim": "MS-SSIM", "lpips": "LPIPS (Alex)", "lpips-vgg": "LPIPS (VGG)"}
LARGER_IS_BETTER = frozenset(METRICS)
LPIPS_NETWORKS: Mapping[str, Network] = {"lpips": "alex", "lpips-vgg": "vgg"}


def lpips_metric(
    network: Network,
    weights: Path | None,
    *,
    cache: Path,
    device: str = "cpu",
    download: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Metric:
    """LPIPS as a metric; CheckpointError where its weights are not to be had, see `grncli.lpips_weights`."""
    module = load_lpips(network, weights, cache=cache, download=download, say=say, remedy="add --download").to(device)

    def lpips(frames: Tensor, originals: Tensor) -> Tensor:
        """NaN for pictures too small to leave the network anything."""
        if min(frames.shape[1:3]) < LEAST[network]:
            return torch.full((len(frames),), math.nan, dtype=torch.float64)
        at_once = max(1, PIXELS_AT_ONCE // frames[0, :, :, 0].numel())
        with torch.inference_mode():
            pairs = zip(_cut(frames, at_once), _cut(originals, at_once), strict=True)
            return torch.cat([module(_signed(ours), _signed(theirs)).cpu().double() for ours, theirs in pairs])

    def _signed(part: Tensor) -> Tensor:
        return rearrange(part, "n h w c -> n c h w").to(device).float() / 127.5 - 1

    return lpips


def measure_frames(metrics: Mapping[str, Metric], frames: Tensor, originals: Tensor) -> list[dict[str, list[float]]]:
    """Each metric of each frame, for samples uint8 ``[B, T, H, W, 3]``: a list of B dictionaries of T numbers."""
    samples, length = frames.shape[:2]
    flat, flat_originals = frames.flatten(0, 1), originals.flatten(0, 1)
    values = {name: metric(flat, flat_originals).view(samples, length) for name, metric in metrics.items()}
    return [{name: measured[i].tolist() for name, measured in values.items()} for i in range(samples)]


def mean_over_frames(metric: Metric, frames: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """A metric of one sample, uint8 ``[T, H, W, 3]``: the mean over the frames it is defined for; NaN for none."""
    return float(metric(torch.from_numpy(frames.copy()), torch.from_numpy(original.copy())).nanmean())
