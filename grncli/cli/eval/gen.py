"""``grn eval gen``: how samples compare with real pictures."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded
from grncli.cli.reports import Outputs, Table, TextReport
from grncli.cli.session import open_session
from grncli.cli.terminal import histogram, number, screen_width

if TYPE_CHECKING:
    from grncli.evaluation.generation import Generation, MetricValue
    from grncli.evaluation.sampling_costs import Cost

SETTINGS = ("schedule", "guidance", "guidance_interval", "temperature", "selection")  # that a report shows


@guarded
@options.grouped
def gen(
    samples: Annotated[
        str,
        Argument(
            metavar="SAMPLES", help="Media, a bit store, an .npz of pictures or of statistics.", show_default=False
        ),
    ],
    reference: Annotated[
        str,
        Option(metavar="REF", help="What to compare with, of the same kinds.", show_default=False),
    ],
    *,
    metrics: options.Metrics = None,
    networks: options.NetworkGroup,
    tokenizer: options.StoreTokenizer = None,
    pictures: options.PictureGroup,
    device: options.Device = "auto",
    seed: Annotated[int, Option(metavar="N", min=0, help="Seed of the random subsets of KID.")] = 0,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Compare samples with real pictures: FID, FVD, KID, recall.

    Beside the numbers, what the samples cost to make. --limit and --sample hold for each side.

    Metrics: fid (Inception), fvd (I3D), fd (the Fréchet distance of any --features), is, kid, precision, recall, and
    class-accuracy, the share of samples that a classifier assigns to their own class.
    """
    outputs = Outputs(html=html, json=json)
    outputs.check()
    with open_session("eval gen", "pictures", device, max_time, own_shares=True) as session:
        from grncli.evaluation.generation import GenSettings, generation

        settings = GenSettings(
            reading=pictures.reading(session.device, tokenizer),
            metrics=options.parse_metrics(metrics),
            networks=networks.settings(),
            seed=seed,
        )
        measured = generation(samples, reference, settings, processes=session.processes, monitor=session.monitor)
    if not session.processes.is_main:
        return
    cost = measured.cost if measured.cost is not None and len(measured.cost.steps) > 1 else None
    draw = None if cost is None else partial(_draw, cost)
    outputs.write(tabulate(measured), measured.to_json(), draw=draw, warnings=measured.warnings)
    if cost is not None and not json:
        for line in histogram(cost.steps, screen_width()):
            print(line)


def _draw(cost: "Cost") -> Any:
    from grncli.evaluation.plots import plot_steps

    return plot_steps(cost)


def tabulate(measured: "Generation") -> TextReport:
    """Figures, costs, and how they were measured."""
    tables = [
        Table(
            f"{measured.samples['src']} against {measured.reference['src']}",
            ["", "value", "deviation", ""],
            [_row(figure) for figure in measured.figures],
        )
    ]
    if measured.cost is not None:
        tables.append(_costs(measured.cost))
    notes = [f"{_describe(about)}." for about in (measured.samples, measured.reference)]
    network = measured.samples.get("network") or measured.reference.get("network")
    if network:
        notes.append(f"Features of {network['name']} (sha256 {network['sha256'][:12]}), {network['input']}; float64.")
    return TextReport(tables, [*notes, *(f"Note: {warning}." for warning in measured.warnings)])


def _row(figure: "MetricValue") -> list[str]:
    digits = {"kid": 6, "precision": 4, "recall": 4, "class-accuracy": 4}.get(figure.metric, 3)
    return [figure.label, *(number(value, f".{digits}f") for value in (figure.value, figure.deviation)), figure.detail]


def _costs(cost: "Cost") -> Table:
    settings = {name: cost.settings[name] for name in SETTINGS if name in cost.settings}
    rows = [
        ["samples", str(cost.samples)],
        ["steps a sample", number(cost.mean_steps, ".2f")],
        ["NFE a sample", number(cost.nfe, ".2f")],
        ["seconds a sample", "not logged" if cost.seconds is None else number(cost.seconds, ".3g")],
        *([name.replace("_", " "), _plain(value)] for name, value in settings.items()),
    ]
    return Table("Cost of the samples", ["", ""], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        kind = f"{value['kind']}: " if "kind" in value else ""
        return kind + ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if name != "kind")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe(about: dict[str, Any]) -> str:
    """Where pictures are from, in a sentence."""
    size = about.get("picture")
    count, samples = about.get("count"), about.get("samples")
    known = "unknown" if "picture" not in about else "several"
    parts = [
        f"{samples or count} samples" if samples or count else "an unknown number of samples",
        f"({count} feature vectors)" if samples and samples != count else "",
        f"of {'x'.join(map(str, size))} pixels" if size else f"of {known} sizes",
    ]
    shown = ("size", "filter", "frames", "fps", "only_the_first", "drawn_by_name", "rounds", "store", "made_of")
    extra = ", ".join(f"{name.replace('_', ' ')} {about[name]}" for name in shown if about.get(name))
    failed = f", {about['failed']} could not be read" if about.get("failed") else ""
    return f"{about['src']}: {' '.join(filter(None, parts))}{f' ({extra})' if extra else ''}{failed}"
