"""Where the files of a store come from: a folder of this machine, or a URL."""

import os
from pathlib import Path

from grncli.runtime.cache_folder import default_cache
from grncli.runtime.errors import UsageError
from grncli.runtime.object_cache import ObjectCache
from grncli.runtime.remote_objects import RemoteObjects
from grncli.runtime.urls import UrlPath, located
from grncli.store.rows.byte_source import ByteSource, LocalFiles
from grncli.store.rows.remote_files import RemoteFiles

FOLDER = "stores"  # below the folder of all that is cached
CACHE_SIZE = "GRN_CACHE_GIB"
_DEFAULT_GIB = 16.0


def files_of(place: str | Path, *, cached: bool = True) -> ByteSource:
    """The files of the store at a path or URL; nothing is opened yet.

    Parameters
    ----------
    cached : whether what a URL holds may come from what was read of it before
    """
    path = located(place)
    if not isinstance(path, UrlPath):
        return LocalFiles(path)
    return RemoteFiles(RemoteObjects(str(path)), store_cache() if cached else None)


def store_cache() -> ObjectCache | None:
    """The cache of stores that are read from URLs, as large as ``$GRN_CACHE_GIB`` says; None for 0."""
    text = os.environ.get(CACHE_SIZE) or _DEFAULT_GIB
    try:
        size = float(text)
    except ValueError:
        size = -1
    if not 0 <= size < float("inf"):
        raise UsageError(f"the environment variable {CACHE_SIZE} is {text}, expected a number of GiB, 0 or more")
    return ObjectCache(default_cache() / FOLDER, int(size * (1 << 30))) if size else None
