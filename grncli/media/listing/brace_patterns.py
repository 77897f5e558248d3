"""``shards-{000..127}.tar`` and ``{a,b}.tar``, which most shells write out and quoted ones reach us."""

import os
import re
from collections.abc import Iterator

from grncli.media.listing.archive_members import archive_part
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST = 1_000_000  # paths of one pattern
_SHOWN = 3


def expand_braces(src: str) -> list[str]:
    """The paths that ``src`` stands for; itself, where a file has its name or it has no braces.

    Raises
    ------
    UsageError
        If none of them exists, or if some are missing.
    """
    if _BRACES.search(src) is None or _exists(src):
        return [src]
    paths = []
    for path in _expanded(src):
        paths.append(path)
        if len(paths) > MOST:
            raise UsageError(f"{printable(src)} stands for more than {MOST:,} paths; check its numbers.")
    missing = [path for path in paths if not _exists(path)]
    shown = ", ".join(map(printable, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
    if len(missing) == len(paths):
        why = f"{shown} {'does' if len(paths) == 1 else 'do'} not exist" if paths else "its numbers run backwards"
        raise UsageError(f"{printable(src)} matches nothing: {why}; expected a pattern of what is there.")
    if missing:
        lacking = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{printable(src)}: {len(missing)} of {len(paths)} {lacking} missing: {shown}; "
            "copy what is missing, or give patterns of what is there."
        )
    return paths


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, choices = match.groups()
    if choices is not None:
        middles: Iterator[str] = iter(choices.split(","))
    else:
        # As in a shell: a number with a leading zero is padded to its width.
        width = max(len(first), len(last)) if first[0] == "0" or last[0] == "0" else 0
        middles = (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    for middle in middles:
        for rest in _expanded(pattern[match.end() :]):
            yield pattern[: match.start()] + middle + rest


def _exists(path: str) -> bool:
    return os.path.lexists(path) or archive_part(path) is not None
