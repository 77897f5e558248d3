"""How far pictures are from their originals, frame by frame: PSNR, SSIM, multi-scale SSIM and LPIPS.

Both are uint8, as they would be in files, so that nothing is better on paper than on the screen.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d

from grncli.metrics.lpips_weights import load_lpips
from grncli.models.lpips import LEAST, Network
from grncli.runtime.errors import CheckpointError
from grncli.runtime.monitor import Say

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
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
    whose window lies within the picture. Written out, as torchmetrics counts mirrored edges too (a tenth more or less
    at 32 pixels) and filters by the whole window instead of by its rows and columns (four times the work).
    """
    if min(frames.shape[1:3]) < SSIM_WINDOW:
        return torch.full((len(frames),), math.nan, dtype=torch.float64)
    at_once = max(1, PIXELS_AT_ONCE // (frames.shape[1] * frames.shape[2]))
    pairs = zip(_cut(frames, at_once), _cut(originals, at_once), strict=True)
    return torch.cat([_ssim(_colours(ours), _colours(theirs)) for ours, theirs in pairs])


def _colours(frames: Tensor) -> Tensor:
    """Every colour as a picture of its own, ``[N * 3, 1, H, W]``, about mid-grey: variances cancel less there."""
    return rearrange(frames, "n h w c -> (n c) 1 h w").float() - 128


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    places = torch.arange(SSIM_WINDOW, device=x.device) - SSIM_WINDOW // 2
    window = torch.exp(-(places**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    maps = torch.cat([x, y, x * x, y * y, x * y])
    smooth = conv2d(conv2d(maps, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    mean_x, mean_y, xx, yy, xy = smooth.chunk(5)
    variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + 128, mean_y + 128
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return rearrange(index, "(n c) 1 h w -> n (c h w)", c=3).mean(dim=1).cpu().double()


def ms_ssim(frames: Tensor, originals: Tensor) -> Tensor:
    """Multi-scale structural similarity of each of uint8 ``[N, H, W, 3]``; NaN below 176 pixels a side.

    Wang et al. 2003, with their five scales and weights.
    """
    n, height, width, _ = frames.shape
    if min(height, width) < MS_SSIM_LEAST:
        return torch.full((n,), math.nan, dtype=torch.float64)
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # takes a second

    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    values = []
    for pair in zip(_cut(frames, at_once), _cut(originals, at_once), strict=True):
        ours, theirs = (rearrange(part, "n h w c -> n c h w").float() for part in pair)
        index = multiscale_structural_similarity_index_measure(ours, theirs, data_range=255.0, reduction="none")
        values.append(index.reshape(-1).cpu().double())
    return torch.cat(values)


def _cut(frames: Tensor, size: int) -> list[Tensor]:
    return [frames[start : start + size] for start in range(0, len(frames), size)]


METRICS: Mapping[str, Metric] = {"psnr": psnr, "ssim": ssim, "ms-ssim": ms_ssim}
NAMES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms-ssim": "MS-SSIM", "lpips": "LPIPS (Alex)", "lpips-vgg": "LPIPS (VGG)"}
LARGER_IS_BETTER = frozenset(METRICS)
LPIPS_NETWORKS: Mapping[str, Network] = {"lpips": "alex", "lpips-vgg": "vgg"}


def open_metrics(
    names: Sequence[str],
    *,
    optional: Collection[str] = (),
    lpips: Path | None = None,
    cache: Path,
    device: str = "cpu",
    download: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Metric]:
    """Metrics by their names, in the order of `NAMES`.

    Parameters
    ----------
    optional : further names that are left out where their weights are missing, unless ``lpips`` names those
    lpips, cache, download, say : see `grncli.metrics.lpips_weights.load_lpips`

    Raises
    ------
    CheckpointError
        Where weights are missing that are asked for.
    """
    metrics: dict[str, Metric] = {}
    for name in NAMES:
        if name in names and name in METRICS:
            metrics[name] = METRICS[name]
        elif name in names or name in optional:
            try:
                metrics[name] = lpips_metric(
                    LPIPS_NETWORKS[name], lpips, cache=cache, device=device, download=download, say=say
                )
            except CheckpointError:
                if name in names or lpips is not None:
                    raise
    return metrics


def lpips_metric(
    network: Network,
    weights: Path | None,
    *,
    cache: Path,
    device: str = "cpu",
    download: bool = False,
    say: Say = lambda text: None,
) -> Metric:
    """LPIPS as a metric; CheckpointError where its weights are missing, see `grncli.metrics.lpips_weights`."""
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
