"""``grn encode-text``: prompts to a store of text features."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import format_seconds, guarded, monitored, own_part, print_json, say
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted
from grncli.runtime.urls import reads_urls

if TYPE_CHECKING:
    from grncli.calls.text_calls import EncodeTextOptions
    from grncli.prompt_encoding.prompt_stage import PromptEncodingSummary


@examples(
    "grn encode-text prompts.txt prompts.zarr --text-encoder minilm",
    "# The captions of a bit store, worded as a recipe of a generator asks for",
    "grn encode-text photos.zarr captions.zarr --text-encoder minilm \\",
    "    --recipe t2i.yaml",
)
@guarded
@reads_urls("prompts")
def encode_text(
    prompts: Annotated[
        str,
        Argument(
            metavar="PROMPTS|STORE",
            help="A file with one prompt a line, GenEval's JSON lines or VBench's JSON; - for standard input; a bit "
            "store for its captions.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, Argument(metavar="OUT.zarr", help="Features store to make, resume or add to.", show_default=False)
    ],
    text_encoder: Annotated[
        str,
        Option(
            **options.one_of("minilm", others=["DIR"]),
            help="Folder of a text encoder with its tokenizer, or the name of one.",
        ),
    ],
    recipe: Annotated[
        Path | None,
        Option(metavar="RUN|RECIPE", help="Generator whose templates are applied; default: prompts as they are."),
    ] = None,
    task: Annotated[
        str | None,
        Option(
            **options.one_of("image", "clip", "first-frame"),
            help="What the prompts ask for: which template of the recipe; default: image, for captions what they are "
            "of.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: Annotated[
        str,
        Option(
            **options.one_of("float32", "bfloat16"),
            help="Number format of the encoder's arithmetic; features are kept in bfloat16 either way.",
        ),
    ] = "float32",
    part: options.Part = "0/1",
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace an existing store.")] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Encode prompts into a store of text features.

    Each distinct prompt is encoded once, and the empty one, which guidance needs, too; those that the store has already
    are left alone. Killed or stopped, run it again: it resumes, and ends with the same bytes.
    """
    part = own_part(part)
    with monitored("encode-text", "prompts", max_time) as monitor:
        from grncli.calls.text_calls import encode_text

        chosen: EncodeTextOptions = {
            "recipe": recipe,
            "task": task,  # type: ignore[typeddict-item]
            "device": device,
            "dtype": dtype,
            "part": part,
            "overwrite": overwrite,
        }
        if dry_run:
            print_costs(encode_text, prompts, out, text_encoder=text_encoder, progress=monitor, json=json, **chosen)
            return
        summary = encode_text(prompts, out, text_encoder=text_encoder, progress=monitor, **chosen)
    if json:
        print_json({**asdict(summary), "out": str(out)})
    say(f"{out}{'' if part == '0/1' else f', part {part}'}: {_done(summary)}")


def _done(summary: "PromptEncodingSummary") -> str:
    there = summary.prompts - summary.made
    if not summary.made:
        all_of = "the prompt is" if there == 1 else f"all {there} prompts are"
        return f"nothing to do, {all_of} there" if there else "nothing to do, no prompt falls to it"
    encoded = f"encoded {counted(summary.made, 'prompt')}"
    known = f", {there} more {'was' if there == 1 else 'were'} there already" if there else ""
    return f"{encoded} in {format_seconds(summary.seconds)}{known}"
