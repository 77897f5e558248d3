"""``grncli.export_run``: the weights of a run as one file with a model card."""

from pathlib import Path
from typing import Literal

from grncli.calls.option_forms import Place, Progress, following, takes_options
from grncli.runs import exporting
from grncli.runs.exporting import ExportOptions, RunExport


@takes_options()
def export_run(
    run: Place,
    out: Place,
    *,
    weights: str = "ema",
    layout: Literal["grn", "release"] = "grn",
    dtype: str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> RunExport:
    """Write the weights of a run as one safetensors file with a model card, as ``grn export`` does.

    Parameters
    ----------
    run : run directory, or one of its checkpoints
    out : folder to make; in the layout ``grn`` it opens as a run
    weights : ``ema``, ``ema2`` (the second moving average, where there is one) or ``weights``
    layout : names and shapes of the weights: ours, or those of the release, which `grn import` reads too
    dtype : number format of the weights, ``float32`` or ``bfloat16``; None leaves that of the run, float32 after a
        training
    overwrite : replace another export in ``out``
    progress : called with (bytes written, bytes in all, a note), or a `Monitor`

    Returns
    -------
    RunExport
        The file of the weights, its size, SHA-256 and number format, the step, and whether all was there before.

    Raises
    ------
    GrnError
        `UsageError`, `CheckpointError` or `LockError`; what was exported there before is still whole then, unless
        ``overwrite`` was already replacing it.
    """
    return exporting.export_run(
        Path(run), Path(out), ExportOptions(weights, layout, dtype, overwrite), following(progress)
    )
