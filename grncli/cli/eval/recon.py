"""``grn eval recon``: how well pictures are reconstructed."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.cli.reports import Outputs
from grncli.cli.session import guarded_together, open_session
from grncli.reporting.reconstruction_report import reconstruction_report
from grncli.runtime.urls import reads_urls


@examples(
    "grn eval recon photos --tokenizer runs/tok --rounds 1:4",
    "# Of files that another program decoded, as a page",
    "grn eval recon photos --reconstructions decoded --html recon.html",
)
@guarded_together
@reads_urls("src")
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
    dry_run: options.DryRun = False,
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

        chosen = {
            "tokenizer": tokenizer,
            "rounds": rounds,
            "reconstructions": reconstructions,
            "compare": compare,
            "metrics": metrics,
            **vars(networks),
            "lpips": lpips,
            **vars(pictures),
            "budget": budget,
            "device": session.device,
            "processes": session.processes,
            "progress": session.monitor,
        }
        if dry_run:
            print_costs(evaluate_reconstruction, src, json=json, silent=not session.processes.is_main, **chosen)
            return
        report = evaluate_reconstruction(src, **chosen)
    if session.processes.is_main:
        outputs.write(reconstruction_report(report))
