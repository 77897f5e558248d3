"""Media gathered from one directory tree, archive or list, each with the files of its key."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter

from grncli.media.listing.entries import Entry, ignored_kind
from grncli.media.sidecars import Sidecar, webdataset_key
from grncli.media.sources import Source


class KeyedFiles:
    """Sidecars of one directory, archive or list by their stem: the path without the last suffix."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Sidecar, ...]] = {}
        self._taken: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._files)

    def add(self, stem: str, file: Sidecar) -> bool:
        """Take a file in; False where another one has its stem and suffix, as ``a.TXT`` and ``a.txt`` have."""
        known = self._files.get(stem, ())
        if any(other.suffix == file.suffix for other in known):
            return any(other.name == file.name for other in known)  # one that is named twice
        self._files[stem] = (*known, file)
        return True

    def beside(self, stem: str) -> tuple[Sidecar, ...]:
        """The files of media with this stem: those of the same stem, and those of its key in a WebDataset.

        That key ends at the first dot of the base name: ``0001.txt`` goes with ``0001.left.jpg``.
        """
        files = self._files.get(stem, ())
        if files:
            self._taken.add(stem)
        key = webdataset_key(stem)
        if key != stem and (others := self._files.get(key)) is not None:
            self._taken.add(key)
            suffixes = {file.suffix for file in files}
            files += tuple(file for file in others if file.suffix not in suffixes)
        return files

    def lone(self) -> Iterable[Sidecar]:
        """Those that no media asked for."""
        return (file for stem, files in self._files.items() if stem not in self._taken for file in files)


@dataclass
class Gathered:
    """What one SRC, or one shard, lists."""

    name: str
    """What begins the keys where that is asked for."""
    sources: list[Source] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Files that are no media by suffix, sidecars without media among them."""
    lone: Counter[str] = field(default_factory=Counter)
    """Sidecars without media by suffix."""
    first_lone: dict[str, str] = field(default_factory=dict)
    """Name of one of each suffix."""

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in the entries of a list, whose sidecars may lie anywhere in it."""
        files, first = KeyedFiles(), len(self.sources)
        for entry in entries:
            if isinstance(entry, Source):
                self.sources.append(entry)
            elif isinstance(entry, str):
                self.ignored[entry] += 1
            elif not files.add(entry.stem, entry):
                self.ignored[ignored_kind(entry.path)] += 1
        for index in range(first, len(self.sources) if files else first):
            source = self.sources[index]
            # By whole paths: of a list, ../a/1.png and a/1.png are both a/1.png relative to it.
            if beside := files.beside(os.path.splitext(source.name)[0]):
                self.sources[index] = replace(source, beside=beside)
        self.count_lone(files)

    def count_lone(self, files: KeyedFiles) -> None:
        """Count sidecars that no media asked for."""
        for file in files.lone():
            self.lone[file.suffix] += 1
            self.first_lone.setdefault(file.suffix, file.name)
            self.ignored[f".{file.suffix}"] += 1

    def sort(self) -> None:
        """Put the sources in the order of their paths."""
        self.sources.sort(key=attrgetter("relative"))
