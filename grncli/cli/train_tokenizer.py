"""``grn train-tokenizer``: train the network that turns pixels into bits."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.cli.session import guarded_together, open_session
from grncli.cli.training_session import conclude


@examples(
    "grn train-tokenizer tokenizer-small --data media --out runs/tok",
    "# Fewer steps; the same command again resumes",
    "grn train-tokenizer tokenizer-small training.steps=500 \\",
    "    --data media --out runs/quick --max-time 10m",
)
@guarded_together
def train_tokenizer(
    recipe: Annotated[
        Path,
        Argument(
            metavar="RECIPE",
            help="YAML file, or a shipped recipe such as tokenizer-small.",
            show_default=False,
            autocompletion=options.recipe_names("tokenizer"),
        ),
    ],
    data: Annotated[
        list[str],
        Option("--data", metavar="SRC", help="Images and clips, see grn tokenize; several: --data a --data b.tar."),
    ],
    out: Annotated[Path, Option("--out", metavar="RUN", help="Run directory; resumes an interrupted run.")],
    overrides: Annotated[
        list[str] | None,
        Argument(
            metavar="[FIELD=VALUE]...",
            help="Fields of the recipe to change: training.steps=500",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.TrainingDtype = None,
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace a run made with another recipe.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print parameters, time and memory by a few steps; write nothing.")
    ] = False,
    json: options.LogJson = False,
) -> None:
    """Train a tokenizer on a folder of images and clips.

    It resumes an interrupted run. Several processes that srun or torchrun starts train together.
    """
    with open_session("train-tokenizer", "steps", device, max_time) as session:
        from grncli.calls.training_calls import train_tokenizer

        chosen: dict[str, Any] = {
            "overrides": overrides or (),
            "device": session.device,
            "dtype": dtype,
            "overwrite": overwrite,
            "processes": session.processes,
            "progress": session.monitor,
        }
        if dry_run:
            silent = not session.processes.is_main
            print_costs(train_tokenizer, recipe, data, out, json=json, silent=silent, **chosen)
            return
        summary = train_tokenizer(recipe, data, out, **chosen)
        conclude(session, out, summary.step, summary.added, summary.numbers, json=json)
