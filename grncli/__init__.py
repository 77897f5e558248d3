"""Generative Refinement Networks: media to bits, bits to media. See ``grn --help``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["load_generator", "load_text_encoder", "load_tokenizer", "open_features", "open_store", "sample"]

if TYPE_CHECKING:
    from grncli.runs.generators import load_generator
    from grncli.runs.tokenizers import load_tokenizer
    from grncli.sampling.sampling_call import sample
    from grncli.store import open_store
    from grncli.store.text_features import open_features
    from grncli.text.encoders import load_text_encoder

_MODULES = {
    "load_generator": "grncli.runs.generators",
    "load_text_encoder": "grncli.text.encoders",
    "load_tokenizer": "grncli.runs.tokenizers",
    "open_features": "grncli.store.text_features",
    "open_store": "grncli.store",
    "sample": "grncli.sampling.sampling_call",
}


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that ``import grncli`` stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module 'grncli' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
