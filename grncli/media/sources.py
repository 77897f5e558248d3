"""What a SRC argument names: one file, a directory, an archive, a list of paths."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from operator import attrgetter

from grncli.media import archives, caption_files
from grncli.media.caption_files import CaptionFile
from grncli.media.formats import (
    LIST_SUFFIXES,
    PLAYLIST_SUFFIXES,
    Kind,
    kind_of_content,
    kind_of_suffix,
    open_plain,
    suffix_of,
)
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.text import printable
from grncli.runtime.urls import URL_REMEDY, is_url

_PLAYLIST = "is a playlist that points at other files; only media files themselves are read"
_EXPECTED = (
    "an image (png, jpg, webp, tif, bmp, gif, ...), a clip (mp4, mkv, webm, mov, avi, ...), a directory, "
    "a .tar or .zip of those, or a text file of paths"
)
_SHOWN_SUFFIXES = 5
_LONGEST_SUFFIX = 12
_NO_SUFFIX = "no suffix"

Ignored = str
"""A file that is no media, by what :func:`describe_ignored` calls its kind: ``.xml``, or ``no suffix``."""


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
    """Path relative to SRC, unique and without ``..``: names the outputs."""
    problem: str | None = None
    """Why this can never be read; such a source counts as failed and is not opened."""
    caption: CaptionFile | None = None
    """Text file of the same stem beside it."""


Entry = Source | CaptionFile | Ignored


@dataclass(frozen=True)
class Listing:
    """All sources of a SRC in a stable order, and how many files were no media.

    Hidden files (of a directory or an archive, their name or a directory above them begins with a dot or is
    ``__MACOSX``) are not counted: they are put there by programs, not by the user.
    """

    sources: list[Source]
    ignored_suffixes: dict[str, int] = field(default_factory=dict)
    """Files that are no media by suffix, the most frequent first; ``no suffix`` for those without one. A text file that
    has the stem of media beside it is none of them."""
    lone_captions: int = 0
    """Text files among these, where others belong to media."""

    @property
    def ignored(self) -> int:
        """Files that are no media."""
        return sum(self.ignored_suffixes.values())


def list_sources(src: str) -> Listing:
    """Sources named by ``src``.

    Parameters
    ----------
    src : a media file; a directory, searched with its subdirectories; a .tar or .zip, or
        ``archive.zip/inner/path`` for a part of one; a text file (.txt, .lst, .list) of paths, one a
        line; ``-`` for such paths on standard input. In directories and archives the suffix says what is
        media; a file that is named itself, or in a list, may have another suffix and is known by its content

    Returns
    -------
    Listing; sorted by ``relative``, except that lists of paths keep their own order

    Raises
    ------
    UsageError
        If ``src`` does not exist, is no such thing, or has no media in it.
    MediaError
        If an archive is damaged.
    """
    if src == "-":
        return _finish(src, _from_list(_list_lines(src)), keep_order=True)
    archive = _archive_part(src)
    if archive is not None:
        return _finish(src, _from_archive(*archive))
    if not os.path.lexists(src):
        raise UsageError(f"{printable(src)} does not exist; expected {_EXPECTED}.")
    if os.path.isdir(src):
        return _finish(src, _from_directory(src))
    if suffix_of(src) in LIST_SUFFIXES:
        return _finish(src, _from_list(_list_lines(src)), keep_order=True)
    relative = os.path.basename(src)
    source = _from_path(src, relative, None, by_content=True)
    if not isinstance(source, Source):
        if src.lower().endswith(archives.COMPRESSED_TARS):
            raise UsageError(
                f"{printable(src)} is a compressed tar, whose members cannot be read one by one; unpack it."
            )
        raise UsageError(f"{printable(src)} is of no known kind; expected {_EXPECTED}.")
    return _finish(src, iter([source, *_text_beside(src)]))


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


def _ignored(name: str) -> Ignored:
    suffix = suffix_of(name)
    # What follows the last dot of a sentence is no suffix.
    return f".{printable(suffix)}" if 0 < len(suffix) <= _LONGEST_SUFFIX and " " not in suffix else _NO_SUFFIX


def _finish(src: str, entries: Iterator[Entry], keep_order: bool = False) -> Listing:
    suffixes: Counter[str] = Counter()
    sources: list[Source] = []
    texts: dict[str, CaptionFile] = {}
    for entry in entries:
        if isinstance(entry, Source):
            sources.append(entry)
        elif isinstance(entry, CaptionFile):
            if texts.setdefault(entry.stem, entry).name != entry.name:  # a.TXT besides a.txt
                suffixes[_ignored(entry.name)] += 1
        else:
            suffixes[entry] += 1
    lone = _give_captions(sources, texts)
    if lone:
        suffixes[f".{caption_files.SUFFIX}"] += lone
    by_count = dict(sorted(suffixes.items(), key=lambda item: (-item[1], item[0])))
    if not sources:
        shown = ", ".join(list(by_count)[:_SHOWN_SUFFIXES])
        others = f"{suffixes.total()} files of other kinds ({shown})" if suffixes else "nothing"
        raise UsageError(f"{printable(src)} holds {others} and no media; expected {_EXPECTED}.")
    if not keep_order:
        sources.sort(key=attrgetter("relative"))
    return Listing(_distinct(sources), by_count, lone if lone < len(texts) else 0)


def _give_captions(sources: list[Source], texts: Mapping[str, CaptionFile]) -> int:
    """Let each source have the text file of its stem; the number of those without a source."""
    stems = set()
    for index, source in enumerate(sources if texts else ()):
        # By whole paths: of a list, ../a/1.png and a/1.png are both a/1.png relative to it.
        text = texts.get(os.path.splitext(source.name)[0])
        if text is not None:
            stems.add(text.stem)
            sources[index] = replace(source, caption=text)
    return len(texts) - len(stems)


def _distinct(sources: list[Source]) -> list[Source]:
    """Give a number to whatever repeats a name; an archive or a list may name a file twice."""
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
    return sources


def _label(relative: str) -> str | None:
    # Interned because thousands of files share each.
    return sys.intern(printable(os.path.basename(os.path.dirname(relative)))) or None


def _from_path(path: str, relative: str, regular: bool | None, *, by_content: bool = False) -> Entry:
    """Source for one file, if its suffix is one of media.

    Parameters
    ----------
    regular : whether it is a plain file; None to find out
    by_content : look into a file of another suffix
    """
    suffix, kind = suffix_of(path), kind_of_suffix(path)
    if suffix in PLAYLIST_SUFFIXES:
        return _problem(path, relative, _PLAYLIST)
    if kind is None and by_content:
        kind = kind_of_content(path)
    if kind is None:
        return CaptionFile(printable(path), path) if suffix == caption_files.SUFFIX else _ignored(path)
    problem = None if regular else _file_problem(path)
    # Its name is the path itself where that is printable: strings are most of the memory of a long listing.
    return Source(printable(path), kind, path, label=_label(relative), relative=relative, problem=problem)


def _text_beside(path: str) -> Iterator[CaptionFile]:
    """The text file of the same stem, for a file that is named itself or in a list."""
    text = f"{os.path.splitext(path)[0]}.{caption_files.SUFFIX}"
    if text != path and os.path.isfile(text):
        yield CaptionFile(printable(text), text)


def _problem(path: str, relative: str, problem: str) -> Source:
    kind = kind_of_suffix(path) or "image"
    return Source(printable(path), kind, path, label=_label(relative), relative=relative, problem=problem)


def _file_problem(path: str) -> str | None:
    """Why ``path`` is not a file that can be opened without waiting; None if it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if is_url(path):
            return f"is a URL; {URL_REMEDY}"
        return "is a link to a file that does not exist" if os.path.islink(path) else "does not exist"
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a directory"
    return "is a named pipe, socket or device, not a file"


