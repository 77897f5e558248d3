"""``grncli.estimate_costs``: what another call would take, as ``--dry-run`` tells it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import grncli
from grncli.costs.run_costs import RunCosts
from grncli.runtime.errors import UsageError

# Modules of the estimates, imported when one is asked for: what others import would count as memory of this one.
_MODULES = {
    "tokenize": "media_estimates",
    "decode": "media_estimates",
    "sample": "sampling_estimate",
    "encode_text": "text_estimate",
    "quantize_stats": "measuring_estimates",
    "evaluate": "measuring_estimates",
    "evaluate_reconstruction": "measuring_estimates",
    "train_tokenizer": "training_estimates",
    "train_generator": "training_estimates",
}


def estimate_costs(call: Callable[..., object], *arguments: Any, **options: Any) -> RunCosts:
    """What a call would take: how much there is to do, seconds, memory and bytes on disk.

    A few seconds of the work are done, and nothing of it is kept. The figures are of this machine as it is now.

    Parameters
    ----------
    call : ``grncli.tokenize``, ``decode``, ``sample`` (with ``out``), ``encode_text``, ``quantize_stats``,
        ``evaluate``, ``evaluate_reconstruction``, ``train_tokenizer`` or ``train_generator``
    arguments, options : of that call

    Returns
    -------
    RunCosts
        ``seconds``, ``memory.process``, ``disk.written``, ``counts["samples"]``, ...; all of it by ``to_json()``.

    Raises
    ------
    UsageError
        If it is none of these calls.
    GrnError
        As the call itself, before its work begins.
    """
    name = getattr(call, "__name__", "")
    if name not in _MODULES or getattr(grncli, name) is not call:
        raise UsageError(f"estimate_costs: {call!r} has no costs to tell, expected one of {', '.join(_MODULES)}")
    estimate: Callable[..., RunCosts] = getattr(import_module(f"grncli.calls.{_MODULES[name]}"), f"estimate_{name}")
    return estimate(*arguments, **options)
