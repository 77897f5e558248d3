"""What ``grncli.encode_text`` would take."""

from pathlib import Path
from typing import Any

from grncli.calls.option_forms import Place, Progress, following
from grncli.calls.text_calls import encoding_settings
from grncli.costs.run_costs import RunCosts
from grncli.costs.text_costs import text_costs


def estimate_encode_text(
    prompts: Place,
    out: Place,
    *,
    text_encoder: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.encode_text`` with these arguments."""
    settings, device, open_encoder = encoding_settings(text_encoder, options)  # type: ignore[arg-type]
    monitor = following(progress, max_time)
    return text_costs(str(prompts), Path(out), open_encoder, settings, device=device, monitor=monitor)
