"""``grn eval stats``: statistics of a reference, to be used again."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.session import guarded_together, open_session
from grncli.runtime.urls import reads_urls


@examples(
    "grn eval stats photos photos.npz --size 256 --keep-features --download",
)
@guarded_together
@reads_urls("src")
@options.grouped
def stats(
    src: Annotated[
        str, Argument(metavar="SRC", help="Media, a bit store, or an .npz of pictures.", show_default=False)
    ],
    out: Annotated[Path, Argument(metavar="OUT.npz", help="Statistics file to write.", show_default=False)],
    *,
    networks: options.NetworkGroup,
    keep_features: Annotated[
        bool, Option("--keep-features", help="Keep each feature vector too, for KID, precision and recall.")
    ] = False,
    as_pictures: Annotated[
        bool,
        Option("--pictures", help="Write the pictures themselves (arr_0), which guided-diffusion's evaluator reads."),
    ] = False,
    tokenizer: options.StoreTokenizer = None,
    pictures: options.PictureGroup,
    device: options.Device = "auto",
    overwrite: Annotated[bool, options.overwrite("Replace OUT.npz.")] = False,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Save mean and covariance of features as a reference.

    The file can be read by guided-diffusion, JiT, pytorch-fid and torch-fidelity too.
    """
    with open_session("eval stats", "pictures", device, max_time, own_shares=True) as session:
        from grncli.calls.reference_call import save_statistics

        summary = save_statistics(
            src,
            out,
            **vars(networks),
            keep_features=keep_features,
            as_pictures=as_pictures,
            tokenizer=tokenizer,
            **vars(pictures),
            device=session.device,
            overwrite=overwrite,
            processes=session.processes,
            progress=session.monitor,
        )
    if session.processes.is_main:
        if json:
            print_json(summary.to_json())
        say(f"{out}: {summary.text}")
