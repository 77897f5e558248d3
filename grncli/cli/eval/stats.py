"""``grn eval stats``: statistics of a reference, to be used again."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from grncli.cli.console import guarded, print_json, say
from grncli.cli.eval import options
from grncli.errors import UsageError


@guarded
def stats(
    src: Annotated[
        str, Argument(metavar="SRC", help="Media, a bit store, or an .npz of pictures.", show_default=False)
    ],
    out: Annotated[Path, Argument(metavar="OUT.npz", help="Statistics file to write.", show_default=False)],
    features: options.Features = None,
    keep_features: Annotated[
        bool, Option("--keep-features", help="Keep each feature vector too, for KID, precision and recall.")
    ] = False,
    tokenizer: options.Tokenizer = None,
    size: options.Size = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    limit: options.Limit = None,
    batch: options.Batch = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
    download: options.Download = False,
    strict: options.Strict = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace OUT.npz.")] = False,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Mean and covariance of features, as guided-diffusion, JiT, pytorch-fid and torch-fidelity read them."""
    values = locals()
    check_out(out, overwrite=overwrite)
    with options.session("stats", "pictures", device, max_time) as session:
        from grncli.evaluation.pictures import open_pictures
        from grncli.evaluation.statistics import collect, write_statistics
        from grncli.feature_networks import load_feature_network

        how = options.reading(values, session.device)
        network = load_feature_network(
            features or "inception",
            cache=options.cache_folder(cache) / "features",
            download=download,
            device=session.device,
            say=session.talk,
        )
        found = collect(
            open_pictures(src, how),
            network,
            keep=keep_features,
            one_size=size is None,
            processes=session.processes,
            stop=session.stop,
            report=session.report,
            warn=session.talk,
        )
        if not session.processes.leads:
            return
        write_statistics(out, found, features=keep_features)
    if json:
        print_json(found.about)
    say(f"{out}: statistics of {found.count} features of {len(found.mean)} dimensions by {network.name}")


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise UsageError for a file that could not or should not be written."""
    if out.suffix != ".npz":
        raise UsageError(f"{out}: expected a name that ends in .npz")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: there is no such folder, expected one that exists")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder, expected the name of a file")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another name, or add --overwrite")