def _from_directory(src: str) -> Iterator[Entry]:
    """Walk ``src`` without recursion; links to directories are followed unless they lead back up."""
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(src, "", ())]
    while pending:
        directory, prefix, above = pending.pop()
        relative = prefix.rstrip("/") or os.path.basename(src.rstrip("/"))
        try:
            here = _identity(directory)
            if here in above:
                yield _problem(directory, relative, "is a link to a directory it lies in, a loop")
                continue
            entries = list(os.scandir(directory))
        except OSError as error:
            yield _problem(directory, relative, f"cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if _is_directory(entry):
                pending.append((entry.path, f"{prefix}{entry.name}/", (*above, here)))
            else:
                yield _from_path(entry.path, prefix + entry.name, entry.is_file(follow_symlinks=False))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself; _from_path says so.
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _list_lines(src: str) -> list[bytes]:
    """Lines of a list file, or of standard input; UsageError if they cannot be paths."""
    name = "standard input" if src == "-" else printable(src)
    try:
        text = _standard_input() if src == "-" else _plain_bytes(src)
    except MediaError:
        raise UsageError(f"{name} is a named pipe, socket or device; give - and pipe the paths into it.") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or error}.") from None
    if b"\0" in text or text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{name} is UTF-16 or no text at all; expected paths in UTF-8, one a line.")
    # Only these end a line: a lone \r, as any other control character, can be a part of a name.
    return [line.removesuffix(b"\r") for line in text.removeprefix(codecs.BOM_UTF8).split(b"\n")]


