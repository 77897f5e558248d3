"""Sources of several SRC and shards as one listing: in order, and each under a key of its own."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from grncli.media.listing.gathering import Gathered
from grncli.media.sources import Listing, Source
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable


def join_gathered(parts: Sequence[Gathered], *, prefixed: bool) -> Listing:
    """Sources of several SRC and shards, in that order.

    Parameters
    ----------
    prefixed : begin each key with the name of its SRC or shard

    Raises
    ------
    UsageError
        If two of them have a source of one key.
    """
    sources: list[Source] = []
    ignored: Counter[str] = Counter()
    lone: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
        lone.update(part.lone)
        number_repeated(part.sources)
        sources += _prefixed(part) if prefixed else part.sources
    if len(parts) > 1:
        _require_distinct_keys(sources, prefixed=prefixed)
        number_repeated(sources)
    taken = {file.suffix for source in sources for file in source.beside} if lone else ()
    lone = Counter({suffix: count for suffix, count in lone.items() if suffix in taken})
    by_count = dict(sorted(ignored.items(), key=lambda item: (-item[1], item[0])))
    firsts = (part.first_lone[suffix] for suffix in lone for part in parts if suffix in part.first_lone)
    return Listing(sources, by_count, lone["txt"], dict(lone), next(firsts, ""))


def number_repeated(sources: list[Source]) -> None:
    """Give a number to whatever repeats a name; an archive or a list may name a file twice."""
    if _are_distinct(source.name for source in sources) and _are_distinct(source.relative for source in sources):
        return
    names: set[str] = set()
    relatives: set[str] = set()
    for index, source in enumerate(sources):
        name, relative, number = source.name, source.relative, 1
        while name in names or relative in relatives:
            number += 1
            stem, suffix = os.path.splitext(source.relative)
            name, relative = f"{source.name} ({number})", f"{stem}.{number}{suffix}"
        if number > 1:
            sources[index] = replace(source, name=name, relative=relative)
        names.add(name)
        relatives.add(relative)


def _are_distinct(texts: Iterable[str]) -> bool:
    """Whether no two are the same: by their hashes, since a set of a million takes 64 MB; may be False for others."""
    hashes = np.fromiter(map(hash, texts), np.int64)
    return np.unique(hashes).size == hashes.size


def _prefixed(part: Gathered) -> Iterator[Source]:
    prefix = f"{part.name}/"
    return (replace(each, relative=prefix + each.relative, prefix=len(prefix) + each.prefix) for each in part.sources)


def _require_distinct_keys(sources: Sequence[Source], *, prefixed: bool) -> None:
    if _are_distinct(source.relative for source in sources):
        return
    known: dict[str, Source] = {}
    for source in sources:
        if (other := known.setdefault(source.relative, source)) is not source:
            remedy = (
                "rename one of the two"
                if prefixed
                else "--prefix-keys begins each key with the name of its SRC or shard"
            )
            raise UsageError(
                f"{other.name} and {source.name} have one key, {printable(source.relative)}; expected each key once; "
                f"{remedy}"
            )
