"""Members of a .tar, which has no directory: from header to header, past the data between them."""

import os
import posixpath
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from grncli.media.members import Member, name_problem
from grncli.runtime.system import read_at

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_DANGLING = "is a link to something that is no file of the archive"
_LINKS_IN_A_ROW = 40
"""Symbolic links that are followed for one member, as Linux does it."""
# Records of an extended header that change what the next header says; others are times and owners.
_TELLING = re.compile(rb"(?:^|\n)\d+ (?:path|size|linkpath|hdrcharset|GNU\.sparse[^=\n]*)=")
_READ = 3 * tarfile.BLOCKSIZE
"""Bytes read at once: an extended header, its records, and the header behind them."""


def tar_members(path: str) -> Iterator[Member]:
    """Files of the archive at ``path`` in its order, links last."""
    links: list[tarfile.TarInfo] = []
    with open(path, "rb") as file:
        for info in _tar_entries(file):
            if isinstance(info, Member):
                yield info
            elif not info.isdir():
                problem = name_problem(info.name)
                if problem is None and (info.issym() or info.islnk()):
                    links.append(info)
                    continue
                if not info.isfile() or info.issparse():
                    problem = problem or "is not a plain file"
                yield Member(info.name, info.offset_data, info.size, problem)
        if links:
            yield from _resolved(file, links)


def _tar_entries(file: BinaryIO) -> Iterator[tarfile.TarInfo | Member]:
    """Entries of all tars in ``file``; a Member for a plain file, and for what cannot be listed behind an end mark."""
    start: int | None = 0
    while start is not None:
        try:
            end = yield from _one_tar(file, start)
        except tarfile.TarError as error:
            if start == 0:
                raise
            problem = f'comes behind an end mark of the archive and cannot be listed: "{error}"'
            yield Member(f"(from byte {start} on)", start, 0, problem, unlisted=True)
            return
        start = _next_tar(file, end)


def _one_tar(file: BinaryIO, start: int) -> Generator[tarfile.TarInfo | Member, None, int]:
    """Entries of the tar that begins at ``start``; returns where its end mark is."""
    last, size = -1, os.fstat(file.fileno()).st_size
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            # TarFile remembers every member; a million of them would fill the memory.
            archive.members = []  # type: ignore[attr-defined]
            if info.size < 0 or info.offset <= last:
                raise tarfile.ReadError(f"the member at byte {info.offset} has an impossible size")
            last = info.offset
            yield info
            while not archive.pax_headers and (plain := _plain_file(file.fileno(), archive.offset)) is not None:
                last = archive.offset
                archive.offset = plain.offset + _padded(plain.size)
                if archive.offset > size:
                    raise tarfile.ReadError("unexpected end of data")
                yield plain
        end = archive.offset
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        # tarfile takes a header that it cannot read for the end.
        raise tarfile.ReadError(f"no member begins at byte {end}, where one should")
    return end


def _plain_file(file: int, offset: int) -> Member | None:
    """The plain file whose header is at ``offset``; None for any other header, which ``tarfile`` has to read.

    ``tarfile`` takes 30 us for each, this 3 us. An extended header of times and owners in front is passed over.
    """
    blocks = read_at(file, _READ, offset)
    head = blocks[: tarfile.BLOCKSIZE]
    try:
        size = _plain_size(head)
        if head[156:157] == tarfile.XHDTYPE:
            padded = tarfile.BLOCKSIZE + _padded(size)
            head = blocks[padded : padded + tarfile.BLOCKSIZE]
            # A longer one is left to tarfile as well: its next header is not among what was read.
            if _TELLING.search(blocks[tarfile.BLOCKSIZE : tarfile.BLOCKSIZE + size]):
                return None
            offset, size = offset + padded, _plain_size(head)
    except ValueError:
        return None
    name = head[:100].partition(b"\0")[0]
    if head[156:157] not in (tarfile.REGTYPE, tarfile.AREGTYPE) or name.endswith(b"/"):
        return None
    if head[345]:
        name = head[345:500].partition(b"\0")[0] + b"/" + name
    text = name.decode(tarfile.ENCODING, "surrogateescape")
    return Member(text, offset + tarfile.BLOCKSIZE, size, name_problem(text))


def _plain_size(head: bytes) -> int:
    """Bytes behind a header; ValueError where it is none, or not in plain octal digits."""
    # Adler-32 has the sum of all bytes, modulo 65521, in its lower half; a checksum counts its own place as blanks.
    total = zlib.adler32(head[156:], zlib.adler32(head[:148])) & 0xFFFF
    if len(head) != tarfile.BLOCKSIZE or total != (int(head[148:156].strip(b" \0"), 8) - 8 * 32 + 1) % 65521:
        raise ValueError("no header of a tar")
    if (size := int(head[124:136].strip(b" \0"), 8)) < 0:
        raise ValueError("a size below 0")
    return size


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _next_tar(file: BinaryIO, offset: int) -> int | None:
    """First block from ``offset`` on that is not of zeros; None if there are only zeros, which pad an archive."""
    file.seek(offset)
    while part := file.read(_CHUNK):
        # A comparison at the speed of memory; only the chunk that differs is looked into.
        if part != _ZEROS[: len(part)]:
            first = offset + len(part) - len(part.lstrip(b"\0"))
            return first - first % tarfile.BLOCKSIZE
        offset += len(part)
    return None


def _resolved(file: BinaryIO, links: list[tarfile.TarInfo]) -> Iterator[Member]:
    """A member for each of ``links``, with the place of the data that it leads to.

    Lists the archive a second time and keeps only the names that links lead to: a table of all names would take
    as much memory as the listing itself.
    """
    wanted = {_target(link) for link in links}
    data: dict[str, Member] = {}
    symbolic = {posixpath.normpath(link.name): _target(link) for link in links if link.issym()}
    hard: dict[int, Member | None] = {}
    for info in _tar_entries(file):
        if name_problem(info.name):
            continue
        end = None
        if isinstance(info, Member):
            end = None if info.unlisted else info
        elif info.islnk():
            # A hard link leads to an earlier member: a later one of that name is another file.
            end = hard[info.offset] = data.get(_target(info))
        elif info.isfile() and not info.issparse():
            end = Member(info.name, info.offset_data, info.size, None)
        if end is not None and (name := posixpath.normpath(info.name)) in wanted:
            data[name] = end
    for link in links:
        end = hard[link.offset] if link.islnk() else _end_of(_target(link), data, symbolic)
        yield replace(end, name=link.name) if end else Member(link.name, link.offset_data, 0, _DANGLING)


def _target(link: tarfile.TarInfo) -> str:
    """Name of the member that ``link`` leads to; no member has it if it leads out of the archive."""
    start = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(start, link.linkname))


def _end_of(target: str, data: Mapping[str, Member], symbolic: Mapping[str, str]) -> Member | None:
    for _ in range(_LINKS_IN_A_ROW):
        if target in data:
            return data[target]
        if target not in symbolic:
            return None
        target = symbolic[target]
    return None