def _plain_bytes(path: str) -> bytes:
    with open_plain(path) as file:
        return file.read()


def _standard_input() -> bytes:
    # Python has none where the descriptor was closed before it started (`grn ... <&-`).
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed; pipe paths into it, one a line.")
    return sys.stdin.buffer.read()


def _from_list(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        if not line.strip():
            continue
        path = os.fsdecode(line)
        relative = _plain(path)
        entry = _from_path(path, relative, None, by_content=True)
        if not isinstance(entry, Source) and not os.path.isfile(path):
            entry = _problem(path, relative, _file_problem(path) or "is not a media file")
        yield entry
        if isinstance(entry, Source):
            yield from _text_beside(path)


def _archive_part(src: str) -> tuple[str, str] | None:
    """Archive and inner path that ``src`` names; None if no part of it is an archive file."""
    path, inner = src.rstrip("/"), ""
    while path:
        if path.lower().endswith(archives.SUFFIXES) and os.path.isfile(path):
            return path, _plain(inner)
        if os.path.lexists(path):
            return None
        path, _, last = path.rpartition("/")
        inner = f"{last}/{inner}" if inner else last
    return None


def _from_archive(path: str, inner: str) -> Iterator[Entry]:
    for member in archives.members(path):
        if member.unlisted:
            # Without the inner path: that would make a class of it.
            yield _from_member(path, member, member.name)
            continue
        # `tar cf x.tar cat/.` names its members cat/./1.png.
        whole = _plain(member.name)
        if inner and whole != inner and not whole.startswith(inner + "/"):
            continue
        relative = whole[len(inner) :].lstrip("/") or os.path.basename(whole)
        if _hidden(relative):
            continue
        yield _from_member(path, member, relative)


def _plain(path: str) -> str:
    """``path`` without the parts that lead nowhere or up."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in relative.split("/"))


def _from_member(path: str, member: archives.Member, relative: str) -> Entry:
    kind, problem = kind_of_suffix(member.name), member.problem
    if suffix_of(member.name) in PLAYLIST_SUFFIXES:
        kind, problem = "image", _PLAYLIST
    if member.unlisted:
        kind = "image"
    if kind is None and suffix_of(member.name) == caption_files.SUFFIX:
        name = printable(f"{path}/{member.name}")
        return CaptionFile(name, path, member.name, member.offset, member.size, member.problem)
    if kind is None:
        return _ignored(member.name)
    return Source(
        name=printable(f"{path}/{member.name}"),
        kind=kind,
        path=path,
        member=member.name,
        offset=member.offset,
        size=member.size,
        label=_label(relative),
        relative=relative,
        problem=problem,
    )
