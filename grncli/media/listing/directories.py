"""Media in a directory and those below it, and the shards among them."""

import os

from grncli.media.formats import suffix_of
from grncli.media.listing.entries import ignored_kind, label_of, path_source, problem_source
from grncli.media.listing.gathering import Gathered, KeyedFiles
from grncli.media.sidecars import SUFFIXES, Sidecar

SHARD_SUFFIX = "tar"


def gather_directory(src: str, gathered: Gathered) -> list[tuple[str, str]]:
    """Gather the media below ``src``; returns the tars there, by path and by path relative to ``src``.

    Without recursion; links to directories are followed unless they lead back up.
    """
    shards: list[tuple[str, str]] = []
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(src, "", ())]
    while pending:
        directory, prefix, above = pending.pop()
        relative = prefix.rstrip("/") or os.path.basename(src.rstrip("/"))
        try:
            here = _identity(directory)
            if here in above:
                problem = "is a link to a directory it lies in, a loop"
                gathered.sources.append(problem_source(directory, relative, problem))
                continue
            entries = list(os.scandir(directory))
        except OSError as error:
            problem = f"cannot be listed: {error.strerror}"
            gathered.sources.append(problem_source(directory, relative, problem))
            continue
        files = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if _is_directory(entry):
                pending.append((entry.path, f"{prefix}{entry.name}/", (*above, here)))
            elif (suffix := suffix_of(entry.name)) == SHARD_SUFFIX:
                shards.append((entry.path, prefix + entry.name))
            else:
                files.append((suffix, entry))
        _gather_files(files, prefix, gathered)
    return sorted(shards, key=lambda shard: shard[1])


def _gather_files(entries: list[tuple[str, "os.DirEntry[str]"]], prefix: str, gathered: Gathered) -> None:
    """The files of one directory."""
    sidecars, others = KeyedFiles(), []
    for suffix, entry in entries:
        if suffix not in SUFFIXES:
            others.append((suffix, entry))
        elif not sidecars.add(os.path.splitext(entry.name)[0], Sidecar(entry.path)):
            gathered.ignored[ignored_kind(entry.name)] += 1
    label = label_of(prefix)
    for suffix, entry in others:
        name = entry.name
        beside = sidecars.beside(os.path.splitext(name)[0]) if sidecars else ()
        regular = entry.is_file(follow_symlinks=False)
        source = path_source(entry.path, suffix, prefix + name, label, beside, regular=regular)
        if source is None:
            gathered.ignored[ignored_kind(name)] += 1
        else:
            gathered.sources.append(source)
    gathered.count_lone(sidecars)


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself; its problem says so.
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
