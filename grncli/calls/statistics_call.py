"""``grncli.quantize_stats``: how good bits are, and how many rounds are needed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from grncli.bit_statistics.survey import BitStatistics, bit_statistics
from grncli.calls.option_forms import (
    Place,
    Progress,
    Several,
    check_measured,
    following,
    settled,
    takes_options,
    worker_count,
)
from grncli.calls.report_options import AskedReport
from grncli.reporting.bits_report import bits_report
from grncli.reporting.rounds_report import rounds_report
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import located, reads_urls
from grncli.store import open_store

if TYPE_CHECKING:
    from grncli.evaluation.rounds import RoundStatistics


class PictureOptions(TypedDict, total=False):
    """Which pictures are measured, and how they are read; None is the default."""

    size: Several | None  # 256 (ADM centre crop), "HxW" or (H, W) (cover and crop), or "native"
    frames: int | None  # of a window of a clip; None: whole clips
    fps: float | None  # resample clips in time to so many frames a second
    limit: int | None  # only the first N sources
    sample: int | None  # only N sources, drawn by a hash of their names
    batch: int | None  # samples that go through the network at once; None: by their size
    workers: int | None  # decoding processes; None: half the cores, at most 8
    device: object  # "auto", "cpu", "cuda", "cuda:1", "mps", or a torch.device


class RoundsOptions(PictureOptions, total=False):
    """The options of ``grn quantize-stats --media``."""

    rounds: str | int | tuple[int, int] | None  # "A:B" or (A, B), or one number; None: 1 to 8
    budget: Several | None  # instead of a size: "0.06M", ... "2M", "WxH" or (W, H), an area
    lpips: Place | None  # folder of LPIPS weights
    sheet: Place | None  # PNG file for pictures decoded from each number of rounds


@overload
def quantize_stats(
    store: Place,
    *,
    plot: Place | None = None,
    html: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
) -> BitStatistics: ...


@overload
def quantize_stats(
    *,
    media: Place,
    tokenizer: Place,
    plot: Place | None = None,
    html: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[RoundsOptions],
) -> "RoundStatistics": ...


@takes_options()
@reads_urls("store")
def quantize_stats(
    store: Place | None = None,
    *,
    media: Place | None = None,
    tokenizer: Place | None = None,
    plot: Place | None = None,
    html: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[RoundsOptions],
) -> "BitStatistics | RoundStatistics":
    """Measure the bits of a store, or media after each number of rounds, as ``grn quantize-stats`` does.

    Parameters
    ----------
    store : bit store: balance, entropy and correlation of its bits
    media : images and clips instead: error and quality after each number of rounds
    tokenizer : run directory, for ``media``
    plot : PNG, SVG or PDF file for a plot
    html : file for the whole report as one page
    progress : called with (samples or sources done, all of them, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Unfinished`
    options : for ``media``; `RoundsOptions` says what each is

    Returns
    -------
    BitStatistics or RoundStatistics
        Of the store, or of the media; both have ``to_json()``, and the second its pictures as ``sheet``.

    Raises
    ------
    Unfinished
        At ``max_time``; nothing is kept.
    GrnError
        `UsageError`, `MediaError`, `StoreError` or `CheckpointError`.
    """
    given: Mapping[str, Any] = options
    check_measured(store, media, tokenizer, given)
    monitor = following(progress, max_time)
    named = {"media": media, "tokenizer": tokenizer, "plot": plot, "html": html, **given}
    asked = AskedReport("quantize_stats", () if store is None else (store,), named, drawn=True)
    if store is not None:
        statistics = _store_statistics(located(store), monitor)
        asked.write(lambda: bits_report(statistics))
        return statistics
    # Only here: torch, which the bits of a store do not need.
    from grncli.evaluation.measuring import PictureReading
    from grncli.evaluation.rounds import RoundsSettings, round_statistics

    values = settled(options)
    lpips, rounds = values.pop("lpips", None), values.pop("rounds", "1:8")
    values.pop("sheet", None)
    reading = PictureReading(**values | {"workers": worker_count(options.get("workers"))})
    settings = RoundsSettings(reading=reading, rounds=parse_range(rounds), lpips=lpips)
    measured = round_statistics(str(media), str(tokenizer), settings, monitor=monitor)
    asked.write(lambda: rounds_report(measured))
    return measured


def parse_range(rounds: str | int | tuple[int, int]) -> tuple[int, int]:
    """``A:B``, or one number for both; UsageError for anything else."""
    text = ":".join(map(str, rounds)) if isinstance(rounds, tuple) else str(rounds)
    match = re.fullmatch(r"([1-8])(?::([1-8]))?", text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise UsageError(f"--rounds {text}: expected A:B with 1 <= A <= B <= 8, such as 1:8")
    return int(match[1]), int(match[2] or match[1])


def _store_statistics(path: Path, monitor: Monitor) -> BitStatistics:
    store = open_store(path)
    if not store.complete:
        monitor.say(f"{path} is not complete; these are the figures of its {len(store)} samples so far")
    return bit_statistics(store, monitor=monitor)
