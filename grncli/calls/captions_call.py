"""``grncli.add_captions``: captions of an existing bit store."""

from collections.abc import Mapping
from pathlib import Path

from grncli.calls.option_forms import Place, takes_options
from grncli.captioning.captioning_stage import CaptioningSummary, caption_store
from grncli.media.listing.manifest_rows import parse_columns


@takes_options()
def add_captions(store: Place, file: Place, *, columns: str | Mapping[str, str] | None = None) -> CaptioningSummary:
    """Give the sources of a bit store captions, in place of those they had, as ``grn captions`` does.

    The bits stay as they are.

    Parameters
    ----------
    store : bit store whose sources have captions
    file : JSON lines such as ``{"path": "cats/1.jpg", "caption": "a cat"}``, CSV, TSV or Parquet
    columns : which of the file's columns say what, ``{"path": "file", "caption": "text"}`` or ``"path=file"``

    Returns
    -------
    CaptioningSummary
        Sources whose captions were added, replaced and unchanged, and those that have none.

    Raises
    ------
    GrnError
        `UsageError` or `StoreError`, with nothing changed.
    """
    return caption_store(Path(store), Path(file), parse_columns(columns) if columns else None)
