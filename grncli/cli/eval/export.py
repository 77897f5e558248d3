"""``grn eval export``: lay samples out as other benchmarks read them."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn eval export samples geneval --for geneval --prompts prompts.jsonl",
)
@guarded
def export(
    samples: Annotated[
        Path,
        Argument(metavar="SAMPLES", help="Folder or store that grn sample --prompts made.", show_default=False),
    ],
    folder: Annotated[Path, Argument(metavar="DIR", help="Where to lay the files out.", show_default=False)],
    layout: Annotated[
        Literal["geneval", "vbench"], Option("--for", help="Benchmark that is to read them.", show_default=False)
    ],
    prompts: Annotated[
        Path | None, Option(metavar="FILE", help="The prompts the samples were made with; GenEval needs its own lines.")
    ] = None,
    tokenizer: options.StoreTokenizer = None,
    device: options.Device = "auto",
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Lay samples out as GenEval (images) or VBench (clips) read them."""
    works_alone()
    with monitored("eval export", "samples", max_time) as monitor:
        from grncli.calls.export_call import export_samples

        summary = export_samples(
            samples, folder, layout, prompts=prompts, tokenizer=tokenizer, device=device, progress=monitor
        )
    for warning in summary.warnings:
        say(f"warning: {warning}", always=True)
    if json:
        print_json({"out": str(folder), "prompts": summary.prompts, "files": summary.files, "present": summary.present})
    there = f"; {summary.present} were there" if summary.present else ""
    say(f"{folder}: {counted(summary.files, 'file')} of {counted(summary.prompts, 'prompt')} for {layout}{there}")
