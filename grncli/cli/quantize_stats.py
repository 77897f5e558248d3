"""``grn quantize-stats``: are these bits good, and how many rounds are needed?"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import FAILED, Progress, default_workers, guarded, make_stop, print_json, say
from grncli.cli.reports import Report, Table, check_outputs, print_report, write_page, write_plot
from grncli.cli.terminal import number
from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from grncli.bit_statistics.survey import BitStatistics
    from grncli.evaluation.rounds import RoundStatistics
    from grncli.runtime.stopping import Stop

SHOWN_STUCK = 12
BEYOND_BOUND = "a feature error exceeds its bound: the features leave (-1, 1), so the tokenizer is broken"


@guarded
def quantize_stats(
    store: Annotated[Path | None, Argument(metavar="[STORE]", help="Bit store.", show_default=False)] = None,
    media: Annotated[str | None, Option(metavar="SRC", help="Images and clips instead; see grn tokenize.")] = None,
    tokenizer: Annotated[str | None, Option(metavar="RUN", help="Run directory of the tokenizer, for --media.")] = None,
    rounds: Annotated[str, Option(metavar="A:B", help="Numbers of rounds to decode from.")] = "1:8",
    size: options.Size = "native",
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

    Of a STORE: balance, entropy and correlation of its bits. Of --media: error and quality after each number of
    rounds.
    """
    only_media: dict[str, Any] = {
        "--tokenizer": tokenizer,
        "--sheet": sheet,
        "--rounds": rounds != "1:8",
        "--size": size != "native",
        "--frames": frames,
        "--fps": fps,
        "--limit": limit,
        "--sample": sample,
        "--batch": batch,
        "--workers": workers is not None,
        "--device": device != "auto",
        "--lpips": lpips,
    }
    check_arguments(store, media, tokenizer, only_media)
    check_outputs(plot, sheet, html)
    found: BitStatistics | RoundStatistics
    with make_stop(max_time).listening() as stop, Progress("quantize-stats", "samples" if store else "sources") as show:
        if store is not None:
            found = _look_at_bits(store, stop, show)
        else:
            from grncli.evaluation.rounds import RoundsSettings, round_statistics
            from grncli.runtime.devices import pick_device

            settings = RoundsSettings(
                rounds=parse_rounds(rounds),
                size=size,
                frames=frames,
                fps=fps,
                limit=limit,
                sample=sample,
                batch=batch,
                workers=default_workers() if workers is None else workers,
                device=str(pick_device(device)),
                lpips=lpips,
            )
            found = round_statistics(str(media), str(tokenizer), settings, stop=stop, report=show, warn=show.say)
    _write_files(found, plot, sheet, html)
    if json:
        print_json(found.to_json())
    else:
        print_report(tabulate(found))
    if not getattr(found, "within_bounds", True):
        say(f"grn: {media}: {BEYOND_BOUND}")
        raise typer.Exit(FAILED)


def check_arguments(store: Path | None, media: str | None, tokenizer: str | None, only_media: dict[str, Any]) -> None:
    """Raise UsageError unless there is either a store, or media with a tokenizer."""
    if (store is None) == (media is None):
        raise UsageError("give either a STORE, or --media SRC with --tokenizer RUN")
    if media is not None and tokenizer is None:
        raise UsageError("--media needs --tokenizer RUN, whose bits are to be measured")
    unfit = [option for option, given in only_media.items() if given]
    if store is not None and unfit:
        raise UsageError(f"{unfit[0]} goes with --media, the bits of a STORE are taken as they are")


