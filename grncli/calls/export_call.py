"""``grncli.export_samples``: samples as other benchmarks read them."""

from pathlib import Path
from typing import Literal

from grncli.calls.option_forms import Place, Progress, device_name, following, takes_options
from grncli.evaluation.benchmark_folders import ExportSummary, export


@takes_options()
def export_samples(
    samples: Place,
    out: Place,
    layout: Literal["geneval", "vbench"],
    *,
    prompts: Place | None = None,
    tokenizer: Place | None = None,
    device: object = "auto",
    progress: Progress = None,
    max_time: str | float | None = None,
) -> ExportSummary:
    """Lay samples out as GenEval (images) or VBench (clips) read them, as ``grn eval export`` does.

    Parameters
    ----------
    samples : folder or store that `grncli.sample` made of prompts
    out : folder to lay the files out in
    layout : benchmark that is to read them
    prompts : file of the prompts the samples were made with; GenEval needs its own lines
    tokenizer : run directory that decodes a store
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or a ``torch.device``
    progress : called with (samples done, samples in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`

    Returns
    -------
    ExportSummary
        Prompts, files written now and before, and ``warnings`` where their numbers are not those of the benchmark.

    Raises
    ------
    Stopped
        At ``max_time``; files written so far are whole, and the same call resumes.
    GrnError
        `UsageError`, `StoreError` or `CheckpointError`, before anything is written.
    """
    return export(
        Path(samples),
        Path(out),
        layout,
        prompts=None if prompts is None else Path(prompts),
        tokenizer=None if tokenizer is None else str(tokenizer),
        device=device_name(device),
        monitor=following(progress, max_time),
    )
