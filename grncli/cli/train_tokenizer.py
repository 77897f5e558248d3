"""``grn train-tokenizer``: train the network that turns pixels into bits."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded
from grncli.cli.session import open_session
from grncli.cli.training_session import check_alike, conclude, with_dtype


@guarded
def train_tokenizer(
    recipe: Annotated[Path, Argument(metavar="RECIPE", help="YAML file, such as recipes/….yaml.", show_default=False)],
    data: Annotated[str, Option("--data", metavar="SRC", help="Images and clips; see grn tokenize.")],
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
    json: options.LogJson = False,
) -> None:
    """Train a tokenizer on a folder of images and clips.

    In several processes with srun or torchrun.
    """
    with open_session("train-tokenizer", "steps", device, max_time) as session:
        from grncli.runs.tokenizer_recipe import TokenizerRecipe
        from grncli.training.run_setup import read_training_recipe
        from grncli.training.tokenizer_training import train_tokenizer

        resolved = read_training_recipe(recipe, TokenizerRecipe, with_dtype(overrides or [], dtype))
        check_alike(session, resolved, out, data)
        last: dict[str, float] = {}
        added = train_tokenizer(
            resolved,
            data,
            out,
            device=session.device,
            overwrite=overwrite,
            processes=session.processes,
            monitor=session.monitor,
            report=lambda line: last.update(line.numbers, step=line.step),
        )
        conclude(session, out, resolved.training.steps, added, last, json=json)
