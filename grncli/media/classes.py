"""Which directory of a source's path is its class, and whether the classes that come of it are plausible."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grncli.media.sources import Source, sorted_names
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable

PARENT = -1
SHOWN = 6  # classes in a sentence
SEVERAL = 10  # sources, of which each is a class of its own, are no coincidence


@dataclass(frozen=True)
class ClassLevel:
    """The directory of a source's path, relative to SRC, that names its class.

    Parameters
    ----------
    level : 1 for the first directory below SRC, 2 for the next; -1 for the directory a source lies in, -2 for the one
        above it
    """

    level: int = PARENT

    def __str__(self) -> str:
        return "dirs" if self.level == PARENT else f"dirs:{self.level}"

    def of(self, source: Source) -> str | None:
        """Name of a source's class; None where it has no directory at that level."""
        if self.level == PARENT:
            return source.label
        directories = source.relative.split("/")[:-1]
        place = self.level - 1 if self.level > 0 else len(directories) + self.level
        # Interned because thousands of files share each.
        return sys.intern(printable(directories[place])) if 0 <= place < len(directories) else None


def parse_labels(text: str) -> ClassLevel | None:
    """``none``, ``dirs`` or ``dirs:N``; UsageError for anything else."""
    if text == "none":
        return None
    match = re.fullmatch(r"dirs(?::(-?[1-9]\d{0,2}))?", text)
    if match is None:
        raise UsageError(
            f"--labels {text}: expected none, dirs (the directory a source lies in), dirs:1 (the first directory below "
            "SRC, dirs:2 the next) or dirs:-2 (the one above that a source lies in)"
        )
    return ClassLevel(int(match[1] or PARENT))


@dataclass(frozen=True)
class SourceClasses:
    """The classes of sources.

    Parameters
    ----------
    names : of all sources, also those that are not taken; a label is an index into them
    counts : taken sources of each name
    missing : taken sources without a class
    """

    level: ClassLevel
    names: tuple[str, ...]
    counts: Mapping[str, int]
    missing: int

    def __str__(self) -> str:
        """``3 classes: cat (120), dog (118), owl (97)``; the first few of many."""
        there = [name for name in self.names if self.counts.get(name)]
        shown = ", ".join(f"{name} ({self.counts[name]})" for name in there[:SHOWN])
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        sources = "source has" if self.missing == 1 else "sources have"
        missing = f"; {self.missing} {sources} no class" if self.missing else ""
        return f"{len(there)} {'class' if len(there) == 1 else 'classes'}: {shown}{more}{missing}"


def find_classes(sources: Sequence[Source], taken: Sequence[Source], level: ClassLevel, src: str) -> SourceClasses:
    """Classes of all ``sources``, counted over those ``taken``; UsageError where no source has one."""
    names = sorted_names({name for source in sources if (name := level.of(source)) is not None})
    if not names:
        raise UsageError(f"--labels {level}: {_without_classes(level, sources, src)}")
    counts = Counter(map(level.of, taken))
    missing = counts.pop(None, 0)
    return SourceClasses(level, tuple(names), {str(name): count for name, count in counts.items()}, missing)


def doubts(classes: SourceClasses, sources: Sequence[Source]) -> str | None:
    """A sentence where the names of all ``sources`` look as if another directory were the class, else None."""
    if len(sources) < 2:
        return None
    if len(classes.names) == 1:
        return f"--labels {classes.level}: all sources are of one class, {classes.names[0]}{_instead(classes, sources)}"
    if len(classes.names) == len(sources) >= SEVERAL:
        return (
            f"--labels {classes.level}: each of {len(sources)} sources is a class of its own"
            f"{_instead(classes, sources)}"
        )
    return None


def _instead(classes: SourceClasses, sources: Sequence[Source]) -> str:
    """The level that divides the sources into several classes, where there is one."""
    for level in (ClassLevel(PARENT), ClassLevel(-2), ClassLevel(1), ClassLevel(2), ClassLevel(-3)):
        names = {level.of(source) for source in sources}
        if level != classes.level and None not in names and 1 < len(names) < len(sources):
            shown = ", ".join(sorted_names({str(name) for name in names})[:2])
            return f"; --labels {level} gives {len(names)} ({shown}, ...)"
    return ""


def _without_classes(level: ClassLevel, sources: Sequence[Source], src: str) -> str:
    deepest = max(source.relative.count("/") for source in sources)
    if not deepest:
        return f"{printable(src)} has no class directories, its media lie directly in it"
    return f"no source of {printable(src)} has a directory at that level, the deepest lies in {deepest}"
