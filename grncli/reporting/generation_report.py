"""The report of ``grn eval gen``: figures, what the samples cost, and how they were measured."""

from typing import TYPE_CHECKING, Any

from grncli.reporting.text_report import Report, Table, TextReport, number
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.evaluation.generation import Generation
    from grncli.evaluation.sample_metrics import MetricValue
    from grncli.evaluation.sampling_costs import Cost

SETTINGS = ("schedule", "guidance", "guidance_interval", "temperature", "selection")  # that a report shows


def generation_report(measured: "Generation") -> Report:
    """Everything that was measured, with a plot of the steps where they differ."""
    cost = varied_cost(measured)

    def draw() -> Any:
        from grncli.evaluation.plots import plot_steps

        assert cost is not None
        return plot_steps(cost)

    return Report(
        text=tabulate(measured),
        document=measured.to_json(),
        draw=None if cost is None else draw,
        drawn="How many samples took how many refinement steps, and the steps of each by its entropy.",
        exhibits=measured.exhibits,
        warnings=measured.warnings,
    )


def varied_cost(measured: "Generation") -> "Cost | None":
    """What the samples cost, where they took different numbers of steps."""
    return measured.cost if measured.cost is not None and len(measured.cost.steps) > 1 else None


def tabulate(measured: "Generation") -> TextReport:
    """Figures, costs, and how they were measured."""
    reference, prompts = measured.reference, "" if measured.text_image is None else "their prompts"
    compared = " and ".join(filter(None, ["" if reference is None else reference["src"], prompts]))
    title = f"{measured.samples['src']} against {compared}" if compared else measured.samples["src"]
    tables = [Table(title, ["", "value", "deviation", ""], [_row(figure) for figure in measured.figures])]
    if measured.cost is not None:
        tables.append(_costs(measured.cost))
    sides = [measured.samples, *([] if reference is None else [reference])]
    notes = [f"{_describe(about)}." for about in sides]
    network = next((about["network"] for about in sides if about.get("network")), None)
    if network:
        notes.append(f"Features of {network['name']} (sha256 {network['sha256'][:12]}), {network['input']}; float64.")
    if measured.text_image is not None:
        notes.append(describe_text_image(measured.text_image))
    return TextReport(tables, [*notes, *(f"Note: {warning}." for warning in measured.warnings)])


def describe_text_image(about: dict[str, Any]) -> str:
    """The protocol of a text-image score, in a sentence."""
    files = [
        f"{part} {about[part]['name']} (sha256 {about[part]['sha256'][:12]})"
        for part in ("image", "text", "tokenizer")
        if part in about
    ]
    return (
        f"Text-image score by {', '.join(files)}: {about['input']}; prompt {about['prompt']}; of a clip the "
        f"{about['clip']}; float64."
    )


def _row(figure: "MetricValue") -> list[str]:
    digits = {"kid": 6, "precision": 4, "recall": 4, "class-accuracy": 4, "text-image": 2}.get(figure.metric, 3)
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
    number_of = samples or count
    parts = [
        counted(number_of, "sample") if number_of else "an unknown number of samples",
        f"({count} feature vectors)" if samples and count and samples != count else "",
        f"of {'x'.join(map(str, size))} pixels" if size else f"of {known} sizes",
    ]
    shown = ("size", "filter", "frames", "fps", "only_the_first", "drawn_by_name", "rounds", "store", "made_of")
    extra = ", ".join(f"{name.replace('_', ' ')} {about[name]}" for name in shown if about.get(name))
    failed = f", {about['failed']} could not be read" if about.get("failed") else ""
    return f"{about['src']}: {' '.join(filter(None, parts))}{f' ({extra})' if extra else ''}{failed}"
