"""``grn quantize-stats --media``: quality after the first m rounds of bits, for every m, and of the continuous feature.

Paper: section 4.1, Table 2, Fig. 3 and 5.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from grncli.evaluation.exhibits import Exhibit
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.pair_comparison import ReconRow, compare
from grncli.evaluation.pairs import Reencoded
from grncli.evaluation.picture_sources import MediaPictures
from grncli.hbq import MAX_ROUNDS
from grncli.media.writing import Frames
from grncli.metrics.quality import open_metrics
from grncli.runs.tokenizers import open_tokenizer
from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import or_null
from grncli.runtime.monitor import Monitor

CONTINUOUS_BITS = 16  # that the paper counts for a channel that is not quantized (Table 2)
PIXEL_BITS = 24
SHEET_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class RoundsSettings:
    """The options of ``grn quantize-stats --media``."""

    reading: PictureReading
    rounds: tuple[int, int] = (1, MAX_ROUNDS)  # first and last number of rounds
    lpips: Path | None = None  # directory or file with LPIPS weights; None measures it only where the cache has them
    cache: Path = field(default_factory=default_cache)


@dataclass(frozen=True, kw_only=True)
class RoundQuality:
    """Quality after m rounds; ``rounds`` is None for the continuous feature, which has no error."""

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
    """The result of `round_statistics`."""

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
    exhibits: list[Exhibit] = field(default_factory=list, repr=False)
    """The same pictures, with their names."""

    @property
    def within_bounds(self) -> bool:
        """Whether no feature error exceeds its bound, as must be."""
        return all(row.largest_error is None or row.largest_error <= (row.bound or 0) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, without the picture; null for what is not defined."""
        rows = [asdict(row) | {"metrics": {k: or_null(v) for k, v in row.metrics.items()}} for row in self.rows]
        plain = {name: value for name, value in vars(self).items() if name not in ("rows", "sheet", "exhibits")}
        return {"kind": "rounds", **plain, "stride": list(self.stride), "rows": rows}


def round_statistics(
    src: str, run: str | Path, settings: RoundsSettings, *, monitor: Monitor | None = None
) -> RoundStatistics:
    """Encode the media of ``src`` and decode them from each number of rounds.

    Raises
    ------
    UsageError, MediaError, CheckpointError
        If an option is invalid, no source can be read, or there is no such tokenizer.
    Unfinished
        If ``monitor`` asked for it.
    """
    monitor, (first, last), reading = monitor or Monitor(), settings.rounds, settings.reading
    if not 1 <= first <= last <= MAX_ROUNDS:
        raise UsageError(f"--rounds {first}:{last}: expected A:B with 1 <= A <= B <= {MAX_ROUNDS}")
    loaded = open_tokenizer(run, reading.device, say=monitor.say)
    tokenizer = loaded.network
    pictures = MediaPictures(src, replace(reading, stride=tokenizer.stride), say=monitor.say)
    metrics = open_metrics(
        ("psnr", "ssim"),
        optional=("lpips",),
        lpips=settings.lpips,
        cache=settings.cache / "lpips",
        device=reading.device,
    )
    pairs = Reencoded(pictures, loaded, [*range(first, last + 1), None])
    comparison = compare(pairs, metrics, {}, spread=SHEET_SAMPLES, monitor=monitor)
    time, height, width = tokenizer.stride
    stride = (time if comparison.clips else 1, height, width)
    return RoundStatistics(
        src=comparison.src,
        tokenizer=loaded.identity,
        trained_rounds=tokenizer.rounds,
        channels=tokenizer.channels,
        stride=tokenizer.stride,
        images=comparison.images,
        clips=comparison.clips,
        failed=comparison.failed,
        rows=[_quality(row, stride, tokenizer.channels) for row in comparison.rows],
        sheet=comparison.sheet,
        exhibits=comparison.exhibits,
    )


def compression_ratio(stride: tuple[int, int, int], channels: int, bits: int) -> float:
    """Bits of the pixels under one token over bits of the token, the paper's "Compress Ratio" (Table 2)."""
    return PIXEL_BITS * math.prod(stride) / (channels * bits)


def _quality(row: ReconRow, stride: tuple[int, int, int], channels: int) -> RoundQuality:
    m = row.rounds
    return RoundQuality(
        rounds=m,
        compression=compression_ratio(stride, channels, m or CONTINUOUS_BITS),
        bound=None if m is None else 2.0**-m,
        largest_error=None if m is None else row.errors.largest,
        mean_error=None if m is None else row.errors.mean,
        metrics={name: spread.mean for name, spread in row.spreads.items()},
    )
