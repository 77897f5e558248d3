"""``grn eval gen``: how samples compare with real pictures."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs
from grncli.cli.session import guarded_together, open_session
from grncli.cli.terminal import histogram, screen_width
from grncli.reporting.generation_report import generation_report, varied_cost
from grncli.runtime.urls import reads_urls


@examples(
    "grn eval gen samples --reference photos.npz --metrics fid,kid --download",
    "grn eval gen samples --reference photos --features runs/tok --json \\",
    "    | jq '.figures'",
)
@guarded_together
@reads_urls("samples", "reference")
@options.grouped
def gen(
    samples: Annotated[
        str,
        Argument(
            metavar="SAMPLES", help="Media, a bit store, an .npz of pictures or of statistics.", show_default=False
        ),
    ],
    *,
    reference: Annotated[
        str | None, Option(metavar="REF", help="Real pictures to compare with, of the same kinds.")
    ] = None,
    metrics: options.Metrics = None,
    networks: options.NetworkGroup,
    text_image: options.TextImageGroup,
    prompts: Annotated[
        Path | None,
        Option(metavar="FILE", help="A prompt for each file, in their order, for pictures that record none."),
    ] = None,
    tokenizer: options.StoreTokenizer = None,
    pictures: options.PictureGroup,
    device: options.Device = "auto",
    seed: Annotated[int, Option(metavar="N", min=0, help="Seed of the random subsets of KID.")] = 0,
    html: options.Html = None,
    max_time: options.MaxTime = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Compare samples with real pictures (FID, FVD, KID, recall) or with their prompts.

    The report also tells what the samples cost to make. --limit and --sample hold for each side.

    Metrics: fid (Inception), fvd (I3D), fd (the Fréchet distance of any --features), kid, precision and recall compare
    with a reference; is, class-accuracy (the share of samples that a classifier assigns to their own class) and
    text-image (100 max(cos, 0) between the features of a sample and of its prompt) need none.
    """
    outputs = Outputs(html=html, json=json)
    outputs.check()
    with open_session("eval gen", "pictures", device, max_time, own_shares=True) as session:
        from grncli.calls.measuring_calls import evaluate

        chosen = {
            "metrics": metrics,
            **vars(networks),
            **vars(text_image),
            "prompts": prompts,
            "tokenizer": tokenizer,
            **vars(pictures),
            "device": session.device,
            "seed": seed,
            "shows_pictures": html is not None,
            "processes": session.processes,
            "progress": session.monitor,
        }
        if dry_run:
            silent = not session.processes.is_main
            print_costs(evaluate, samples, reference, json=json, silent=silent, **chosen)
            return
        measured = evaluate(samples, reference, **chosen)
    if not session.processes.is_main:
        return
    outputs.write(generation_report(measured))
    cost = varied_cost(measured)
    if cost is not None and not json:
        for line in histogram(cost.steps, screen_width()):
            print(line)
