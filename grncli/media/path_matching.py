"""Which source a path in somebody's file means."""

import posixpath
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from grncli.runtime.text import printable


class SourceMatcher:
    """Finds sources by their full paths, else by endings of paths that only one of them has.

    Folders that differ are never overlooked: ``val/0001.jpg`` is not ``train/0001.jpg``, however few files there are.

    Parameters
    ----------
    sources : names of sources, as listings and ``samples.jsonl`` have them
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._sources = set(sources)
        # By their parts from the last one on: the sources that end alike are neighbours, however many have one name.
        self._backwards = sorted((_backwards(source), source) for source in self._sources)

    def find(self, path: str) -> Sequence[str]:
        """The sources that a path may mean: none, one, or several that end alike."""
        if (exact := printable(path)) in self._sources:
            return [exact]
        parts = _backwards(exact).split("/")
        ends = ("/".join([*parts[:count], ""]) for count in range(1, len(parts) - 1))
        found = [source for end in ends for source in self._beginning(end, whole=True)]
        return sorted([*found, *self._beginning(_backwards(exact))])

    def _beginning(self, end: str, *, whole: bool = False) -> Iterator[str]:
        """Sources whose parts begin with those of ``end``; with ``whole`` those that have no others."""
        for place in range(bisect_left(self._backwards, (end,)), len(self._backwards)):
            backwards, source = self._backwards[place]
            if backwards != end if whole else not backwards.startswith(end):
                return
            yield source


def _backwards(path: str) -> str:
    """The parts of a path that lead somewhere, the last one first, a slash behind each."""
    folders = [part for part in posixpath.dirname(path).split("/") if part not in ("", ".", "..")]
    return "/".join([posixpath.basename(path), *reversed(folders), ""])
