"""What ``grncli.sample`` would take."""

from pathlib import Path
from typing import Any

from grncli.calls.option_forms import Place, Progress, following
from grncli.calls.sampling_files import sample_options
from grncli.costs.run_costs import RunCosts
from grncli.costs.sampler_costs import sampling_costs


def estimate_sample(
    generator: Place,
    *,
    out: Place,
    tokenizer: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.sample`` with these arguments."""
    settings = sample_options({**options, "tokenizer": tokenizer})
    return sampling_costs(Path(generator), Path(out), settings, monitor=following(progress, max_time))
