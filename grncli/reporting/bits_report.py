"""The report of ``grn quantize-stats STORE``: balance, entropy and correlation of bits."""

from typing import TYPE_CHECKING, Any

from grncli.reporting.text_report import Report, Table, TextReport, number
from grncli.runtime.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from grncli.bit_statistics.survey import BitStatistics

SHOWN_STUCK = 12


def bits_report(statistics: "BitStatistics") -> Report:
    """All figures, with a heat map of the share of ones."""

    def draw() -> Any:
        from grncli.evaluation.plots import plot_bits

        return plot_bits(statistics)

    rounds, channels = statistics.ones.shape
    return Report(
        text=tabulate(statistics),
        document=statistics.to_json(),
        draw=draw,
        drawn=f"Share of ones of each of {rounds} rounds and {channels} channels, as a heat map.",
    )


def _largest(values: "NDArray[np.float64]") -> float:
    """Of those that are defined, NaN where none is."""
    defined = values[values == values]
    return float(defined.max()) if defined.size else float("nan")


def tabulate(statistics: "BitStatistics") -> TextReport:
    """The figures of each round."""
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
        f"{counted(statistics.samples, 'sample')}, {counted(statistics.tokens, 'token')}, {statistics.nbytes} bytes of "
        f"{statistics.store}.",
        "The last two columns are the strongest correlations, of either sign.",
        f"{about}{counted(statistics.distinct.count, 'distinct token')}.",
        "A general compressor would save "
        + ", ".join(f"{share:.1%} ({name})" for name, share in statistics.saved.items())
        + f", measured on {statistics.compressed} bytes.",
        f"Stuck bits: {', '.join([*stuck, *more])}." if stuck else "No bit is stuck.",
    ]
    return TextReport([Table("Bits", header, rows)], notes)
