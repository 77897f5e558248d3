"""What samples are compared with: statistics from files or of pictures, and whether two of them compare."""

from dataclasses import replace
from pathlib import Path

from grncli.evaluation.feature_collection import collect
from grncli.evaluation.measuring import PictureReading, show_size
from grncli.evaluation.picture_arrays import ArrayPictures, holds_pictures
from grncli.evaluation.picture_sources import open_pictures
from grncli.evaluation.sample_metrics import FROM_CLASSES, FROM_FEATURES
from grncli.metrics.feature_networks import FeatureNetwork
from grncli.metrics.statistics_files import Distribution, holds_statistics, read_statistics, same_network
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes


def load_distribution(
    src: str,
    network: FeatureNetwork | None,
    reading: PictureReading,
    wanted: frozenset[str],
    *,
    processes: Processes = SINGLE_PROCESS,
    monitor: Monitor | None = None,
) -> Distribution:
    """Statistics from a file, or of pictures in the features of ``network``, with what the ``wanted`` metrics need."""
    keep, path = bool(wanted & FROM_FEATURES), Path(src)
    if not holds_statistics(path):
        assert network is not None
        return collect(
            open_pictures(src, reading, say=(monitor or Monitor()).say),
            network,
            keep=keep,
            probabilities=bool(wanted & FROM_CLASSES),
            one_size=reading.size is None,
            processes=processes,
            monitor=monitor,
        )
    statistics = read_statistics(path)
    if not keep or statistics.features is not None or network is None or not holds_pictures(path):
        return statistics
    # A reference batch of guided-diffusion: moments of all pictures, and some of the pictures themselves.
    array = ArrayPictures(path, PictureReading(batch=reading.batch))
    quiet = None if monitor is None else Monitor(stop=monitor.stop)
    some = collect(array, network, keep=True, processes=processes, monitor=quiet)
    same_network(some, statistics)
    about = {**statistics.about, "features_of": f"{some.count} pictures in the file"}
    return replace(statistics, features=some.features, about=about)


def check_together(ours: Distribution, theirs: Distribution, size: str | None) -> list[str]:
    """Warnings about a comparison; UsageError where the two sides do not compare."""
    same_network(ours, theirs)
    left, right = (side.about.get("picture") for side in (ours, theirs))
    if size != "native" and left and right and left != right:
        advice = f"give --size {show_size(right)} to bring them to it" if size is None else "make both with one --size"
        raise UsageError(
            f"{ours.name} has pictures of {show_size(left)} pixels and {theirs.name} of {show_size(right)}; expected "
            f"one size, {advice}, or give --size native to take them so"
        )
    differ = [
        f"{ours.name} was read with {name} {a} and {theirs.name} with {b}"
        for name in ("filter", "frames", "fps")
        if (a := ours.about.get(name)) and (b := theirs.about.get(name)) and a != b
    ]
    return [*unsaid(ours), *unsaid(theirs), *differ]


def unsaid(statistics: Distribution) -> list[str]:
    """Warnings about statistics that do not say how they were made."""
    wanted = (("network", "which network made it"), ("picture", "the size of its pictures"))
    return [f"{statistics.name} does not say {what}" for name, what in wanted if name not in statistics.about]
