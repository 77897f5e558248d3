"""``grn decode``: bits back to pictures and clips."""

import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.reports import check_file
from grncli.runtime.errors import UsageError


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

    PNG for images, MP4 for clips, in folders like those of the sources.
    """
    chosen = parse_select(select)
    works_alone()
    if sheet is not None:
        check_file(sheet)
    with monitored("decode", "samples", max_time) as monitor:
        from grncli.decoding.store_decoding import DecodeSettings, decode
        from grncli.runtime.devices import pick_device

        settings = DecodeSettings(
            rounds=rounds,
            select=chosen,
            sheet=sheet,
            compare=compare,
            device=str(pick_device(device)),
            batch=batch,
            overwrite=overwrite,
        )
        summary = decode(store, folder, tokenizer, settings, monitor=monitor)
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


def parse_select(text: str) -> tuple[int | None, int | None, int | None]:
    """``A:B`` or ``A:B:S`` as the arguments of a slice, a lone number as that one sample; UsageError otherwise."""
    if re.fullmatch(r"-?\d+", text):
        return int(text), int(text) + 1 or None, None
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::([1-9]\d*))?", text)
    if not match:
        raise UsageError(f"--select {text}: expected a range of samples such as 0:16")
    start, end, step = (None if number is None else int(number) for number in match.groups())
    return start, end, step
