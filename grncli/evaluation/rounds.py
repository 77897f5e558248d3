"""How good pictures come back from the first m rounds of their bits, for every m, beside the continuous feature.

Paper: section 4.1, Table 2, Fig. 3 and 5. Every picture is encoded once; the first m of its eight rounds are the
m-round quantization, so each m costs a decoding and nothing else.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.evaluation.pairs import decodings, encode
from grncli.evaluation.picture_sources import Measured, MediaPictures, Reading
from grncli.hbq import MAX_ROUNDS
from grncli.media.writing import contact_sheet
from grncli.metrics.lpips_weights import default_cache
from grncli.metrics.quality import Metric, lpips_metric, measure_frames, psnr, ssim
from grncli.models.tokenizer import Tokenizer
from grncli.runs.tokenizers import open_tokenizer
from grncli.runtime.errors import CheckpointError, MediaError, UsageError
from grncli.runtime.stopping import Stop, Unfinished

CONTINUOUS_BITS = 16  # that the paper counts for a channel that is not quantized (Table 2)
PIXEL_BITS = 24
SHEET_SAMPLES = 8

METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim}

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """The options of ``grn quantize-stats --media``."""

    rounds: tuple[int, int] = (1, MAX_ROUNDS)  # first and last number of rounds
    size: str = "native"
    frames: int | None = None
    fps: float | None = None
    limit: int | None = None
    sample: int | None = None
    batch: int | None = None
    workers: int = 1
    device: str = "cpu"
    lpips: Path | None = None  # directory or file with LPIPS weights; None measures it only where the cache has them


@dataclass(frozen=True, kw_only=True)
class RoundQuality:
    """What m rounds are worth; ``rounds`` is None for the continuous feature, which has no error."""

    rounds: int | None
    compression: float
    """Bits of the pixels of a token over bits of the token, as the paper's Table 2 counts."""
    bound: float | None
    """No feature is further from its bucket's centre than 2**-m."""
    largest_error: float | None
    mean_error: float | None
    metrics: dict[str, float]
    """Mean over samples of PSNR in dB (pixels rounded to uint8 first), SSIM and, with weights, LPIPS (AlexNet);
    NaN where it is defined for none."""


