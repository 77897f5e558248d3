"""What SRC arguments name: a file, a directory, an archive, a list of paths; several of them in order."""

import gc
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from grncli.media import archives
from grncli.media.formats import LIST_SUFFIXES, suffix_of
from grncli.media.listing.archive_members import archive_part, gather_archive
from grncli.media.listing.brace_patterns import expand_braces
from grncli.media.listing.directories import gather_directory
from grncli.media.listing.entries import Entry, files_beside, path_entry
from grncli.media.listing.gathering import Gathered
from grncli.media.listing.joining import join_gathered
from grncli.media.listing.listing_cache import ListingCache
from grncli.media.listing.manifest_sources import manifest_entries
from grncli.media.listing.manifest_tables import TABLE_SUFFIXES
from grncli.media.listing.path_lists import list_lines, listed_paths
from grncli.media.sources import Listing, Source
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable

_EXPECTED = (
    "an image (png, jpg, webp, tif, bmp, gif, ...), a clip (mp4, mkv, webm, mov, avi, ...), a directory, "
    "a .tar or .zip of those, a text file of paths, or a manifest (jsonl, csv, tsv, parquet)"
)
_SHOWN_SUFFIXES = 5


@dataclass(frozen=True)
class ListingOptions:
    """How SRC arguments are read.

    Parameters
    ----------
    prefixed : each key begins with the name of its SRC or shard
    null : the paths on standard input, and in lists, end with a zero byte and not with a line
    comments : lines of a list that begin with ``#`` are no paths
    columns : names of the columns of a manifest: ``{"path": "file", "caption": "text"}``
    outside : paths of a manifest may leave its folder
    cache : folder that keeps the listings of archives; None keeps none
    """

    prefixed: bool = False
    null: bool = False
    comments: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    outside: bool = False
    cache: Path | None = None


DEFAULTS = ListingOptions()


def list_sources(src: str | Sequence[str], options: ListingOptions = DEFAULTS) -> Listing:
    """Sources named by ``src``, one SRC or several.

    Parameters
    ----------
    src : a media file; a directory, searched with its subdirectories and the tars in them; a .tar or .zip, or
        ``archive.zip/inner/path`` for a part of one; ``shards-{000..127}.tar`` or ``{a,b}.tar`` for several; a text
        file (.txt, .lst, .list) of paths, one a line; ``-`` for such paths on standard input; a manifest (.jsonl, .csv,
        .tsv, .parquet) of paths relative to it, with what it says of them. In directories and archives the suffix says
        what is media; a file that is named itself, or in a list, may have another suffix and is known by its content

    Returns
    -------
    Listing; of each SRC in turn, and of each of its shards, sorted by ``relative``; lists of paths and manifests keep
    their own order

    Raises
    ------
    UsageError
        If a SRC does not exist, is no such thing, or has no media in it; if two
        of them, or two shards, have a source of one key.
    MediaError
        If an archive is damaged.
    """
    cache = ListingCache(options.cache)
    parts: list[Gathered] = []
    with _collector_paused():
        for pattern in [src] if isinstance(src, str) else src:
            for argument in expand_braces(pattern):
                parts += _list_argument(argument, options, cache)
        cache.trim()
        return join_gathered(parts, prefixed=options.prefixed)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """The garbage collector looks at a growing listing again and again, a third of the time for a million files."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _list_argument(src: str, options: ListingOptions, cache: ListingCache) -> list[Gathered]:
    """What one SRC lists, and behind it what each shard in it does."""
    gathered = Gathered(_name(src))
    shards: list[Gathered] = []
    archive = archive_part(src)
    if src == "-":
        gathered.add(_listed_lines(src, options))
    elif archive is not None:
        gather_archive(*archive, gathered, cache)
        gathered.sort()
    elif not os.path.lexists(src):
        raise UsageError(f"{printable(src)} does not exist; expected {_EXPECTED}.")
    elif os.path.isdir(src):
        shards = [_list_shard(gathered.name, *shard, cache) for shard in gather_directory(src, gathered)]
        gathered.sort()
    elif suffix_of(src) in LIST_SUFFIXES:
        gathered.add(_listed_lines(src, options))
    elif suffix_of(src) in TABLE_SUFFIXES:
        gathered.add(manifest_entries(src, options.columns, outside=options.outside))
    else:
        gathered.add([_single_file(src), *files_beside(src)])
    parts = [gathered, *shards]
    _require_media(src, parts)
    return parts


def _name(src: str) -> str:
    """What begins the keys of a SRC: its base name, of a file without the suffix."""
    name = "stdin" if src == "-" else os.path.basename(os.path.abspath(src)) or "root"
    return name if os.path.isdir(src) else os.path.splitext(name)[0]


def _list_shard(above: str, path: str, relative: str, cache: ListingCache) -> Gathered:
    gathered = Gathered(f"{above}/{os.path.splitext(relative)[0]}")
    gather_archive(path, "", gathered, cache, shard=relative)
    gathered.sort()
    return gathered


def _listed_lines(src: str, options: ListingOptions) -> Iterator[Entry]:
    return listed_paths(list_lines(src, null=options.null, comments=options.comments))


def _require_media(src: str, parts: Sequence[Gathered]) -> None:
    """UsageError where a SRC has no media in it."""
    if any(part.sources for part in parts):
        return
    ignored = sum((part.ignored for part in parts), Counter[str]())
    kinds = [suffix for suffix, _ in sorted(ignored.items(), key=lambda item: (-item[1], item[0]))]
    shown = ", ".join(kinds[:_SHOWN_SUFFIXES])
    others = f"{ignored.total()} files of other kinds ({shown})" if kinds else "nothing"
    raise UsageError(f"{printable(src)} holds {others} and no media; expected {_EXPECTED}.")


def _single_file(src: str) -> Source:
    source = path_entry(src, os.path.basename(src), by_content=True)
    if isinstance(source, Source):
        return source
    if src.lower().endswith(archives.COMPRESSED_TARS):
        raise UsageError(f"{printable(src)} is a compressed tar, whose members cannot be read one by one; unpack it.")
    raise UsageError(f"{printable(src)} is of no known kind; expected {_EXPECTED}.")
