"""Generative Refinement Networks: media to bits, bits to media. See ``grn --help``."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["load_generator", "load_tokenizer", "open_store"]

if TYPE_CHECKING:
    from grncli.runs.generators import load_generator
    from grncli.runs.tokenizers import load_tokenizer
    from grncli.store import open_store


def __getattr__(name: str) -> Any:
    """Import the public functions on first use, so that ``import grncli`` stays instant."""
    if name == "load_generator":
        from grncli.runs.generators import load_generator

        return load_generator
    if name == "load_tokenizer":
        from grncli.runs.tokenizers import load_tokenizer

        return load_tokenizer
    if name == "open_store":
        from grncli.store import open_store

        return open_store
    raise AttributeError(f"module 'grncli' has no attribute {name!r}")
