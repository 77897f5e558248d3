"""Lists of paths: text files, and standard input."""

import codecs
import os
import sys
from collections.abc import Iterable, Iterator

from grncli.media.formats import open_plain
from grncli.media.listing.entries import Entry, file_problem, files_beside, path_entry, plain_path, problem_source
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.text import printable


def list_lines(src: str, *, null: bool = False, comments: bool = False) -> list[bytes]:
    """Lines of a list file, or of standard input.

    Parameters
    ----------
    src : the file, or ``-``
    null : a zero byte ends each path, which may have line feeds then
    comments : leave out lines that begin with ``#``

    Raises
    ------
    UsageError
        If they cannot be read, or cannot be paths.
    """
    name = "standard input" if src == "-" else printable(src)
    try:
        text = standard_input() if src == "-" else _plain_bytes(src)
    except MediaError:
        raise UsageError(f"{name} is a named pipe, socket or device; give - and pipe the paths into it.") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}.") from None
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (b"\0" in text and not null):
        hint = "" if len(text) < 2 or b"\0" in text[:2] else "; --null reads paths that end with a zero byte"
        raise UsageError(f"{name} is UTF-16 or no text at all; expected paths in UTF-8, one a line{hint}.")
    text = text.removeprefix(codecs.BOM_UTF8)
    # Only these end a line: a lone \r, as any other control character, can be a part of a name.
    lines = text.split(b"\0") if null else [line.removesuffix(b"\r") for line in text.split(b"\n")]
    return [line for line in lines if not line.startswith(b"#")] if comments else lines


def _plain_bytes(path: str) -> bytes:
    with open_plain(path) as file:
        return file.read()


def standard_input() -> bytes:
    """All of standard input; UsageError where it is closed."""
    # Python has none where the descriptor was closed before it started (`grn ... <&-`).
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed; pipe lines into it, one path or name each.")
    return sys.stdin.buffer.read()


def listed_paths(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Media at the paths of a list, with their sidecars; a path without media is a source with a problem."""
    for line in lines:
        if not line.strip():
            continue
        path = os.fsdecode(line)
        relative = plain_path(path)
        entry = path_entry(path, relative, by_content=True)
        if not isinstance(entry, Source) and not os.path.isfile(path):
            entry = problem_source(path, relative, file_problem(path) or "is not a media file")
        yield entry
        if isinstance(entry, Source):
            yield from files_beside(path)
