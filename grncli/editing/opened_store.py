"""A store of any kind, by its path."""

from pathlib import Path

from grncli.store import BitStore, open_store
from grncli.store.text_features import FeatureStore, is_features_store, open_features

AnyStore = BitStore | FeatureStore


def open_any_store(path: Path) -> AnyStore:
    """Open a bit store or a features store; StoreError where it is neither."""
    return open_features(path) if path.is_dir() and is_features_store(path) else open_store(path)
