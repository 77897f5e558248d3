"""``grn import``: a released checkpoint to a run directory."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import Progress, guarded, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.monitor import Monitor


@examples(
    "grn import image_tokenizer.ckpt runs/released",
    "# What the file does not say of itself",
    "grn import t2i.pth runs/t2i --set attention=full --set image.guidance=3.0",
)
@guarded
def import_(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="CHECKPOINT",
            help="Released tokenizer (.ckpt) or generator (.pth) for classes or text, or a checkpoint of its trainer.",
            show_default=False,
        ),
    ],
    run: Annotated[Path, Argument(metavar="RUN", help="Run directory to make.", show_default=False)],
    weights: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Which weights of the file: ema or vae of a tokenizer, ema1, ema2 or model of a class generator, "
            "ema or model of a trainer's checkpoint for text; default: the first of these that the file has.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="FIELD=VALUE",
            help="What the file does not hold: rounds=4, in_context_start=4; of a tokenizer attention=true; of a "
            "generator for text attention=text-only (the release of May 2026) or full (June), where its name does not "
            "tell, and what is sampled with by default: clip.prefix=TEXT, image.guidance=3.0, cosine_end=0.999.",
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

    with Progress("import", "MiB") as progress:
        monitor = Monitor(progress=lambda done, total, note: progress(done >> 20, (total or 0) >> 20, note))
        facts = import_released(
            checkpoint, run, weights=weights, settings=settings or [], overwrite=overwrite, monitor=monitor
        )
    if json:
        print_json(facts)
    time, height, width = facts["stride"]
    what = facts["kind"] if facts["kind"] == "tokenizer" else f"GRN_{facts['prediction']} {_learned(facts)}"
    say(
        f"{run}: {what} with {facts['parameters'] / 1e6:.2f} M parameters, {facts['channels']} channels, "
        f"{facts['rounds']} rounds, stride {time}x{height}x{width}"
    )


def _learned(facts: dict[str, Any]) -> str:
    """What a generator is conditioned on."""
    return f"for text ({facts['attention']} attention)" if "attention" in facts else f"of {facts['classes']} classes"
