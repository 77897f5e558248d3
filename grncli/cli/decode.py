"""``grn decode``: bits back to pictures and clips."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.cli.reports import check_file


@examples(
    "grn decode photos.zarr out --tokenizer runs/tok --sheet sheet.png",
    "# From the first round of 16 samples, with the PSNR against the sources",
    "grn decode photos.zarr coarse --tokenizer runs/tok --rounds 1 \\",
    "    --select 0:16 --compare photos",
)
@guarded
def decode(
    store: Annotated[Path, Argument(metavar="OUT.zarr", help="Bit store.", show_default=False)],
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder for PNG and MP4 files.", show_default=False)],
    tokenizer: Annotated[str, Option(metavar="RUN", help="Run directory of the tokenizer that made the store.")],
    rounds: Annotated[int | None, Option(metavar="m", min=1, max=8, help="Decode the first m rounds only.")] = None,
    select: Annotated[str, Option(metavar="A:B[:S]", help="Samples by index, as in Python.")] = ":",
    sheet: Annotated[Path | None, Option(metavar="PNG", help="Write a contact sheet too.")] = None,
    compare: Annotated[
        str | None,
        Option(metavar="SRC", help="Print the PSNR against the sources, and show them on the sheet."),
    ] = None,
    batch: options.Batch = None,
    device: options.Device = "auto",
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace what was decoded from other bits.")] = False,
    json: options.Json = False,
) -> None:
    """Decode a bit store into pictures and clips.

    Images become PNG files and clips MP4 files, in folders like those of the sources.
    """
    works_alone()
    if sheet is not None:
        check_file(sheet)
    with monitored("decode", "samples", max_time) as monitor:
        from grncli.calls.media_calls import decode

        summary = decode(
            store,
            folder,
            tokenizer=tokenizer,
            rounds=rounds,
            select=select,
            sheet=sheet,
            compare=compare,
            batch=batch,
            device=device,
            overwrite=overwrite,
            progress=monitor,
        )
    quality = summary.quality.means()
    if json:
        print_json({"out": str(folder), "written": summary.written, "present": summary.present, **quality})
    there = f", {summary.present} were there already" if summary.present else ""
    partly = "" if summary.complete else f"; {store} is not complete yet"
    say(f"{folder}: {summary.written} files written{there}{partly}")
    if quality and not json:
        names = {"image_psnr": "PSNR of images {:.2f} dB", "clip_psnr": "PSNR of clips {:.2f} dB"}
        names["not_compared"] = "{} samples without a readable source"
        print(", ".join(names[name].format(value) for name, value in quality.items()))
