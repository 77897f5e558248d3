"""What ``grncli.tokenize`` and ``grncli.decode`` would take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grncli.calls.media_calls import decode_settings, tokenize_settings
from grncli.calls.option_forms import Place, Progress, following, source_arguments
from grncli.costs.decoding_costs import decoding_costs
from grncli.costs.run_costs import RunCosts
from grncli.costs.tokenizing_costs import tokenizing_costs
from grncli.runtime.urls import located
from grncli.tokenizing.part_work import describe_target
from grncli.tokenizing.tokenizing_plan import make_plan, with_classes_of


def estimate_tokenize(
    src: Place | Sequence[Place],
    out: Place,
    *,
    tokenizer: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.tokenize`` with these arguments."""
    settings, monitor = tokenize_settings(options), following(progress, max_time)  # type: ignore[arg-type]
    plan = make_plan(source_arguments(src), str(tokenizer), settings, monitor=monitor)
    store = Path(out)
    plan = with_classes_of(store, plan, settings)
    describe_target(store, plan, settings)  # refuses what the call would
    return tokenizing_costs(plan, store, settings, monitor=monitor)


def estimate_decode(
    store: Place,
    out: Place,
    *,
    tokenizer: Place,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Any,
) -> RunCosts:
    """Costs of ``grncli.decode`` with these arguments."""
    settings, monitor = decode_settings(options), following(progress, max_time)  # type: ignore[arg-type]
    return decoding_costs(located(store), Path(out), str(tokenizer), settings, monitor=monitor)
