"""What a single path of a SRC is: media, a file that goes with media, or neither."""

import os
import stat
import sys
from collections.abc import Iterator

from grncli.media.formats import KINDS, PLAYLIST_SUFFIXES, kind_of_content, kind_of_suffix, suffix_of
from grncli.media.sidecars import SUFFIXES, Sidecar, webdataset_key
from grncli.media.sources import Source
from grncli.runtime.text import printable
from grncli.runtime.urls import URL_REMEDY, is_url

PLAYLIST = "is a playlist that points at other files; only media files themselves are read"
_LONGEST_SUFFIX = 12
_NO_SUFFIX = "no suffix"

Ignored = str
"""A file that is no media, by what `describe_ignored` calls its kind: ``.xml``, or ``no suffix``."""
Entry = Source | Sidecar | Ignored


def ignored_kind(name: str) -> Ignored:
    """What a file that is no media is counted as."""
    suffix = suffix_of(name)
    # What follows the last dot of a sentence is no suffix.
    return f".{printable(suffix)}" if 0 < len(suffix) <= _LONGEST_SUFFIX and " " not in suffix else _NO_SUFFIX


def label_of(relative: str) -> str | None:
    """Last directory of a relative path."""
    # Interned because thousands of files share each.
    return sys.intern(printable(os.path.basename(os.path.dirname(relative)))) or None


def path_entry(path: str, relative: str, *, by_content: bool = False) -> Entry:
    """What one file is that is named itself or in a list.

    Parameters
    ----------
    by_content : look into a file whose suffix is none of media
    """
    suffix = suffix_of(path)
    source = path_source(path, suffix, relative, label_of(relative))
    if source is None and by_content and (kind := kind_of_content(path)) is not None:
        return Source(printable(path), kind, path, label=label_of(relative), relative=relative)
    if source is None:
        return Sidecar(path) if suffix in SUFFIXES else ignored_kind(path)
    return source


def path_source(
    path: str,
    suffix: str,
    relative: str,
    label: str | None,
    beside: tuple[Sidecar, ...] = (),
    *,
    regular: bool | None = None,
) -> Source | None:
    """Source for one file; None if its suffix is none of media.

    Parameters
    ----------
    suffix : of the path, in lower case
    regular : whether it is a plain file; None to find out
    """
    if suffix in PLAYLIST_SUFFIXES:
        return problem_source(path, relative, PLAYLIST)
    kind = KINDS.get(suffix)
    if kind is None:
        return None
    problem = None if regular else file_problem(path)
    # Its name is the path itself where that is printable: strings are most of the memory of a long listing.
    return Source(printable(path), kind, path, None, 0, 0, label, relative, problem, beside)


def files_beside(path: str) -> Iterator[Sidecar]:
    """The sidecars of a file that is named itself or in a list."""
    stem = os.path.splitext(path)[0]
    for key in dict.fromkeys((stem, webdataset_key(stem))):
        for suffix in SUFFIXES:
            if (file := f"{key}.{suffix}") != path and os.path.isfile(file):
                yield Sidecar(file)


def problem_source(path: str, relative: str, problem: str) -> Source:
    """A source that can never be read."""
    kind = kind_of_suffix(path) or "image"
    return Source(printable(path), kind, path, label=label_of(relative), relative=relative, problem=problem)


def file_problem(path: str) -> str | None:
    """Why ``path`` is not a file that can be opened without waiting; None if it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if is_url(path):
            return f"is a URL; {URL_REMEDY}"
        return "is a link to a file that does not exist" if os.path.islink(path) else "does not exist"
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "is a named pipe, socket or device, not a file"


def plain_path(path: str) -> str:
    """``path`` without the parts that lead nowhere or up."""
    if "//" in path or "./" in path or path.startswith("/") or path.endswith(("/", ".")):
        return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
    return path
