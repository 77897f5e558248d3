"""Generative Refinement Networks: media to bits, bits to media. See ``grn --help``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "BitDataset",
    "BitIterableDataset",
    "GrnError",
    "Monitor",
    "Stop",
    "Stopped",
    "add_captions",
    "compact_store",
    "copy",
    "decode",
    "dedupe_store",
    "draw_shapes",
    "drop_samples",
    "encode_text",
    "estimate_costs",
    "evaluate",
    "evaluate_reconstruction",
    "export_run",
    "export_samples",
    "load_generator",
    "load_text_encoder",
    "load_tokenizer",
    "merge_stores",
    "open_features",
    "open_store",
    "quantize_stats",
    "sample",
    "save_statistics",
    "search_settings",
    "split_store",
    "tokenize",
    "train_generator",
    "train_tokenizer",
    "work_status",
]

if TYPE_CHECKING:
    __version__: str
    from grncli.calls.captions_call import add_captions
    from grncli.calls.copy_call import copy
    from grncli.calls.costs_call import estimate_costs
    from grncli.calls.export_call import export_samples
    from grncli.calls.measuring_calls import evaluate, evaluate_reconstruction
    from grncli.calls.media_calls import decode, tokenize
    from grncli.calls.reference_call import save_statistics
    from grncli.calls.run_export_call import export_run
    from grncli.calls.sampling_files import sample
    from grncli.calls.search_call import search_settings
    from grncli.calls.shapes_call import draw_shapes
    from grncli.calls.statistics_call import quantize_stats
    from grncli.calls.status_call import work_status
    from grncli.calls.store_calls import compact_store, dedupe_store, drop_samples, merge_stores, split_store
    from grncli.calls.text_calls import encode_text
    from grncli.calls.training_calls import train_generator, train_tokenizer
    from grncli.datasets.bit_dataset import BitDataset
    from grncli.datasets.bit_iterable_dataset import BitIterableDataset
    from grncli.runs.generators import load_generator
    from grncli.runs.tokenizers import load_tokenizer
    from grncli.runtime.errors import GrnError
    from grncli.runtime.monitor import Monitor
    from grncli.runtime.stopping import Stop, Stopped
    from grncli.store import open_store
    from grncli.store.text_features import open_features
    from grncli.text.encoders import load_text_encoder

_MODULES = {
    "BitDataset": "grncli.datasets.bit_dataset",
    "BitIterableDataset": "grncli.datasets.bit_iterable_dataset",
    "GrnError": "grncli.runtime.errors",
    "Monitor": "grncli.runtime.monitor",
    "Stop": "grncli.runtime.stopping",
    "Stopped": "grncli.runtime.stopping",
    "add_captions": "grncli.calls.captions_call",
    "compact_store": "grncli.calls.store_calls",
    "copy": "grncli.calls.copy_call",
    "decode": "grncli.calls.media_calls",
    "dedupe_store": "grncli.calls.store_calls",
    "draw_shapes": "grncli.calls.shapes_call",
    "drop_samples": "grncli.calls.store_calls",
    "encode_text": "grncli.calls.text_calls",
    "estimate_costs": "grncli.calls.costs_call",
    "evaluate": "grncli.calls.measuring_calls",
    "evaluate_reconstruction": "grncli.calls.measuring_calls",
    "export_run": "grncli.calls.run_export_call",
    "export_samples": "grncli.calls.export_call",
    "load_generator": "grncli.runs.generators",
    "load_text_encoder": "grncli.text.encoders",
    "load_tokenizer": "grncli.runs.tokenizers",
    "merge_stores": "grncli.calls.store_calls",
    "open_features": "grncli.store.text_features",
    "open_store": "grncli.store",
    "quantize_stats": "grncli.calls.statistics_call",
    "sample": "grncli.calls.sampling_files",
    "save_statistics": "grncli.calls.reference_call",
    "search_settings": "grncli.calls.search_call",
    "split_store": "grncli.calls.store_calls",
    "tokenize": "grncli.calls.media_calls",
    "train_generator": "grncli.calls.training_calls",
    "train_tokenizer": "grncli.calls.training_calls",
    "work_status": "grncli.calls.status_call",
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
