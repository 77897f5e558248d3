"""``grn eval``: one command for each question."""

from grncli.cli.eval.export import export
from grncli.cli.eval.gen import gen
from grncli.cli.eval.recon import recon
from grncli.cli.eval.search import search
from grncli.cli.eval.stats import stats
from grncli.cli.help_pages import HelpfulApp, examples

app = HelpfulApp()
app.command("recon")(recon)
app.command("gen")(gen)
app.command("stats")(stats)
app.command("search")(search)
app.command("export")(export)


@app.callback()
@examples(
    "grn eval recon photos --tokenizer runs/tok --metrics psnr,ssim",
    "grn eval gen samples --reference photos.npz --download",
)
def evaluate() -> None:
    """Measure reconstructions, samples and decoding settings."""
