"""``grn train-tokenizer``: train the network that turns pixels into bits."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli.console import Progress, guarded, make_stop, print_json, say

if TYPE_CHECKING:
    from grncli.training.loop import Report


@guarded
def train_tokenizer(
    recipe: Annotated[Path, Argument(metavar="RECIPE", help="YAML file, such as recipes/….yaml.", show_default=False)],
    data: Annotated[str, Option("--data", metavar="SRC", help="Images and clips; see grn tokenize.")],
    out: Annotated[Path, Option("--out", metavar="RUN", help="Run directory; an interrupted one is gone on with.")],
    overrides: Annotated[
        list[str] | None,
        Argument(
            metavar="[FIELD=VALUE]...",
            help="Fields of the recipe to change: training.steps=500",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    dtype: Annotated[str, Option(metavar="auto|float32|bfloat16", help="Of the forward pass.")] = "float32",
    max_time: Annotated[
        str | None, Option(metavar="3h50m", help="Save, stop and exit with 75 after this time.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Start anew over a run made with another recipe.")] = False,
    json: Annotated[bool, Option("--json", help="Print the last line of the log as JSON.")] = False,
) -> None:
    """Train a tokenizer on a folder of images and clips; with torchrun, in several processes."""
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    talk = say if rank == 0 else _be_silent
    last: dict[str, float] = {}
    with make_stop(max_time).listening() as stop, Progress("train-tokenizer", "steps") as progress:
        from grncli.devices import pick_device, pick_dtype
        from grncli.training.processes import joined
        from grncli.training.tokenizer import read_tokenizer_recipe, train_tokenizer

        resolved = read_tokenizer_recipe(recipe, overrides or [])
        chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))

        def report(line: "Report") -> None:
            last.update(line.numbers, step=line.step)
            shown = ", ".join(f"{k} {v:.4g}" for k, v in line.numbers.items() if k == "loss" or k.endswith("psnr"))
            if rank == 0 and "loss" in line.numbers:
                progress(line.step, resolved.training.steps, shown)

        with joined(rank, count, chosen) as processes:
            added = train_tokenizer(
                resolved,
                data,
                out,
                device=chosen,
                dtype=pick_dtype(dtype, chosen),
                overwrite=overwrite,
                processes=processes,
                stop=stop,
                report=report,
                warn=talk,
            )
    if json and rank == 0:
        print_json(last)
    if added:
        talk(f"{out}: trained to step {resolved.training.steps}; pictures are in {out / 'previews'}")
    else:
        talk(f"{out}: is already trained to step {resolved.training.steps}; nothing to do")


def _be_silent(text: str) -> None:
    """What the processes other than the first one say."""
