"""``grncli.work_status``: how far the work in stores, runs, decoded folders and searches is."""

from collections.abc import Sequence
from pathlib import Path

from grncli.calls.option_forms import Place, takes_options
from grncli.status.finding import work_below
from grncli.status.work_status import WorkStatus


@takes_options()
def work_status(paths: Place | Sequence[Place]) -> list[WorkStatus]:
    """How far the parts of stores, runs, decoded files and searches are, and who writes them, as ``grn status`` does.

    Parameters
    ----------
    paths : a store, a run, a folder of samples, of decoded files or of a search, or one that holds such; or several

    Returns
    -------
    list of WorkStatus
        Of each that was found, in the order of their names, its pieces and their sums.

    Raises
    ------
    GrnError
        If a path does not exist, or nothing of the kind is found at one.
    """
    return work_below([Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)])
