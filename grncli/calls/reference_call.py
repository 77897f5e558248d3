"""``grncli.save_statistics``: a reference that is measured once and used again."""

from pathlib import Path
from typing import Unpack

from grncli.calls.measuring_calls import NetworkChoice, network_options, picture_reading
from grncli.calls.option_forms import Place, Progress, following, settled, takes_options
from grncli.calls.statistics_call import PictureOptions
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.reference_writing import ReferenceSettings, ReferenceSummary, write_reference
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.runtime.urls import reads_urls


class StatisticsOptions(NetworkChoice, PictureOptions, total=False):
    """The options of ``grn eval stats``."""

    strict: bool  # stop at the first source that cannot be read
    tokenizer: Place | None  # run directory that decodes stores
    keep_features: bool  # each feature vector too, for KID, precision and recall
    as_pictures: bool  # the pictures themselves (arr_0), which guided-diffusion's evaluator reads (--pictures)
    overwrite: bool  # replace the file


@takes_options(PictureReading, download=False, keep_features=False, as_pictures=False, overwrite=False)
@reads_urls("src")
def save_statistics(
    src: Place,
    out: Place,
    *,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
    **options: Unpack[StatisticsOptions],
) -> ReferenceSummary:
    """Save mean and covariance of the features of pictures, as ``grn eval stats`` does.

    `grncli.evaluate` takes the file as its reference; guided-diffusion, JiT, pytorch-fid and torch-fidelity read it.

    Parameters
    ----------
    src : media, a bit store, or an ``.npz`` of pictures
    out : ``.npz`` to write
    progress : called with (pictures done, pictures in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Unfinished`
    processes : those that measure together, each its share
    options : those of the command; `StatisticsOptions` says what each is

    Returns
    -------
    ReferenceSummary
        What was written, as ``document`` and in words as ``text``.

    Raises
    ------
    Unfinished
        At ``max_time``; nothing is written.
    GrnError
        `UsageError`, `MediaError`, `StoreError` or `CheckpointError`.
    """
    values = settled(options)
    settings = ReferenceSettings(
        reading=picture_reading(values),
        networks=network_options(values),
        keep_features=values.get("keep_features", False),
        as_pictures=values.get("as_pictures", False),
        overwrite=values.get("overwrite", False),
    )
    return write_reference(str(src), Path(out), settings, processes=processes, monitor=following(progress, max_time))
