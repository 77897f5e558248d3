"""The report of ``grn eval recon``: quality of each number of rounds, and the worst samples."""

from typing import TYPE_CHECKING

from grncli.reporting.text_report import Report, Table, TextReport, number
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.evaluation.pair_comparison import PairComparison
    from grncli.metrics.pairwise import Spread

SHOWN_TABLES = 2  # the figures, and the worst samples by the first metric


def reconstruction_report(measured: "PairComparison") -> Report:
    """Everything that was measured."""
    return Report(
        text=tabulate(measured),
        document=measured.to_json(),
        picture=measured.sheet,
        exhibits=measured.exhibits,
        warnings=measured.warnings,
        printed=SHOWN_TABLES,
    )


def tabulate(measured: "PairComparison") -> TextReport:
    """Figures, then the worst ten by each metric in the last row."""
    from grncli.metrics.quality import NAMES

    names = [name for name in measured.rows[0].spreads if any(row.spreads[name].samples for row in measured.rows)]
    distances = list(measured.rows[0].distances)
    header = ["rounds" if measured.tokenizer else "", *(NAMES[name] for name in names), *map(_distance, distances)]
    rows = [
        [
            row.label,
            *(_spread(name, row.spreads[name]) for name in names),
            *(number(row.distances[name], ".3f") for name in distances),
        ]
        for row in measured.rows
    ]
    last = measured.rows[-1]
    worst = [
        Table(
            f"Furthest from their sources by {NAMES[name]}, {last.label}",
            ["", "worst frame", NAMES[name]],
            [[key, str(frame), _quality(name, value)] for key, frame, value in last.spreads[name].worst],
            names={0},
        )
        for name in names
    ]
    table = Table("Reconstruction, mean ± standard deviation", header, rows, names=() if measured.tokenizer else {0})
    return TextReport([table, *worst], _notes(measured))


def _notes(measured: "PairComparison") -> list[str]:
    failed = f", and {measured.failed} could not be read" if measured.failed else ""
    skipped = ("src", "rounds", "tokenizer")  # shown elsewhere
    shown = {name.replace("_", " "): value for name, value in measured.about.items() if name not in skipped}
    settings = ", ".join(f"{name} {value}" for name, value in shown.items())
    notes = [
        f"{counted(measured.samples, 'sample')} of {measured.src} ({settings}){failed}; pixels rounded to 8 bits, "
        "a clip counts with the mean over its frames."
    ]
    if measured.tokenizer:
        notes.append(f"Tokenizer {measured.tokenizer['name']} ({measured.tokenizer['sha256'][:12]}).")
    for name, network in measured.networks.items():
        notes.append(
            f"{_distance(name)}: {network['vectors']} features of each side by {network['name']} (sha256 "
            f"{network['sha256'][:12]}), {network['input']}; float64, biased upwards by small counts."
        )
    return [*notes, *(f"Note: {warning}." for warning in measured.warnings)]


def _distance(name: str) -> str:
    return {"rfid": "rFID", "rfvd": "rFVD"}.get(name, "Fréchet distance")


def _spread(name: str, spread: "Spread") -> str:
    mean, deviation = _quality(name, spread.mean), _quality(name, spread.deviation)
    if not spread.samples or not mean:
        return ""
    return f"{mean} ± {deviation}" if deviation else mean


def _quality(name: str, value: float) -> str:
    return number(value, ".2f" if name == "psnr" else ".4f")