@dataclass(frozen=True, kw_only=True)
class RoundStatistics:
    """What ``round_statistics`` found."""

    src: str
    tokenizer: dict[str, str]
    trained_rounds: int | None
    channels: int
    stride: tuple[int, int, int]
    images: int
    clips: int
    failed: int
    rows: list[RoundQuality]
    sheet: Frames = field(repr=False)
    """uint8 [H, W, 3]: sources, their decodings from each number of rounds, and from the continuous feature."""

    @property
    def within_bounds(self) -> bool:
        """Whether no feature error exceeds its bound, as must be."""
        return all(row.largest_error is None or row.largest_error <= (row.bound or 0) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the picture; null for what is not defined."""
        rows = [{**asdict(row), "metrics": {k: _defined(v) for k, v in row.metrics.items()}} for row in self.rows]
        plain = {name: value for name, value in vars(self).items() if name not in ("rows", "sheet")}
        return {"kind": "rounds", **plain, "stride": list(self.stride), "rows": rows}


def round_statistics(
    src: str,
    run: str | Path,
    settings: RoundsSettings,
    *,
    cache: Path | None = None,
    stop: Stop | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
    warn: Callable[[str], None] = lambda text: None,
) -> RoundStatistics:
    """Encode the media of ``src`` and decode them from each number of rounds.

    ``cache`` is where LPIPS weights may lie that the settings do not name.

    Raises
    ------
    UsageError, MediaError, CheckpointError
        If an option cannot be meant, no source can be read, or there is no such tokenizer.
    Unfinished
        If ``stop`` asked for it.
    """
    first, last = settings.rounds
    if not 1 <= first <= last <= MAX_ROUNDS:
        raise UsageError(f"--rounds {first}:{last}: expected A:B with 1 <= A <= B <= {MAX_ROUNDS}")
    loaded = open_tokenizer(run, settings.device, say=warn)
    tokenizer = loaded.network
    reading = Reading(
        size=settings.size,
        frames=settings.frames,
        fps=settings.fps,
        limit=settings.limit,
        sample=settings.sample,
        batch=settings.batch,
        workers=settings.workers,
        stride=tokenizer.stride,
    )
    pictures = MediaPictures(src, reading, say=warn)
    total = len(pictures)
    shown = np.linspace(0, total - 1, min(SHEET_SAMPLES, total)).round().astype(int).tolist()
    metrics = METRICS | find_lpips(settings.lpips, cache or default_cache(), settings.device)
    tally = Tally(tokenizer, range(first, last + 1), torch.device(settings.device), set(shown), metrics)
    stop = stop or Stop()
    for sample in pictures.measure(tally.measure, stop=stop, warn=warn):
        tally.count(sample)
        report(sample.place + 1, total, "")
    if stop.reason:
        raise Unfinished(f"{stop.reason}: stopped after {tally.samples} samples of {total} sources")
    if not tally.samples:
        raise MediaError(f"{src}: none of {total} sources could be read")
    return RoundStatistics(
        src=src,
        tokenizer=loaded.identity,
        trained_rounds=tokenizer.rounds,
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        images=tally.images,
        clips=tally.samples - tally.images,
        failed=pictures.failed,
        rows=tally.rows(),
        sheet=tally.sheet(),
    )


def find_lpips(weights: Path | None, cache: Path, device: str) -> dict[str, Metric]:
    """LPIPS (AlexNet) as a metric called ``lpips``; none where no weights are named and the cache has none."""
    try:
        return {"lpips": lpips_metric("alex", weights, cache=cache, device=device)}
    except CheckpointError:
        if weights is not None:
            raise
        return {}


def compression_ratio(stride: tuple[int, int, int], channels: int, bits: int) -> float:
    """Bits of the pixels under one token over bits of the token, the paper's "Compress Ratio" (Table 2)."""
    return PIXEL_BITS * math.prod(stride) / (channels * bits)


@dataclass
class Errors:
    """One sample: errors and metrics for each number of rounds, the continuous feature last."""

    largest: list[float]
    mean: list[float]
    features: int
    metrics: list[dict[str, float]]
    pictures: list[Frames]  # the source and every decoding, middle frame


class Tally:
    """Sums over samples. A sample counts once its source is known to be sound.

    Parameters
    ----------
    shown : positions of the sources whose first samples come onto the sheet
    metrics : what is measured of decoded frames and sources
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rounds: Sequence[int],
        device: torch.device,
        shown: set[int],
        metrics: Mapping[str, Metric],
    ) -> None:
        self.shown = shown
        self.metrics = metrics
        self.tokenizer = tokenizer
        self.rounds = list(rounds)
        self.device = device
        self.samples = self.images = self.features = 0
        self._largest = np.zeros(len(self.rounds))
        self._error_sums = np.zeros(len(self.rounds))
        self._metrics: list[dict[str, list[float]]] = [{name: [] for name in metrics} for _ in [*self.rounds, None]]
        self._pictures: list[list[Frames]] = []

    def count(self, sample: Measured[Errors]) -> None:
        """Count one sample."""
        errors = sample.result
        self.samples += 1
        self.images += sample.shape[0] == 1
        self.features += errors.features
        self._largest = np.maximum(self._largest, errors.largest)
        self._error_sums += np.array(errors.mean) * errors.features
        for sums, metrics in zip(self._metrics, errors.metrics, strict=True):
            for name, value in metrics.items():
                sums[name].append(value)
        if sample.place in self.shown or not self._pictures:
            self.shown.discard(sample.place)  # the first window of a clip only
            self._pictures.append(errors.pictures)

    def rows(self) -> list[RoundQuality]:
        """One row for each number of rounds, and one for the continuous feature."""
        time, height, width = self.tokenizer.stride
        stride = (time if self.images < self.samples else 1, height, width)
        rows = []
        for i, m in enumerate([*self.rounds, None]):
            quantized = m is not None
            rows.append(
                RoundQuality(
                    rounds=m,
                    compression=compression_ratio(stride, self.tokenizer.channels, m or CONTINUOUS_BITS),
                    bound=2.0**-m if m is not None else None,
                    largest_error=float(self._largest[i]) if quantized else None,
                    mean_error=float(self._error_sums[i] / self.features) if quantized else None,
                    metrics={name: _mean_of_defined(values) for name, values in self._metrics[i].items()},
                )
            )
        return rows

    def sheet(self) -> Frames:
        """A row for each sample shown (paper Fig. 3)."""
        columns = ["source", *(f"{m} rounds" if m > 1 else "1 round" for m in self.rounds), "continuous"]
        return contact_sheet(self._pictures, columns * len(self._pictures), cell=128)

    def measure(self, frames: Tensor) -> list[Errors]:
        """Errors and metrics of each sample of a batch, uint8 ``[B, T, H, W, 3]``."""
        feature = encode(self.tokenizer, frames.to(self.device))
        samples = [Errors([], [], feature[0].numel(), [], [_middle(original)]) for original in frames.numpy()]
        levels = [*self.rounds, None]
        for m, (chosen, decoded) in zip(levels, decodings(self.tokenizer, feature, levels), strict=True):
            errors = (chosen - feature).abs().flatten(1)
            metrics = measure_frames(self.metrics, decoded.cpu(), frames)
            for sample, error, ours, values in zip(samples, errors, decoded.cpu().numpy(), metrics, strict=True):
                if m is not None:
                    sample.largest.append(error.max().item())
                    sample.mean.append(error.mean().item())
                sample.metrics.append({name: _mean_of_defined(per_frame) for name, per_frame in values.items()})
                sample.pictures.append(_middle(ours))
        return samples


def _middle(frames: Frames) -> Frames:
    return frames[len(frames) // 2].copy()


def _mean_of_defined(values: list[float]) -> float:
    """Mean over the frames or samples that a metric is defined for; NaN where it is for none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
