"""``grn copy``: stores and run directories to and from URLs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument

from grncli.cli import options
from grncli.cli.console import Progress, format_bytes, guarded, make_stop, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import counted
from grncli.runtime.urls import reads_urls


@examples(
    "grn copy photos.zarr s3://bucket/photos.zarr",
    "grn copy https://example.com/photos.zarr photos.zarr",
    "grn copy runs/gen s3://bucket/runs/gen",
)
@guarded
@reads_urls("src", "dst")
def copy(
    src: Annotated[
        Path, Argument(metavar="SRC", help="Store or run directory: a folder or a URL.", show_default=False)
    ],
    dst: Annotated[Path, Argument(metavar="DST", help="Folder or URL it is copied to.", show_default=False)],
    max_time: options.MaxTime = None,
    overwrite: Annotated[bool, options.overwrite("Replace what DST has that was made otherwise.")] = False,
    json: options.Json = False,
) -> None:
    """Copy a store or a run directory to or from an object store.

    Only what is missing at DST or differs is copied, and compared with its checksums once it is there; an interrupted
    copy resumes. What marks a store or run as complete comes last. Of a store, what its commit records count is copied,
    so that a server need not list files.
    """
    works_alone()
    with make_stop(max_time).listening() as stop, Progress("copy", "MB") as progress:
        from grncli.calls.copy_call import copy as copy_files

        shown = lambda done, total, note: progress(done // 10**6, (total or 0) // 10**6, note)  # noqa: E731
        summary = copy_files(src, dst, overwrite=overwrite, progress=Monitor(stop, shown, progress.say))
    if json:
        print_json({**asdict(summary), "dst": str(dst)})
    size = f" ({format_bytes(summary.copied_bytes)})" if summary.copied else ""
    state = "" if summary.copied else "nothing to do, "
    say(f"{dst}: {state}{counted(summary.copied, 'file')} copied{size}, {summary.present} there already")
