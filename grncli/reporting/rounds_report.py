"""The report of ``grn quantize-stats --media``: error and quality after each number of rounds."""

from typing import TYPE_CHECKING, Any

from grncli.reporting.text_report import Report, Table, TextReport, number
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.evaluation.rounds import RoundStatistics

BEYOND_BOUND = "a feature error exceeds its bound: the features leave (-1, 1), so the tokenizer is broken"


def rounds_report(measured: "RoundStatistics") -> Report:
    """All figures, with their curves and the pictures."""

    def draw() -> Any:
        from grncli.evaluation.plots import plot_rounds

        return plot_rounds(measured)

    return Report(
        text=tabulate(measured),
        document=measured.to_json(),
        draw=draw,
        drawn="Each metric, and the error of the features, against the number of rounds.",
        picture=measured.sheet,
        exhibits=measured.exhibits,
    )


def tabulate(measured: "RoundStatistics") -> TextReport:
    """The figures of each number of rounds."""
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
        f"{counted(measured.images, 'image')} and {counted(measured.clips, 'clip')} of {measured.src}; "
        f"{counted(measured.failed, 'source')} could not be read.",
        f"Tokenizer {measured.tokenizer['name']} ({measured.tokenizer['sha256'][:12]}): {measured.channels} channels a "
        f"token of {time}x{height}x{width} pixels, trained {trained}.",
    ]
    if not measured.within_bounds:
        notes.append(f"{BEYOND_BOUND.capitalize()}.")
    return TextReport([Table("Quality after each number of rounds", header, rows)], notes)


def _quality(name: str, value: float) -> str:
    return number(value, ".2f", " dB") if name == "psnr" else number(value, ".4f")
