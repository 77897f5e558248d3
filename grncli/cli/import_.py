"""``grn import``: a released checkpoint to a run directory."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say, works_alone


@guarded
def import_(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="CHECKPOINT",
            help="Released tokenizer (.ckpt) or class-conditional generator (.pth).",
            show_default=False,
        ),
    ],
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory to make.", show_default=False)],
    weights: Annotated[
        str | None,
        Option(
            metavar="ema|vae or ema1|ema2|model",
            help="Which weights of the file; default: the first of these that the file has.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="FIELD=VALUE",
            help="What the file does not contain: rounds=4, attention=true, in_context_start=4.",
        ),
    ] = None,
    overwrite: Annotated[bool, options.overwrite("Replace an existing run directory.")] = False,
    json: options.Json = False,
) -> None:
    """Turn a released checkpoint into a run directory.

    The file is pickled, so it is read with an unpickler that can build tensors and plain containers, nothing else.
    """
    works_alone()
    from grncli.runs.importing import import_released

    facts = import_released(checkpoint, run, weights=weights, settings=settings or [], overwrite=overwrite)
    if json:
        print_json(facts)
    time, height, width = facts["stride"]
    what = "tokenizer" if facts["kind"] == "tokenizer" else f"GRN_{facts['prediction']} of {facts['classes']} classes"
    say(
        f"{run}: {what} with {facts['parameters'] / 1e6:.2f} M parameters, {facts['channels']} channels, "
        f"{facts['rounds']} rounds, stride {time}x{height}x{width}"
    )
