"""Which source of a store a path in a file of captions means."""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence

from grncli.captioning.caption_manifest import ManifestLine
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable


class SourceMatcher:
    """Finds sources by their full paths, else by endings of paths that only one of them has.

    Folders that differ are never overlooked: ``val/0001.jpg`` is not ``train/0001.jpg``, however few files there are.

    Parameters
    ----------
    sources : paths, as ``samples.jsonl`` has them
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._sources = set(sources)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for source in sorted(self._sources):
            self._by_name[posixpath.basename(source)].append(source)

    def find(self, path: str) -> Sequence[str]:
        """The sources that a path may mean: none, one, or several that end alike."""
        if (exact := printable(path)) in self._sources:
            return [exact]
        named = self._by_name.get(printable(posixpath.basename(path)), [])
        return [source for source in named if _ends_alike(_folders(source), _folders(path))]


def match(lines: Sequence[ManifestLine], sources: Iterable[str]) -> tuple[dict[str, list[ManifestLine]], list[str]]:
    """The lines of each source that has some, and the paths that mean no source.

    Raises
    ------
    UsageError
        If a path means several sources, or a source (of a clip: a stretch of it) has two lines; names the lines.
    """
    matcher = SourceMatcher(sources)
    matched: dict[str, list[ManifestLine]] = {}
    lone: list[str] = []
    for line in lines:
        path = line.captions.source
        found = matcher.find(path)
        if len(found) > 1:
            raise UsageError(
                f"{line.place}: {printable(path)} may be {found[0]} or {found[1]}, expected a path that only one "
                "source ends with; nothing was changed"
            )
        if not found:
            lone.append(path)
            continue
        others = matched.setdefault(found[0], [])
        for other in others:
            if other.captions.span == line.captions.span:
                raise UsageError(
                    f"{line.place}: gives captions of {found[0]} again, as {other.place} does, expected one line for a "
                    "source, or for each stretch of a clip; nothing was changed"
                )
        others.append(line)
    return matched, lone


def _ends_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the shorter of two lists of folders is the end of the longer one."""
    shorter = min(len(one), len(other))
    return shorter == 0 or one[-shorter:] == other[-shorter:]


def _folders(path: str) -> list[str]:
    return [part for part in posixpath.dirname(path).split("/") if part not in ("", ".", "..")]
