"""The report of ``grn eval search``: every point of the grid, best first."""

from typing import TYPE_CHECKING, Any

from grncli.reporting.generation_report import describe_text_image
from grncli.reporting.text_report import Report, Table, TextReport, number

if TYPE_CHECKING:
    from grncli.evaluation.halving import Search


def search_report(result: "Search") -> Report:
    """The whole result, with a plot over the grid."""

    def draw() -> Any:
        from grncli.evaluation.plots import plot_search

        return plot_search(result)

    return Report(
        text=tabulate(result),
        document=result.to_json(),
        draw=draw,
        drawn=f"{result.label} over the grid of {', '.join(result.grid)}; the table has the numbers.",
        warnings=result.warnings,
    )


def tabulate(result: "Search") -> TextReport:
    """Every point with its last trial, best first."""
    from grncli.evaluation.sample_metrics import LABELS, TEXT_IMAGE

    names, reference, network = list(result.grid), result.about.get("reference"), result.about.get("network")
    text_image = result.about.get("text_image")
    rows = [
        [
            *(str(trial.point[name]) for name in names),
            *([] if result.distance is None else [number(trial.figure("distance"), ".3f")]),
            *([] if text_image is None else [number(trial.figure("text-image"), ".2f")]),
            str(trial.samples),
            number(trial.nfe, ".1f"),
        ]
        for trial in result.trials
    ]
    figures = [*([] if result.distance is None else [LABELS[result.distance]])]
    figures += [] if text_image is None else [LABELS[TEXT_IMAGE]]
    notes = []
    if reference is not None and network is not None:
        notes += [
            f"Against {reference['src']} ({reference.get('count')} pictures); features of {network['name']} "
            f"({network['sha256'][:12]}).",
            "Distances of different counts do not compare: the fewer samples, the larger they are.",
        ]
    notes += [] if text_image is None else [describe_text_image(text_image)]
    title = f"Decoding settings, best first by {result.label}" if len(figures) > 1 else "Decoding settings, best first"
    header = [*names, *figures, "samples", "NFE"]
    return TextReport([Table(title, header, rows)], [*notes, *(f"Note: {warning}." for warning in result.warnings)])
