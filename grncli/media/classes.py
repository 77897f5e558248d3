"""The classes of sources, wherever their labels come from, and whether they are plausible."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grncli.media.sources import Source, describe_arguments, sorted_names
from grncli.runtime.errors import UsageError
from grncli.runtime.files import open_plain
from grncli.runtime.jsonfiles import brief
from grncli.runtime.text import printable

PARENT = -1
SHOWN = 6  # classes in a sentence
SEVERAL = 10  # sources, of which each is a class of its own, are no coincidence


LabelOf = Callable[[Source], str | None]


class LabelForm(Protocol):
    """Where labels come from; its text is what ``--labels`` says and a store records."""

    def reader(self, sources: Sequence[Source]) -> LabelOf:
        """What gives the label of each of ``sources``; both raise UsageError where one cannot be read."""
        ...


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
        directories = source.within.split("/")[:-1]
        place = self.level - 1 if self.level > 0 else len(directories) + self.level
        # Interned because thousands of files share each.
        return sys.intern(printable(directories[place])) if 0 <= place < len(directories) else None

    def reader(self, sources: Sequence[Source]) -> LabelOf:
        """What gives the class of each source."""
        return self.of


def label_text(value: Any) -> str | None:
    """A label in a file as the name of a class, None for none; ValueError unless it is text or a whole number.

    pandas writes whole numbers with a point where one of the column is missing.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"is {brief(value)}, expected text or a whole number")
    return (value and sys.intern(printable(value.strip()))) or None


@dataclass(frozen=True)
class SourceClasses:
    """The classes of sources.

    Parameters
    ----------
    form : where they are read from
    label_of : the label of a source as it is written there
    meaning : name of the class of each label
    names : of all sources, also those that are not taken, or the given ones; a number in a store is an index into them
    counts : taken sources of each name
    missing : taken sources without a class
    """

    form: LabelForm
    label_of: LabelOf
    meaning: Mapping[str, str]
    names: tuple[str, ...]
    counts: Mapping[str, int]
    missing: int

    def of(self, source: Source) -> str | None:
        """Name of a source's class; None where it has none."""
        label = self.label_of(source)
        return None if label is None else self.meaning[label]

    def __str__(self) -> str:
        """``3 classes: cat (120), dog (118), owl (97)``; the first few of many."""
        there = [name for name in self.names if self.counts.get(name)]
        shown = ", ".join(f"{name} ({self.counts[name]})" for name in there[:SHOWN])
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        sources = "source has" if self.missing == 1 else "sources have"
        missing = f"; {self.missing} {sources} no class" if self.missing else ""
        return f"{len(there)} {'class' if len(there) == 1 else 'classes'}: {shown}{more}{missing}"


def find_classes(
    sources: Sequence[Source],
    taken: Sequence[Source],
    form: LabelForm,
    src: str | Sequence[str],
    given: Sequence[str] | None = None,
) -> SourceClasses:
    """Classes of all ``sources``, counted over those ``taken``.

    Parameters
    ----------
    given : names of classes in their order: no source may have another, and a number that is no name counts them

    Raises
    ------
    UsageError
        If no source has a class, or one has a class that is not given.
    """
    label_of = form.reader(sources)
    labels = {label: source for source in reversed(sources) if (label := label_of(source)) is not None}
    if not labels:
        reason = _without_classes(form, sources, src) if isinstance(form, ClassLevel) else "no source has a label there"
        raise UsageError(f"--labels {form}: {reason}")
    names = sorted_names(set(labels)) if given is None else list(given)
    known = frozenset(names)  # a million sources may be as many classes
    meaning = {label: label if label in known else _numbered(label, names) for label in labels}
    for label, source in labels.items():
        if meaning[label] not in known:
            shown = ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])
            raise UsageError(
                f"{source.name}: has the label {brief(label)}, which is not one of the names in "
                f"--class-names ({shown}); add it there, or correct it"
            )
    counts = Counter(None if (label := label_of(source)) is None else meaning[label] for source in taken)
    missing = counts.pop(None, 0)
    return SourceClasses(
        form, label_of, meaning, tuple(names), {str(name): count for name, count in counts.items()}, missing
    )


def read_class_names(path: str) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of their numbers; UsageError for anything else."""
    shown = printable(path)
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            lines = file.read().decode("utf-8-sig").removesuffix("\n").split("\n")
    except OSError as error:
        raise UsageError(f"--class-names {shown}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"--class-names {shown}: is not UTF-8 text, expected one name a line") from None
    known: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = printable(line.strip())
        if not name:
            raise UsageError(f"{shown}:{number}: is empty, expected the name of class {number - 1}")
        if name in known:
            raise UsageError(
                f"{shown}:{number}: names {brief(name)} again, as line {known[name]} does; expected each once"
            )
        known[name] = number
    return tuple(known)


def _numbered(label: str, names: Sequence[str]) -> str:
    """The class of this number, where a label is the number of one; else the label."""
    is_number = label.isascii() and label.isdigit() and len(label) < 10
    return names[int(label)] if is_number and int(label) < len(names) else label


def doubts(classes: SourceClasses, sources: Sequence[Source]) -> str | None:
    """A sentence where the names of all ``sources`` look as if another directory were the class, else None."""
    if len(sources) < 2:
        return None
    if len(classes.names) == 1:
        return f"--labels {classes.form}: all sources are of one class, {classes.names[0]}{_instead(classes, sources)}"
    if len(classes.names) == len(sources) >= SEVERAL:
        return (
            f"--labels {classes.form}: each of {len(sources)} sources is a class of its own{_instead(classes, sources)}"
        )
    return None


def _instead(classes: SourceClasses, sources: Sequence[Source]) -> str:
    """The level that divides the sources into several classes, where there is one."""
    for level in (ClassLevel(PARENT), ClassLevel(-2), ClassLevel(1), ClassLevel(2), ClassLevel(-3)):
        names = {level.of(source) for source in sources}
        if level != classes.form and None not in names and 1 < len(names) < len(sources):
            shown = ", ".join(sorted_names({str(name) for name in names})[:2])
            return f"; --labels {level} gives {len(names)} ({shown}, ...)"
    return ""


def _without_classes(level: ClassLevel, sources: Sequence[Source], src: str | Sequence[str]) -> str:
    deepest = max(source.within.count("/") for source in sources)
    if not deepest:
        return f"{describe_arguments(src)} has no class directories, its media lie directly in it"
    return f"no source of {describe_arguments(src)} has a directory at that level, the deepest lies in {deepest}"
