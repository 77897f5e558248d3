"""``grn decode``: bits back to pictures and clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.cost_report import print_costs
from grncli.cli.help_pages import examples
from grncli.runtime.files import check_file
from grncli.runtime.text import counted
from grncli.runtime.urls import reads_urls

if TYPE_CHECKING:
    from grncli.calls.media_calls import DecodeOptions


@examples(
    "grn decode photos.zarr out --tokenizer runs/tok --sheet sheet.png",
    "# From the first round of 16 samples, with the PSNR against the sources",
    "grn decode photos.zarr coarse --tokenizer runs/tok --rounds 1 \\",
    "    --select 0:16 --compare photos",
    "# As shards with captions and labels, for other programs",
    "grn decode photos.zarr shards --tokenizer runs/tok \\",
    "    --format webdataset:jpg --quality 90",
)
@guarded
@reads_urls("store")
def decode(
    store: Annotated[Path, Argument(metavar="OUT.zarr", help="Bit store, or its URL.", show_default=False)],
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder for the files.", show_default=False)],
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
    dtype: Annotated[
        str, Option(**options.one_of("float32", "bfloat16"), help="Number format of the decoder's arithmetic.")
    ] = "float32",
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace what was decoded otherwise.")] = False,
    format: Annotated[
        str,
        Option(
            "--format",
            **options.one_of("png", "jpg", "webp", "webdataset", others=["webdataset:jpg"]),
            help="Format of pictures; webdataset: tar shards of PNG, webdataset:jpg (or :webp) of others.",
        ),
    ] = "png",
    quality: Annotated[
        int | None, Option(metavar="Q", min=1, max=100, help="Quality of JPEG and WebP; default: 95.")
    ] = None,
    shard_size: Annotated[
        int | None, Option(metavar="N", min=1, help="Samples of a webdataset shard; default: 1000.")
    ] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Decode a bit store into pictures and clips.

    Images become PNG, JPEG or WebP files and clips MP4 files, in folders like those of the sources, or members of
    WebDataset shards with the label and the captions of each sample.
    """
    works_alone()
    if sheet is not None:
        check_file(sheet)
    with monitored("decode", "samples", max_time) as monitor:
        from grncli.calls.media_calls import decode

        chosen: DecodeOptions = {
            "rounds": rounds,
            "select": select,
            "sheet": sheet,
            "compare": compare,
            "batch": batch,
            "device": device,
            "dtype": dtype,
            "overwrite": overwrite,
            "format": format,
            "quality": quality,
            "shard_size": shard_size,
        }
        if dry_run:
            print_costs(decode, store, folder, tokenizer=tokenizer, progress=monitor, json=json, **chosen)
            return
        summary = decode(store, folder, tokenizer=tokenizer, progress=monitor, **chosen)
    measured = summary.quality.means()
    if json:
        print_json({"out": str(folder), "written": summary.written, "present": summary.present, **measured})
    there = f", there already: {summary.present}" if summary.present else ""
    partly = "" if summary.complete else f"; {store} is not complete yet"
    made = counted(summary.written, "sample" if "webdataset" in format else "file")
    say(f"{folder}: {made} written{there}{partly}")
    if measured and not json:
        names = {"image_psnr": "PSNR of images {:.2f} dB", "clip_psnr": "PSNR of clips {:.2f} dB"}
        names["not_compared"] = "samples without a readable source: {}"
        print(", ".join(names[name].format(value) for name, value in measured.items()))
