"""Which sources of a store have the same bytes, files and members of archives alike."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from grncli.media.archives import members, open_member
from grncli.runtime.errors import MediaError
from grncli.runtime.files import open_plain
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import printable

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where the bytes of a source are; ``offset`` is None for a file of its own."""

    path: str
    size: int
    offset: int | None = None

    def open(self) -> BinaryIO:
        if self.offset is None:
            return os.fdopen(open_plain(self.path), "rb")
        return open_member(self.path, self.offset, self.size)


def group_by_bytes(names: Sequence[str], monitor: Monitor) -> tuple[list[list[str]], list[str]]:
    """Groups of sources of the same bytes, in the order of ``names``, and the names of those that cannot be read.

    Only files of the same size are read. Unfinished if the monitor asks for it.
    """
    places = _find(names)
    unread = [name for name in names if name not in places]
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in names:
        if name in places:
            by_size[places[name].size].append(name)
    alike = [group for group in by_size.values() if len(group) > 1]
    done, total = 0, sum(map(len, alike))
    groups: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for group in alike:
        for name in group:
            try:
                groups[places[name].size, _digest(places[name])].append(name)
            except (OSError, MediaError):
                unread.append(name)
            done += 1
            monitor.progress(done, total, "sources of the same size")
            monitor.require_time(f"after {done} of {total} sources of the same size")
    return [group for group in groups.values() if len(group) > 1], unread


def _find(names: Iterable[str]) -> dict[str, _Stored]:
    """Sources that are where their names say: in a file, or in an archive, whose members are listed once."""
    found: dict[str, _Stored] = {}
    inside: dict[str, set[str]] = defaultdict(set)
    archives: dict[str, str | None] = {}
    for name in names:
        if os.path.isfile(name):
            found[name] = _Stored(name, os.path.getsize(name))
            continue
        folder = os.path.dirname(name)
        if folder not in archives:
            archives[folder] = next((str(each) for each in Path(name).parents if each.is_file()), None)
        if (archive := archives[folder]) is not None:
            inside[archive].add(name)
    for archive, wanted in inside.items():
        try:
            for member in members(archive):
                name = printable(f"{archive}/{member.name}")
                if name in wanted and member.problem is None:
                    found.setdefault(name, _Stored(archive, member.size, member.offset))
        except MediaError:  # what was listed before the damage is there
            continue
    return found


def _digest(stored: _Stored) -> bytes:
    total = hashlib.sha256()
    with stored.open() as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.digest()
