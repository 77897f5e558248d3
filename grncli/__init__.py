"""Generative Refinement Networks: media to bits, bits to media. See ``grn --help``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "GrnError",
    "Monitor",
    "Stop",
    "Stopped",
    "decode",
    "draw_shapes",
    "encode_text",
    "evaluate",
    "evaluate_reconstruction",
    "load_generator",
    "load_text_encoder",
    "load_tokenizer",
    "open_features",
    "open_store",
    "quantize_stats",
    "sample",
    "tokenize",
    "train_generator",
    "train_tokenizer",
]

if TYPE_CHECKING:
    __version__: str
    from grncli.calls.measuring_calls import evaluate, evaluate_reconstruction
    from grncli.calls.media_calls import decode, tokenize
    from grncli.calls.sampling_files import sample
    from grncli.calls.shapes_call import draw_shapes
    from grncli.calls.statistics_call import quantize_stats
    from grncli.calls.text_calls import encode_text
    from grncli.calls.training_calls import train_generator, train_tokenizer
    from grncli.runs.generators import load_generator
    from grncli.runs.tokenizers import load_tokenizer
    from grncli.runtime.errors import GrnError
    from grncli.runtime.monitor import Monitor
    from grncli.runtime.stopping import Stop, Stopped
    from grncli.store import open_store
    from grncli.store.text_features import open_features
    from grncli.text.encoders import load_text_encoder

_MODULES = {
    "GrnError": "grncli.runtime.errors",
    "Monitor": "grncli.runtime.monitor",
    "Stop": "grncli.runtime.stopping",
    "Stopped": "grncli.runtime.stopping",
    "decode": "grncli.calls.media_calls",
    "draw_shapes": "grncli.calls.shapes_call",
    "encode_text": "grncli.calls.text_calls",
    "evaluate": "grncli.calls.measuring_calls",
    "evaluate_reconstruction": "grncli.calls.measuring_calls",
    "load_generator": "grncli.runs.generators",
    "load_text_encoder": "grncli.text.encoders",
    "load_tokenizer": "grncli.runs.tokenizers",
    "open_features": "grncli.store.text_features",
    "open_store": "grncli.store",
    "quantize_stats": "grncli.calls.statistics_call",
    "sample": "grncli.calls.sampling_files",
    "tokenize": "grncli.calls.media_calls",
    "train_generator": "grncli.calls.training_calls",
    "train_tokenizer": "grncli.calls.training_calls",
}


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that ``import grncli`` stays instant; and look up the version."""
    if name == "__version__":
        return _installed_version()
    if name not in _MODULES:
        raise AttributeError(f"module 'grncli' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Also what is not imported yet, for completion in a notebook."""
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("grncli")
    except PackageNotFoundError:  # a checkout on the path that was never installed
        return "0+unknown"
