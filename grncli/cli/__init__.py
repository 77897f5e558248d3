"""The ``grn`` command. One file per command; none of them imports torch before it runs."""

import os
import sys
from io import TextIOWrapper

import typer

from grncli import __version__
from grncli.cli import console
from grncli.cli import eval as evaluation
from grncli.cli.add_captions import captions
from grncli.cli.decode import decode
from grncli.cli.encode_text import encode_text
from grncli.cli.import_ import import_
from grncli.cli.info import info
from grncli.cli.options import PanelledCommand
from grncli.cli.quantize_stats import quantize_stats
from grncli.cli.sample import sample
from grncli.cli.shapes import shapes
from grncli.cli.tokenize import tokenize
from grncli.cli.train_gen import train_gen
from grncli.cli.train_tokenizer import train_tokenizer
from grncli.runtime.stopping import INTERRUPTED, Ended, watch_signals

app = typer.Typer(
    name="grn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("shapes")(shapes)
app.command("import")(import_)
app.command("train-tokenizer")(train_tokenizer)
app.command("tokenize")(tokenize)
app.command("captions")(captions)
app.command("decode")(decode)
app.command("encode-text")(encode_text)
app.command("train-gen")(train_gen)
app.command("sample", cls=PanelledCommand)(sample)
app.add_typer(evaluation.app, name="eval")
app.command("quantize-stats")(quantize_stats)
app.command("info")(info)


def _version(asked: bool) -> None:
    if asked:
        print(f"grn {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    plain_products: bool = typer.Option(
        False, "--plain-products", help="Multiply by PyTorch's own way on a CPU, also where another one is faster."
    ),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Generative Refinement Networks: media to near-lossless bits, and back.

    Stages talk through files only: bit stores (Zarr) and run directories. Every command can be stopped and run again.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped early with everything saved, 130 Ctrl-C.
    """
    console.debug = console.debug or debug
    if plain_products:
        from grncli.models import products  # only here: it imports torch

        products.use(fast=False)


def main() -> None:
    """Run the command line and end the process with its exit code; ``--debug`` may stand anywhere before ``--``."""
    signals = watch_signals()
    _never_fail_to_print()
    try:
        code = _finish_output(_run(sys.argv[1:]))
    except (KeyboardInterrupt, Ended) as signalled:  # when the command itself was over
        code = INTERRUPTED if isinstance(signalled, KeyboardInterrupt) else console.STOPPED
    signals.finish(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:end]:
        console.debug = True
        arguments = [a for a in arguments[:end] if a != "--debug"] + arguments[end:]
    try:
        app(arguments, prog_name="grn")
    except OSError as error:  # of --help and --version; those of commands have been explained
        return _output_lost(error)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else console.FAILED if done.code else 0
    return 0


def _never_fail_to_print() -> None:
    """Names of files may hold what the output's encoding does not; they are printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        console.say(f"grn: standard output: {error.strerror}")
    # The interpreter would try once more and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return console.FAILED
