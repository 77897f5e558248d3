"""Images and clips that a SRC names: one `Source` each, and all of them as a `Listing`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grncli.media.formats import Kind
from grncli.media.sidecars import Sidecar
from grncli.runtime.text import printable

if TYPE_CHECKING:  # decoding processes, which import this as well, start faster without the store
    from grncli.store.captions import CaptionLine, Span

_SHOWN_SUFFIXES = 5
_SHOWN_ARGUMENTS = 3
_SHOWN_SOURCES = 3
_UNREADABLE = "that cannot be read"


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """What one record of a manifest, or several of one path and stretch, say of a source."""

    place: str
    """File and line."""
    path: str
    """As the file names it."""
    label: str | None = None
    captions: CaptionLine | None = None
    """With all other fields of the record; None where it has no caption."""
    span: Span | None = None
    """Begin and end in seconds of the stretch of a clip."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image or clip, not yet opened; a million of them fit in memory."""

    name: str
    """What the user sees; unique within a listing and always printable as UTF-8."""
    kind: Kind
    path: str
    """File to open: the archive, for a member."""
    member: str | None = None
    offset: int = 0
    size: int = 0
    """Where the member lies in a tar (data) or zip (local header), and its unpacked bytes."""
    label: str | None = None
    """Directory the file lies in, its last part; None directly in SRC."""
    relative: str = ""
    """Path relative to SRC, unique and without ``..``: the key of its samples, which names the outputs."""
    problem: str | None = None
    """Why this can never be read; such a source counts as failed and is not opened."""
    beside: tuple[Sidecar, ...] = ()
    """Files of the same key; at most one of each suffix."""
    row: ManifestRow | None = None
    """What a manifest says of it."""
    span: Span | None = None
    """Begin and end in seconds of the only stretch of a clip that is read; None reads all of it."""
    prefix: int = 0
    """Characters at the begin of ``relative`` that name its SRC or shard, where the user asked for that."""

    @property
    def within(self) -> str:
        """Path within its SRC or shard: what its classes are made of."""
        return self.relative[self.prefix :]

    def sidecar(self, suffix: str) -> Sidecar | None:
        """The file of the same key with this suffix, such as ``txt``."""
        return next((file for file in self.beside if file.suffix == suffix), None)


@dataclass(frozen=True)
class Listing:
    """All sources of a SRC in a stable order, and how many files were no media.

    Hidden files (of a directory or an archive, their name or a directory above them begins with a dot or is
    ``__MACOSX``) are not counted: they are put there by programs, not by the user.
    """

    sources: list[Source]
    ignored_suffixes: dict[str, int] = field(default_factory=dict)
    """Files that are no media by suffix, the most frequent first; ``no suffix`` for those without one. A sidecar
    that belongs to media is none of them."""
    lone_captions: int = 0
    """Text files among these, where others belong to media."""
    lone: dict[str, int] = field(default_factory=dict)
    """Sidecars among these by suffix, as ``lone_captions`` counts texts."""
    first_lone: str = ""
    """Name of one of them."""

    @property
    def ignored(self) -> int:
        """Files that are no media."""
        return sum(self.ignored_suffixes.values())


def sorted_names(names: Set[str]) -> list[str]:
    """Names of classes in their order: by value if all of them are whole numbers."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def describe_ignored(listing: Listing) -> str:
    """How many files were no media, and of which suffixes: ``12 other files ignored (.txt 10, .xml 2)``."""
    counts = list(listing.ignored_suffixes.items())
    shown = [f"{suffix} {count}" for suffix, count in counts[:_SHOWN_SUFFIXES]]
    if len(counts) > _SHOWN_SUFFIXES:
        shown.append(f"others {sum(count for _, count in counts[_SHOWN_SUFFIXES:])}")
    files = "file" if listing.ignored == 1 else "files"
    return f"{listing.ignored} other {files} ignored" + (f" ({', '.join(shown)})" if shown else "")


def describe_arguments(src: str | Sequence[str]) -> str:
    """One SRC or several in a sentence: ``a/, b.tar and 3 more``."""
    several = [src] if isinstance(src, str) else list(src)
    more = f" and {len(several) - _SHOWN_ARGUMENTS} more" if len(several) > _SHOWN_ARGUMENTS else ""
    return ", ".join(map(printable, several[:_SHOWN_ARGUMENTS])) + more


def first_of_each(sources: Sequence[Source]) -> list[str]:
    """The keys of the first few sources of each kind, a line each: ``images (120): a/1.png, a/2.png, a/3.png, ...``.

    Those that cannot be read are a kind of their own, and so are the files of their keys by suffix.
    """
    shown: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for source in sources:
        kinds = {f"{source.kind}s" if source.problem is None else _UNREADABLE: printable(source.relative)}
        kinds |= {f".{file.suffix} beside": os.path.basename(file.name) for file in source.beside}
        for kind, name in kinds.items():
            counts[kind] += 1
            if counts[kind] <= _SHOWN_SOURCES:
                shown.setdefault(kind, []).append(name)
    more = {kind: ", ..." if counts[kind] > _SHOWN_SOURCES else "" for kind in shown}
    return [f"{kind} ({counts[kind]}): {', '.join(names)}{more[kind]}" for kind, names in shown.items()]


def describe_lone(listing: Listing) -> str:
    """Sidecars without media where others of their suffix have some, in a sentence; empty where there are none."""
    if not listing.lone:
        return ""
    counts = ", ".join(f".{suffix} {count}" for suffix, count in listing.lone.items())
    return f"files without media of their name, which are ignored: {counts}, such as {listing.first_lone}"