def parse_rounds(text: str) -> tuple[int, int]:
    """``A:B``, or one number for both; UsageError for anything else."""
    match = re.fullmatch(r"([1-8])(?::([1-8]))?", text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise UsageError(f"--rounds {text}: expected A:B with 1 <= A <= B <= 8, such as 1:8")
    return int(match[1]), int(match[2] or match[1])


def _look_at_bits(path: Path, stop: "Stop", progress: Progress) -> "BitStatistics":
    from grncli.bit_statistics.survey import bit_statistics
    from grncli.store import open_store

    opened = open_store(path)
    if not opened.complete:
        say(f"{path} is not complete; these are the figures of its {len(opened)} samples so far")
    return bit_statistics(opened, stop=stop, report=progress)


def _write_files(
    found: "BitStatistics | RoundStatistics", plot: Path | None, sheet: Path | None, html: Path | None
) -> None:
    from grncli.media.writing import write_png

    if sheet is not None:
        write_png(sheet, found.sheet)  # type: ignore[union-attr]  # checked: there are media
    if plot is not None:
        write_plot(plot, lambda: _draw(found))
    if html is not None:
        sheets = [found.sheet] if hasattr(found, "sheet") else []
        write_page(html, tabulate(found), found.to_json(), figures=[_draw(found)], sheets=sheets)


def _draw(found: "BitStatistics | RoundStatistics") -> Any:
    from grncli.bit_statistics.survey import BitStatistics
    from grncli.evaluation.plots import plot_bits, plot_rounds

    return plot_bits(found) if isinstance(found, BitStatistics) else plot_rounds(found)


def tabulate(found: "BitStatistics | RoundStatistics") -> Report:
    """The report, as text."""
    from grncli.bit_statistics.survey import BitStatistics

    return _tabulate_bits(found) if isinstance(found, BitStatistics) else _tabulate_rounds(found)


def _tabulate_rounds(found: "RoundStatistics") -> Report:
    measured = list(found.rows[0].metrics)
    header = ["rounds", "compression", "bound", "largest error", "mean error", *(name.upper() for name in measured)]
    rows = [
        [
            "continuous" if row.rounds is None else str(row.rounds),
            number(row.compression, ".4g", "x"),
            *(number(value, ".5f") for value in (row.bound, row.largest_error, row.mean_error)),
            *(_quality(name, row.metrics[name]) for name in measured),
        ]
        for row in found.rows
    ]
    time, height, width = found.stride
    trained = "without quantization" if found.trained_rounds is None else f"at up to {found.trained_rounds} rounds"
    notes = [
        f"{found.images} images and {found.clips} clips of {found.src}; {found.failed} sources could not be read.",
        f"Tokenizer {found.tokenizer['name']} ({found.tokenizer['sha256'][:12]}): {found.channels} channels a token of "
        f"{time}x{height}x{width} pixels, trained {trained}.",
    ]
    if not found.within_bounds:
        notes.append(f"{BEYOND_BOUND.capitalize()}.")
    return Report([Table("What each number of rounds is worth", header, rows)], notes)


def _quality(name: str, value: float) -> str:
    return number(value, ".2f", " dB") if name == "psnr" else number(value, ".4f")


def _largest(values: "NDArray[np.float64]") -> float:
    """Of those that are defined, NaN where none is."""
    defined = values[values == values]
    return float(defined.max()) if defined.size else float("nan")


def _tabulate_bits(found: "BitStatistics") -> Report:
    import numpy as np

    header = ["round", "ones", "least", "most", "entropy", "of two channels", "with the round before"]
    rows = []
    for r, (ones, entropy) in enumerate(zip(found.ones, found.entropy, strict=True)):
        others = np.abs(found.between_channels[r] * (1 - np.eye(len(ones))))
        before = np.abs(found.between_rounds[:, r, r - 1]) if r else np.array([np.nan])
        correlations = [number(_largest(values), ".3f") for values in (others, before)]
        shares = [number(share, ".1%") for share in (ones.mean(), ones.min(), ones.max())]
        rows.append([str(r + 1), *shares, number(entropy.mean(), ".4f"), *correlations])
    stuck = [str(bit) for bit in found.stuck[:SHOWN_STUCK]]
    more = [f"and {len(found.stuck) - SHOWN_STUCK} more"] if len(found.stuck) > SHOWN_STUCK else []
    about = "" if found.distinct.exact else "about "
    notes = [
        f"{found.samples} samples, {found.tokens} tokens, {found.nbytes} bytes of {found.store}.",
        "The last two columns are the strongest correlations, of either sign.",
        f"{about}{found.distinct.count} distinct tokens.",
        "A general compressor would save "
        + ", ".join(f"{share:.1%} ({name})" for name, share in found.saved.items())
        + f", measured on {found.compressed} bytes.",
        f"Stuck bits: {', '.join([*stuck, *more])}." if stuck else "No bit is stuck.",
    ]
    return Report([Table("Bits", header, rows)], notes)
