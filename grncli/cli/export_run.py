"""``grn export``: the weights of a run as one file with a model card."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import Progress, format_bytes, guarded, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.monitor import Monitor


@examples(
    "grn export runs/c2i published/c2i",
    "grn sample published/c2i samples --tokenizer published/tok",
    "# For the code of the release",
    "grn export runs/t2i t2i-release --layout release --dtype bfloat16",
)
@guarded
def export(
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory, or one of its checkpoints.", show_default=False)],
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder to make.", show_default=False)],
    weights: options.Weights = "ema",
    layout: Annotated[
        Literal["grn", "release"],
        Option(help="Names and shapes of the weights: grn makes a DIR that opens as a run; release is for its code."),
    ] = "grn",
    dtype: Annotated[
        str | None,
        Option(
            **options.one_of("float32", "bfloat16"),
            help="Number format of the weights; default: as they are, which is float32 after a training.",
        ),
    ] = None,
    overwrite: Annotated[bool, options.overwrite("Replace what was exported to DIR before.")] = False,
    json: options.Json = False,
) -> None:
    """Write the weights of a run as one safetensors file with its recipe and a model card.

    Everything that takes a RUN takes DIR as well. The card says what the run knows of its data and figures.
    """
    works_alone()
    with Progress("export", "MiB") as progress:
        from grncli.calls.run_export_call import export_run

        monitor = Monitor(
            progress=lambda done, total, note: progress(done >> 20, (total or 0) >> 20, note), say=progress.say
        )
        made = export_run(
            run, folder, weights=weights, layout=layout, dtype=dtype, overwrite=overwrite, progress=monitor
        )
    if json:
        print_json({name: str(value) if isinstance(value, Path) else value for name, value in vars(made).items()})
    state = "was exported before, nothing to do" if made.present else f"{weights} of step {made.step} of {run}"
    say(f"{made.file}: {state}; {format_bytes(made.bytes)} in {made.dtype}, sha256 {made.sha256[:12]}")
