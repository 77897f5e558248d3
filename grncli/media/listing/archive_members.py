"""Media among the members of an archive."""

import os
from dataclasses import replace

from grncli.media import archives
from grncli.media.formats import KINDS, PLAYLIST_SUFFIXES
from grncli.media.listing.entries import PLAYLIST, file_problem, ignored_kind, label_of, plain_path, problem_source
from grncli.media.listing.gathering import Gathered, KeyedFiles
from grncli.media.listing.listing_cache import ListingCache
from grncli.media.members import Member
from grncli.media.sidecars import SUFFIXES, Sidecar
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError
from grncli.runtime.text import printable


def archive_part(src: str) -> tuple[str, str] | None:
    """Archive and inner path that ``src`` names; None if no part of it is an archive file."""
    path, inner = src.rstrip("/"), ""
    while path:
        if path.lower().endswith(archives.SUFFIXES) and os.path.isfile(path):
            return path, plain_path(inner)
        if os.path.lexists(path):
            return None
        path, _, last = path.rpartition("/")
        inner = f"{last}/{inner}" if inner else last
    return None


def gather_archive(path: str, inner: str, gathered: Gathered, cache: ListingCache, *, shard: str | None = None) -> None:
    """Gather the members of an archive below ``inner``, by their paths there.

    Parameters
    ----------
    shard : name under which damage becomes a source that cannot be read, behind the members that can; without it
        damage is a MediaError
    """
    files, media = KeyedFiles(), []
    try:
        if shard is not None and (problem := file_problem(path)) is not None:
            raise MediaError(problem)
        for member in cache.members(path):
            # What is unlisted goes without the inner path: that would make a class of it.
            relative = member.name if member.unlisted else _below(member.name, inner)
            if relative is None:
                continue
            stem, dotted = os.path.splitext(relative)
            suffix = dotted[1:].lower()
            if member.unlisted or suffix in KINDS or suffix in PLAYLIST_SUFFIXES:
                media.append((member, suffix, stem, relative))
            elif suffix not in SUFFIXES or not files.add(
                stem, Sidecar(path, member.name, member.offset, member.size, member.problem)
            ):
                gathered.ignored[ignored_kind(relative)] += 1
    except (MediaError, OSError) as error:
        if shard is None:
            raise
        # Its directories are no classes, as those above the shard are none of other members.
        above = shard.rfind("/") + 1
        problem = str(error) if isinstance(error, MediaError) else f"cannot be read: {error.strerror or error}"
        gathered.sources.append(replace(problem_source(path, shard, problem), label=None, prefix=above))
    labels: dict[str, str | None] = {}
    for member, suffix, stem, relative in media:
        directory = relative[: relative.rfind("/") + 1]
        if directory not in labels:
            labels[directory] = label_of(directory)
        beside = files.beside(stem) if files else ()
        gathered.sources.append(_member_source(path, member, suffix, relative, labels[directory], beside))
    gathered.count_lone(files)


def _below(name: str, inner: str) -> str | None:
    """Path of a member below ``inner``; None where it is not there, or hidden."""
    # `tar cf x.tar cat/.` names its members cat/./1.png.
    relative = whole = plain_path(name)
    if inner:
        if whole != inner and not whole.startswith(inner + "/"):
            return None
        relative = whole[len(inner) + 1 :] or os.path.basename(whole)
    if (relative.startswith(".") or "/." in relative or "__MACOSX" in relative) and _hidden(relative):
        return None
    return relative


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in relative.split("/"))


def _member_source(
    path: str, member: Member, suffix: str, relative: str, label: str | None, beside: tuple[Sidecar, ...]
) -> Source:
    problem = PLAYLIST if suffix in PLAYLIST_SUFFIXES else member.problem
    name, kind = printable(f"{path}/{member.name}"), KINDS.get(suffix, "image")
    return Source(name, kind, path, member.name, member.offset, member.size, label, relative, problem, beside)
