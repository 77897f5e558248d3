"""``grn eval stats``: the statistics of a reference, or its pictures, in a file to be used again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.evaluation.feature_collection import NetworkOptions, collect
from grncli.evaluation.measuring import PictureReading, Pictures
from grncli.evaluation.picture_arrays import write_pictures
from grncli.evaluation.picture_sources import open_pictures, open_tokenizer_of
from grncli.metrics.statistics_files import write_statistics
from grncli.runtime.errors import UsageError
from grncli.runtime.files import check_file
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """The options of ``grn eval stats``."""

    reading: PictureReading
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    keep_features: bool = False  # each vector, which KID, precision and recall need
    as_pictures: bool = False  # the pictures themselves instead
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ReferenceSummary:
    """What ``write_reference`` wrote.

    Attributes
    ----------
    document : JSON-ready: what the file holds, and how its pictures were read and seen
    text : the same in a few words
    """

    out: Path
    document: dict[str, Any]
    text: str

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.document, "out": str(self.out)}


def write_reference(
    src: str,
    out: Path,
    settings: ReferenceSettings,
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> ReferenceSummary:
    """Write mean and covariance of the features of pictures, or with ``as_pictures`` the pictures, into an ``.npz``.

    The first of several processes writes it.

    Raises
    ------
    UsageError, MediaError, StoreError, CheckpointError
        If ``out`` may not be written, options do not go together, or nothing can be read.
    Unfinished
        If ``monitor`` asked for it; nothing is written.
    """
    monitor = monitor or Monitor()
    check_file(out, (".npz",))
    if out.exists() and not settings.overwrite:
        raise UsageError(f"{out}: exists; choose another name, or add --overwrite")
    if settings.as_pictures and (settings.networks.features is not None or settings.keep_features):
        raise UsageError("--pictures needs no features; leave --features and --keep-features out")
    if settings.as_pictures and processes.count > 1:
        raise UsageError("--pictures is written by one process, expected it without torchrun")
    reading = open_tokenizer_of(settings.reading, [src], monitor.say)
    pictures = open_pictures(src, reading, say=monitor.say)
    if not settings.as_pictures:
        return _write_statistics(pictures, out, settings, reading, processes, monitor)
    shape = write_pictures(out, pictures, monitor=monitor)
    document = {"kind": "pictures", "src": pictures.src, "arr_0": list(shape)}
    text = f"{shape[0]} pictures of {shape[1]}x{shape[2]} pixels"
    return ReferenceSummary(out=out, document=document, text=text)


def _write_statistics(
    pictures: Pictures,
    out: Path,
    settings: ReferenceSettings,
    reading: PictureReading,
    processes: Processes,
    monitor: Monitor,
) -> ReferenceSummary:
    network, keep = settings.networks.open("inception", reading, monitor.say), settings.keep_features
    one_size = reading.size is None
    statistics = collect(pictures, network, keep=keep, one_size=one_size, processes=processes, monitor=monitor)
    dimensions = len(statistics.mean)
    if processes.is_main:
        write_statistics(out, statistics, features=keep)
    return ReferenceSummary(
        out=out,
        document={"kind": "stats", "dimensions": dimensions, **statistics.about},
        text=f"statistics of {statistics.count} features of {dimensions} dimensions by {network.name}",
    )
