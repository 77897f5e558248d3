"""What ``grncli.evaluate``, ``evaluate_reconstruction`` and ``quantize_stats`` would take."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from grncli.calls.measuring_calls import evaluate, evaluate_reconstruction
from grncli.calls.option_forms import Place, Progress, device_name, following, worker_count
from grncli.calls.report_options import AskedReport
from grncli.calls.statistics_call import quantize_stats
from grncli.costs.measuring_costs import measuring_costs
from grncli.costs.run_costs import RunCosts
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS, Processes


def estimate_quantize_stats(
    store: Place | None = None, *, progress: Progress = None, max_time: str | float | None = None, **options: Any
) -> RunCosts:
    """Costs of ``grncli.quantize_stats`` with these arguments."""
    options = _without_files(options, drawn=True)

    def measure(monitor: Monitor) -> object:
        return quantize_stats(store, progress=monitor, **options)  # type: ignore[arg-type]

    name = "samples" if store is not None else "sources"
    return _of_measurement("quantize-stats", name, {name: measure}, options, progress, max_time)


def estimate_evaluate(
    samples: Place,
    reference: Place | None = None,
    *,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.evaluate`` with these arguments."""
    is_shown = options.get("html") is not None
    options = _without_files(options, drawn=True) | ({"shows_pictures": True} if is_shown else {})

    def measure(*sides: Place | None) -> Callable[[Monitor], object]:
        return lambda monitor: evaluate(*sides, progress=monitor, processes=processes, **options)  # type: ignore[arg-type]

    # The reference is read first, so that a trial ends within it: the samples are tried in its place.
    passes = {"pictures": measure(samples)} if reference is None else {"reference": measure(samples, reference)}
    if reference is not None:
        passes["pictures"] = measure(reference, samples)
    return _of_measurement("eval gen", "pictures", passes, options, progress, max_time, processes)


def estimate_evaluate_reconstruction(
    src: Place,
    *,
    progress: Progress = None,
    max_time: str | float | None = None,
    processes: Processes = SINGLE_PROCESS,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.evaluate_reconstruction`` with these arguments."""
    options = _without_files(options, drawn=False)

    def measure(monitor: Monitor) -> object:
        return evaluate_reconstruction(src, progress=monitor, processes=processes, **options)

    passes = {"pictures": measure}
    return _of_measurement("eval recon", "pictures", passes, options, progress, max_time, processes)


def _without_files(options: Mapping[str, Any], *, drawn: bool) -> dict[str, Any]:
    """Options without the files of a report, which no trial writes; UsageError for one that could not be written."""
    files = {name: options[name] for name in ("plot", "sheet", "html") if name in options}
    AskedReport("estimate_costs", (), files, drawn=drawn)
    return {name: value for name, value in options.items() if name not in files}


def _of_measurement(
    command: str,
    unit: str,
    passes: Mapping[str, Callable[[Monitor], object]],
    options: Mapping[str, Any],
    progress: Progress,
    max_time: str | float | None,
    processes: Processes = SINGLE_PROCESS,
) -> RunCosts:
    return measuring_costs(
        command,
        unit,
        passes,
        device=torch.device(device_name(options.get("device"))),
        decoders=worker_count(options.get("workers")),
        processes=processes.count,
        monitor=following(progress, max_time),
    )
