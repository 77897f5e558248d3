"""``grn eval``: one command for each question."""

import typer

from grncli.cli.eval.export import export
from grncli.cli.eval.gen import gen
from grncli.cli.eval.recon import recon
from grncli.cli.eval.search import search
from grncli.cli.eval.stats import stats
from grncli.cli.options import PanelledCommand

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure reconstructions, samples and decoding settings.",
)
app.command("recon")(recon)
app.command("gen")(gen)
app.command("stats")(stats)
app.command("search", cls=PanelledCommand)(search)
app.command("export")(export)
