"""``grn eval stats``: statistics of a reference, to be used again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from grncli.cli.console import Progress, guarded, make_stop, print_json, say
from grncli.cli.eval import options
from grncli.cli.reports import check_writable
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
    pictures: Annotated[
        bool,
        Option("--pictures", help="Write the pictures themselves (arr_0), which guided-diffusion's evaluator reads."),
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
    if pictures:
        if features is not None or keep_features:
            raise UsageError("--pictures needs no features; leave --features and --keep-features out")
        _write_pictures(src, out, values)
        return
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
        print_json({"kind": "stats", "out": str(out), "dimensions": len(found.mean), **found.about})
    say(f"{out}: statistics of {found.count} features of {len(found.mean)} dimensions by {network.name}")


def _write_pictures(src: str, out: Path, values: Mapping[str, Any]) -> None:
    with make_stop(values["max_time"]).listening() as stop, Progress("eval stats", "pictures") as progress:
        from grncli.devices import pick_device
        from grncli.evaluation.arrays import write_pictures
        from grncli.evaluation.pictures import open_pictures

        how = options.reading(values, str(pick_device(values["device"])))
        shape = write_pictures(out, open_pictures(src, how), stop=stop, report=progress, warn=progress.say)
    if values["json"]:
        print_json({"kind": "pictures", "out": str(out), "src": src, "arr_0": list(shape)})
    say(f"{out}: {shape[0]} pictures of {shape[1]}x{shape[2]} pixels")


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise UsageError for a file that could not or should not be written."""
    if out.suffix != ".npz":
        raise UsageError(f"{out}: expected a name that ends in .npz")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: there is no such folder, expected one that exists")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder, expected the name of a file")
    check_writable(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another name, or add --overwrite")
