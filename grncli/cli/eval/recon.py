"""``grn eval recon``: how well pictures are reconstructed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs, Table, TextReport
from grncli.cli.session import open_session
from grncli.cli.terminal import number

if TYPE_CHECKING:
    from grncli.evaluation.pair_comparison import PairComparison
    from grncli.metrics.pairwise import Spread


SHOWN_TABLES = 2  # the figures, and the worst samples by the first metric


@examples(
    "grn eval recon photos --tokenizer runs/tok --rounds 1:4",
    "# Of files that another program decoded, as a page",
    "grn eval recon photos --reconstructions decoded --html recon.html",
)
@guarded
@options.grouped
def recon(
    src: Annotated[
        str, Argument(metavar="SRC|STORE", help="Media, or a bit store with --compare.", show_default=False)
    ],
    *,
    tokenizer: Annotated[
        str | None, Option(metavar="RUN", help="Tokenizer to encode and decode with, or that made the store.")
    ] = None,
    rounds: Annotated[
        str | None,
        Option(metavar="4|1:8|1:4,continuous", help="Decode from so many rounds; default: as trained or stored."),
    ] = None,
    reconstructions: Annotated[
        str | None, Option(metavar="SRC2", help="Compare with these reconstructions of the same files instead.")
    ] = None,
    compare: Annotated[str | None, Option(metavar="SRC", help="Media that the STORE was made from.")] = None,
    metrics: options.Metrics = None,
    networks: options.NetworkGroup,
    lpips: options.Lpips = None,
    pictures: options.PictureGroup,
    budget: options.Budget = None,
    device: options.Device = "auto",
    sheet: Annotated[
        Path | None,
        Option(metavar="PNG", help="Write a contact sheet of sources and reconstructions, with the worst ones."),
    ] = None,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Measure pictures after the tokenizer: PSNR, SSIM, LPIPS, rFID.

    Each number of rounds has a row of its own.

    Metrics: psnr, ssim, ms-ssim, lpips (AlexNet), lpips-vgg, rfid (Inception), rfvd (I3D), and rfd, the Fréchet
    distance in the features of any other network (--features).
    """
    outputs = Outputs(sheet=sheet, html=html, json=json)
    outputs.check(drawn=False)
    with open_session("eval recon", "pictures", device, max_time, own_shares=True) as session:
        from grncli.calls.measuring_calls import evaluate_reconstruction

        report = evaluate_reconstruction(
            src,
            tokenizer=tokenizer,
            rounds=rounds,
            reconstructions=reconstructions,
            compare=compare,
            metrics=metrics,
            **vars(networks),
            lpips=lpips,
            **vars(pictures),
            budget=budget,
            device=session.device,
            processes=session.processes,
            progress=session.monitor,
        )
    if session.processes.is_main:
        outputs.write(
            tabulate(report),
            report.to_json(),
            picture=report.sheet,
            exhibits=report.exhibits,
            warnings=report.warnings,
            printed=SHOWN_TABLES,
        )


def tabulate(report: "PairComparison") -> TextReport:
    """The report: figures, then the worst ten by each metric in the last row."""
    from grncli.metrics.quality import NAMES

    names = [name for name in report.rows[0].spreads if any(row.spreads[name].samples for row in report.rows)]
    distances = list(report.rows[0].distances)
    header = ["rounds" if report.tokenizer else "", *(NAMES[name] for name in names), *map(_distance, distances)]
    rows = [
        [
            row.label,
            *(_spread(name, row.spreads[name]) for name in names),
            *(number(row.distances[name], ".3f") for name in distances),
        ]
        for row in report.rows
    ]
    last = report.rows[-1]
    worst = [
        Table(
            f"Furthest from their sources by {NAMES[name]}, {last.label}",
            ["", "worst frame", NAMES[name]],
            [[key, str(frame), _quality(name, value)] for key, frame, value in last.spreads[name].worst],
            names={0},
        )
        for name in names
    ]
    table = Table("Reconstruction, mean ± standard deviation", header, rows, names=() if report.tokenizer else {0})
    return TextReport([table, *worst], _notes(report))


def _notes(report: "PairComparison") -> list[str]:
    failed = f", and {report.failed} could not be read" if report.failed else ""
    skipped = ("src", "rounds", "tokenizer")  # shown elsewhere
    shown = {name.replace("_", " "): value for name, value in report.about.items() if name not in skipped}
    settings = ", ".join(f"{name} {value}" for name, value in shown.items())
    notes = [
        f"{report.samples} samples of {report.src} ({settings}){failed}; pixels rounded to 8 bits, a clip counts with "
        "the mean over its frames."
    ]
    if report.tokenizer:
        notes.append(f"Tokenizer {report.tokenizer['name']} ({report.tokenizer['sha256'][:12]}).")
    for name, network in report.networks.items():
        notes.append(
            f"{_distance(name)}: {network['vectors']} features of each side by {network['name']} (sha256 "
            f"{network['sha256'][:12]}), {network['input']}; float64, biased upwards by small counts."
        )
    return [*notes, *(f"Note: {warning}." for warning in report.warnings)]


def _distance(name: str) -> str:
    return {"rfid": "rFID", "rfvd": "rFVD"}.get(name, "Fréchet distance")


def _spread(name: str, spread: "Spread") -> str:
    mean, deviation = _quality(name, spread.mean), _quality(name, spread.deviation)
    if not spread.samples or not mean:
        return ""
    return f"{mean} ± {deviation}" if deviation else mean


def _quality(name: str, value: float) -> str:
    return number(value, ".2f" if name == "psnr" else ".4f")
