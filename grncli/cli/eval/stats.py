"""``grn eval stats``: statistics of a reference, to be used again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.reports import check_file
from grncli.cli.session import Session, open_session
from grncli.runtime.errors import UsageError

if TYPE_CHECKING:
    from grncli.evaluation.measuring import Pictures
    from grncli.metrics.feature_networks import FeatureNetwork


@examples(
    "grn eval stats photos photos.npz --size 256 --keep-features --download",
)
@guarded
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
    check_file(out, (".npz",))
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another name, or add --overwrite")
    if as_pictures and (networks.features is not None or keep_features):
        raise UsageError("--pictures needs no features; leave --features and --keep-features out")
    with open_session("eval stats", "pictures", device, max_time, own_shares=True) as session:
        from grncli.evaluation.picture_sources import open_pictures, open_tokenizer_of

        monitor = session.monitor
        reading = open_tokenizer_of(pictures.reading(session.device, tokenizer), [src], monitor.say)
        source = open_pictures(src, reading, say=monitor.say)
        if as_pictures:
            document, text = _write_pictures(source, out, session)
        else:
            one_size = reading.size is None
            network = networks.settings().open("inception", reading, monitor.say)
            document, text = _write_statistics(source, out, network, session, one_size=one_size, keep=keep_features)
    if session.processes.is_main:
        if json:
            print_json({**document, "out": str(out)})
        say(f"{out}: {text}")


def _write_pictures(pictures: "Pictures", out: Path, session: Session) -> tuple[dict[str, Any], str]:
    from grncli.evaluation.picture_arrays import write_pictures

    if session.processes.count > 1:
        raise UsageError("--pictures is written by one process, expected it without torchrun")
    shape = write_pictures(out, pictures, monitor=session.monitor)
    document = {"kind": "pictures", "src": pictures.src, "arr_0": list(shape)}
    return document, f"{shape[0]} pictures of {shape[1]}x{shape[2]} pixels"


def _write_statistics(
    pictures: "Pictures", out: Path, network: "FeatureNetwork", session: Session, *, one_size: bool, keep: bool
) -> tuple[dict[str, Any], str]:
    from grncli.evaluation.feature_collection import collect
    from grncli.metrics.statistics_files import write_statistics

    statistics = collect(
        pictures, network, keep=keep, one_size=one_size, processes=session.processes, monitor=session.monitor
    )
    if session.processes.is_main:
        write_statistics(out, statistics, features=keep)
    document = {"kind": "stats", "dimensions": len(statistics.mean), **statistics.about}
    return document, f"statistics of {statistics.count} features of {len(statistics.mean)} dimensions by {network.name}"
