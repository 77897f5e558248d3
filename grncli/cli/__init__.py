"""The ``grn`` command. One file per command; none of them imports torch before it runs."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from typer import Option

from grncli.cli import console
from grncli.cli import eval as evaluation
from grncli.cli.add_captions import captions
from grncli.cli.bench import bench
from grncli.cli.common_options import Debug, LogFile, Quiet
from grncli.cli.copy import copy
from grncli.cli.decode import decode
from grncli.cli.doctor import doctor
from grncli.cli.encode_text import encode_text
from grncli.cli.export_run import export
from grncli.cli.help_pages import HelpfulApp, examples
from grncli.cli.import_ import import_
from grncli.cli.info import info
from grncli.cli.man import man
from grncli.cli.plot import plot
from grncli.cli.quantize_stats import quantize_stats
from grncli.cli.recipes import app as recipes
from grncli.cli.sample import sample
from grncli.cli.shapes import shapes
from grncli.cli.standard_output import give_up_output, name_output
from grncli.cli.status import status
from grncli.cli.store import app as store
from grncli.cli.tokenize import tokenize
from grncli.cli.train_gen import train_gen
from grncli.cli.train_tokenizer import train_tokenizer
from grncli.runtime.stopping import INTERRUPTED, Ended, watch_signals

app = HelpfulApp(
    name="grn",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
STAGES, DATA, RESULTS, MACHINE = "Stages", "Data", "Results", "This machine"
app.command("train-tokenizer", rich_help_panel=STAGES)(train_tokenizer)
app.command("tokenize", rich_help_panel=STAGES)(tokenize)
app.command("train-gen", rich_help_panel=STAGES)(train_gen)
app.command("sample", rich_help_panel=STAGES)(sample)
app.command("decode", rich_help_panel=STAGES)(decode)
app.command("shapes", rich_help_panel=DATA)(shapes)
app.command("import", rich_help_panel=DATA)(import_)
app.command("export", rich_help_panel=DATA)(export)
app.command("captions", rich_help_panel=DATA)(captions)
app.add_typer(store, name="store", rich_help_panel=DATA)
app.command("copy", rich_help_panel=DATA)(copy)
app.add_typer(recipes, name="recipe", rich_help_panel=DATA)
app.command("encode-text", rich_help_panel=DATA)(encode_text)
app.command("info", rich_help_panel=RESULTS)(info)
app.command("status", rich_help_panel=RESULTS)(status)
app.command("quantize-stats", rich_help_panel=RESULTS)(quantize_stats)
app.add_typer(evaluation.app, name="eval", rich_help_panel=RESULTS)
app.command("plot", rich_help_panel=RESULTS)(plot)
app.command("bench", rich_help_panel=MACHINE)(bench)
app.command("doctor", rich_help_panel=MACHINE)(doctor)
app.command("man", rich_help_panel=MACHINE)(man)


def _version(asked: bool) -> None:
    if asked:
        from grncli import __version__  # only here: looking it up takes a while

        print(f"grn {__version__}")
        raise typer.Exit


@app.callback()
@examples(
    "# From pictures that grn draws to samples of a generator of its own",
    "grn shapes shapes --images 7200 --clips 0",
    "grn train-tokenizer tokenizer-shapes --data shapes --out tok",
    "grn tokenize shapes bits.zarr --tokenizer tok --labels dirs",
    "grn train-gen c2i-small-ind bits.zarr --out gen --tokenizer tok",
    "grn sample gen samples --tokenizer tok",
)
def options(
    plain_products: Annotated[
        bool,
        Option("--plain-products", help="Multiply by PyTorch's own way on a CPU, also where another one is faster."),
    ] = False,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
    debug: Debug = False,
) -> None:
    """Generative Refinement Networks: media to near-lossless bits, and back.

    Stages talk through files only: bit stores (Zarr) and run directories. Every command can be stopped and run again.
    Results go to files or standard output, messages and progress to standard error.

    Exit codes are 0 for done, 1 for failed, 2 for wrong usage, 75 for stopped early with everything saved, and 130 for
    Ctrl-C. Of variables, NO_COLOR turns colour off, XDG_CACHE_HOME says below which folder downloaded weights are kept,
    and OMP_NUM_THREADS sets how many threads compute.
    """
    console.take_common_options(quiet=quiet, log_file=log_file, debug=debug)
    if plain_products:
        from grncli.models import products  # only here: it imports torch

        products.use(fast=False)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    signals = watch_signals()
    _never_fail_to_print()
    try:
        code = _finish_output(_run(sys.argv[1:]))
    except (KeyboardInterrupt, Ended) as signalled:  # when the command itself was over
        code = INTERRUPTED if isinstance(signalled, KeyboardInterrupt) else console.STOPPED
    signals.finish(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        app(arguments, prog_name="grn")
    except OSError as error:  # of --help and --version; those of commands have been explained
        return _output_lost(error)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else console.FAILED if done.code else 0
    return 0


def _never_fail_to_print() -> None:
    """Names of files may hold what the output's encoding does not; they are printed with escapes."""
    name_output()
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def _finish_output(code: int) -> int:
    """Write out what standard output still buffers, while an error can have its sentence and exit code."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        lost = _output_lost(error)
        return code or lost
    return code


def _output_lost(error: OSError) -> int:
    if not isinstance(error, BrokenPipeError):
        console.complain(f"{error.filename}: {error.strerror}")
    give_up_output()
    return console.FAILED
