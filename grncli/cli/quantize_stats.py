"""``grn quantize-stats``: how good bits are, and how many rounds are needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from grncli.calls.option_forms import check_measured
from grncli.cli import options
from grncli.cli.console import FAILED, complain, guarded, monitored
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs, Table, TextReport
from grncli.cli.terminal import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from grncli.bit_statistics.survey import BitStatistics
    from grncli.evaluation.rounds import RoundStatistics

SHOWN_STUCK = 12
BEYOND_BOUND = "a feature error exceeds its bound: the features leave (-1, 1), so the tokenizer is broken"


@examples(
    "grn quantize-stats photos.zarr --plot bits.png",
    "# What each number of rounds is worth",
    "grn quantize-stats --media photos --tokenizer runs/tok --html rounds.html",
)
@guarded
def quantize_stats(
    store: Annotated[Path | None, Argument(metavar="[STORE]", help="Bit store.", show_default=False)] = None,
    media: Annotated[str | None, Option(metavar="SRC", help="Images and clips instead; see grn tokenize.")] = None,
    tokenizer: Annotated[str | None, Option(metavar="RUN", help="Run directory of the tokenizer, for --media.")] = None,
    rounds: Annotated[str, Option(metavar="A:B", help="Numbers of rounds to decode from.")] = "1:8",
    size: options.Size = None,
    budget: options.Budget = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    limit: options.Limit = None,
    sample: options.Sample = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    lpips: options.Lpips = None,
    plot: options.Plot = None,
    sheet: Annotated[
        Path | None, Option(metavar="PNG", help="Write pictures decoded from each number of rounds; with --media.")
    ] = None,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Measure the bits of a store, or rounds on media.

    A STORE shows balance, entropy and correlation of its bits; --media shows error and quality after each number of
    rounds.
    """
    chosen: dict[str, Any] = {
        "rounds": None if rounds == "1:8" else rounds,
        "size": size,
        "budget": budget,
        "frames": frames,
        "fps": fps,
        "limit": limit,
        "sample": sample,
        "batch": batch,
        "workers": workers,
        "device": None if device == "auto" else device,
        "lpips": lpips,
    }
    check_measured(store, media, tokenizer, {"sheet": sheet, **chosen})
    outputs = Outputs(plot=plot, sheet=sheet, html=html, json=json)
    outputs.check()
    unit = "samples" if store else "sources"
    with monitored("quantize-stats", unit, max_time) as monitor:
        from grncli.calls.statistics_call import quantize_stats as measure

        statistics: BitStatistics | RoundStatistics
        if store is not None:
            statistics = measure(store, progress=monitor)
        else:
            statistics = measure(media=str(media), tokenizer=str(tokenizer), progress=monitor, **chosen)
    outputs.write(
        tabulate(statistics),
        statistics.to_json(),
        draw=lambda: _draw(statistics),
        drawn=_drawn(statistics),
        picture=getattr(statistics, "sheet", None),
        exhibits=getattr(statistics, "exhibits", ()),
    )
    if not getattr(statistics, "within_bounds", True):
        complain(f"{media}: {BEYOND_BOUND}")
        raise typer.Exit(FAILED)


def _draw(statistics: "BitStatistics | RoundStatistics") -> Any:
    from grncli.bit_statistics.survey import BitStatistics
    from grncli.evaluation.plots import plot_bits, plot_rounds

    return plot_bits(statistics) if isinstance(statistics, BitStatistics) else plot_rounds(statistics)


def _drawn(statistics: "BitStatistics | RoundStatistics") -> str:
    """What the plot shows, in a sentence; its numbers are in the table."""
    from grncli.bit_statistics.survey import BitStatistics

    if isinstance(statistics, BitStatistics):
        rounds, channels = statistics.ones.shape
        return f"Share of ones of each of {rounds} rounds and {channels} channels, as a heat map."
    return "Each metric, and the error of the features, against the number of rounds."


def tabulate(statistics: "BitStatistics | RoundStatistics") -> TextReport:
    """The report, as text."""
    from grncli.bit_statistics.survey import BitStatistics

    return _tabulate_bits(statistics) if isinstance(statistics, BitStatistics) else _tabulate_rounds(statistics)


def _tabulate_rounds(measured: "RoundStatistics") -> TextReport:
    names = list(measured.rows[0].metrics)
    header = ["rounds", "compression", "bound", "largest error", "mean error", *(name.upper() for name in names)]
    rows = [
        [
            "continuous" if row.rounds is None else str(row.rounds),
            number(row.compression, ".4g", "x"),
            *(number(value, ".5f") for value in (row.bound, row.largest_error, row.mean_error)),
            *(_quality(name, row.metrics[name]) for name in names),
        ]
        for row in measured.rows
    ]
    time, height, width = measured.stride
    trained = (
        "without quantization" if measured.trained_rounds is None else f"at up to {measured.trained_rounds} rounds"
    )
    notes = [
        f"{measured.images} images and {measured.clips} clips of {measured.src}; {measured.failed} sources could not "
        "be read.",
        f"Tokenizer {measured.tokenizer['name']} ({measured.tokenizer['sha256'][:12]}): {measured.channels} channels a "
        f"token of {time}x{height}x{width} pixels, trained {trained}.",
    ]
    if not measured.within_bounds:
        notes.append(f"{BEYOND_BOUND.capitalize()}.")
    return TextReport([Table("Quality after each number of rounds", header, rows)], notes)


def _quality(name: str, value: float) -> str:
    return number(value, ".2f", " dB") if name == "psnr" else number(value, ".4f")


def _largest(values: "NDArray[np.float64]") -> float:
    """Of those that are defined, NaN where none is."""
    defined = values[values == values]
    return float(defined.max()) if defined.size else float("nan")


def _tabulate_bits(statistics: "BitStatistics") -> TextReport:
    import numpy as np

    header = ["round", "ones", "least", "most", "entropy", "of two channels", "with the round before"]
    rows = []
    for r, (ones, entropy) in enumerate(zip(statistics.ones, statistics.entropy, strict=True)):
        others = np.abs(statistics.between_channels[r] * (1 - np.eye(len(ones))))
        before = np.abs(statistics.between_rounds[:, r, r - 1]) if r else np.array([np.nan])
        correlations = [number(_largest(values), ".3f") for values in (others, before)]
        shares = [number(share, ".1%") for share in (ones.mean(), ones.min(), ones.max())]
        rows.append([str(r + 1), *shares, number(entropy.mean(), ".4f"), *correlations])
    stuck = [str(bit) for bit in statistics.stuck[:SHOWN_STUCK]]
    more = [f"and {len(statistics.stuck) - SHOWN_STUCK} more"] if len(statistics.stuck) > SHOWN_STUCK else []
    about = "" if statistics.distinct.exact else "about "
    notes = [
        f"{statistics.samples} samples, {statistics.tokens} tokens, {statistics.nbytes} bytes of {statistics.store}.",
        "The last two columns are the strongest correlations, of either sign.",
        f"{about}{statistics.distinct.count} distinct tokens.",
        "A general compressor would save "
        + ", ".join(f"{share:.1%} ({name})" for name, share in statistics.saved.items())
        + f", measured on {statistics.compressed} bytes.",
        f"Stuck bits: {', '.join([*stuck, *more])}." if stuck else "No bit is stuck.",
    ]
    return TextReport([Table("Bits", header, rows)], notes)
