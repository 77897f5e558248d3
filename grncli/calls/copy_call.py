"""``grncli.copy``."""

from grncli.calls.option_forms import Place, Progress, following, takes_options
from grncli.runtime.urls import located, reads_urls
from grncli.transfer import copying
from grncli.transfer.copying import CopySummary


@takes_options()
@reads_urls("src", "dst")
def copy(
    src: Place,
    dst: Place,
    *,
    overwrite: bool = False,
    progress: Progress = None,
    max_time: str | float | None = None,
) -> CopySummary:
    """Copy a store or a run directory to or from a URL, as ``grn copy`` does.

    Parameters
    ----------
    src : bit store, features store or run directory: a folder, or a URL such as ``s3://bucket/photos.zarr``
    dst : where it is to be; only what is missing there or differs is copied
    overwrite : replace what ``dst`` has that was made otherwise
    progress : called with (bytes that are there, bytes in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`

    Raises
    ------
    Stopped
        At ``max_time``; the same call resumes.
    GrnError
        `UsageError`, `StoreError`, `StoreMismatch`, `CheckpointError`, or `RemoteError` for a server that cannot be
        reached or refuses.
    """
    return copying.copy(located(src), located(dst), overwrite=overwrite, monitor=following(progress, max_time))
