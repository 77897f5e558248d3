"""Members of .tar and .zip archives: listed once, then read by position without listing again."""

from __future__ import annotations

import io
import lzma
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

from grncli.runtime.errors import MediaError
from grncli.runtime.system import read_at

SUFFIXES = (".tar", ".zip")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Refused: their members cannot be read by position."""
MAX_MEMBER = 2 << 30
"""Bytes a member may unpack to; a few kilobytes of zip can claim any size."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_CHUNK = 1 << 20
_FIRST_PART = 1 << 16
_SMALL_PART = 1 << 12
_ZEROS = bytes(_CHUNK)
_DANGLING = "is a link to something that is no file of the archive"
_LINKS_IN_A_ROW = 40
"""Symbolic links that are followed for one member, as Linux does it."""
_DOS_SYSTEMS = frozenset({0, 10, 14})
"""Makers of zips (FAT, NTFS, VFAT) for whom a backslash cannot be a part of a name."""
_UNICODE_PATH = 0x7075
# What zipfile and tarfile raise on bad data; IndexError and OverflowError come from names and sizes of nonsense.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive; ``offset`` is where its data (tar) or local header (zip) begins."""

    name: str
    offset: int
    size: int
    problem: str | None
    unlisted: bool = False
    """No file but a stretch of the archive that could not be listed; ``problem`` says why."""


def members(path: str) -> Iterator[Member]:
    """Files of the archive at ``path``, directories left out.

    They come in the order of the archive, except that links come last: a link stands for the file of the archive
    that it leads to, and has a problem if there is none. Tars written one behind the other are read on.

    Raises
    ------
    MediaError
        If the archive is damaged.
    """
    try:
        if path.lower().endswith(".zip"):
            yield from _zip_members(path)
        else:
            yield from _tar_members(path)
    except _DAMAGE as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        kind = "zip" if path.lower().endswith(".zip") else "tar"
        raise MediaError(f'{path!r} is damaged or no {kind} archive: "{reason}".') from error


def _zip_members(path: str) -> Iterator[Member]:
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        file.seek(0)
        begins_with_member = file.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
    # Programs of Windows that store backslashes do so in all names, and some call themselves Unix.
    backslashes = not any("/" in entry.orig_filename for entry in entries)
    for entry in entries:
        name = _zip_name(entry, backslashes)
        if name.endswith("/"):
            continue
        problem = _name_problem(name)
        if entry.flag_bits & 0x1:
            problem = "is encrypted"
        elif entry.external_attr >> 28 == 0o12:
            problem = "is a link, which zip archives are not searched for"
        yield Member(name, entry.header_offset, entry.file_size, problem)
    first = min((entry.header_offset for entry in entries), default=0)
    if first and begins_with_member:
        what = f"is not in the archive's directory and is not read: {first:,} bytes before its first member"
        yield Member("(another zip in front)", 0, 0, what, unlisted=True)


def _zip_name(entry: zipfile.ZipInfo, backslashes: bool) -> str:
    """Name of a member, with slashes.

    Without the UTF-8 flag the encoding of a name is unknown. ``zipfile`` takes it for code page 437, in which no
    two names become one; Info-ZIP adds the name in UTF-8 where it knew better.
    """
    name = entry.orig_filename
    if entry.extra and not entry.flag_bits & 0x800:
        name = _unicode_path(entry.extra, name.encode("cp437")) or name
    if backslashes or entry.create_system in _DOS_SYSTEMS:
        name = name.replace("\\", "/")
    return name


def _unicode_path(extra: bytes, raw_name: bytes) -> str | None:
    """Name in Info-ZIP's extra field; None without one, or with one that was made for another name."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(field) == length > 5:
            version, checksum = struct.unpack_from("<BL", field)
            if version == 1 and checksum == zlib.crc32(raw_name):
                try:
                    return field[5:].decode()
                except UnicodeDecodeError:
                    return None
    return None


def _tar_members(path: str) -> Iterator[Member]:
    links: list[tarfile.TarInfo] = []
    with open(path, "rb") as file:
        for info in _tar_entries(file):
            if isinstance(info, Member):
                yield info
            elif not info.isdir():
                problem = _name_problem(info.name)
                if problem is None and (info.issym() or info.islnk()):
                    links.append(info)
                    continue
                if not info.isfile() or info.issparse():
                    problem = problem or "is not a plain file"
                yield Member(info.name, info.offset_data, info.size, problem)
        if links:
            yield from _resolved(file, links)


def _tar_entries(file: BinaryIO) -> Iterator[tarfile.TarInfo | Member]:
    """Entries of all tars in ``file``; a Member for what comes behind an end mark and cannot be listed."""
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


def _one_tar(file: BinaryIO, start: int) -> Generator[tarfile.TarInfo, None, int]:
    """Entries of the tar that begins at ``start``; returns where its end mark is."""
    last = -1
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            # TarFile remembers every member; a million of them would fill the memory.
            archive.members = []  # type: ignore[attr-defined]
            if info.size < 0 or info.offset <= last:
                raise tarfile.ReadError(f"the member at byte {info.offset} has an impossible size")
            last = info.offset
            yield info
        end = archive.offset
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        # tarfile takes a header that it cannot read for the end.
        raise tarfile.ReadError(f"no member begins at byte {end}, where one should")
    return end


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
        if isinstance(info, Member) or _name_problem(info.name):
            continue
        end = None
        if info.islnk():
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


def _name_problem(name: str) -> str | None:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        return "has a name that points outside the archive"
    return None


def open_member(path: str, offset: int, size: int) -> BinaryIO:
    """The content of one member as a stream with a ``seek``; small ones lie in memory.

    Parameters
    ----------
    path, offset, size : as `members` lists them

    Raises
    ------
    MediaError
        If the member is too large, cut short, or does not match its checksum.
    """
    if size > MAX_MEMBER:
        raise MediaError(f"unpacks to {size:,} bytes; at most {MAX_MEMBER:,} are read from an archive")
    archive = _archive(path)
    if path.lower().endswith(".zip"):
        return io.BytesIO(_zip_data(archive, path, offset, size))
    data = _read_at(archive, offset, size)
    if len(data) != size:
        raise MediaError(f"is cut short: {len(data):,} of {size:,} bytes are in the archive")
    return io.BytesIO(data)


@lru_cache(maxsize=4)
def _archive(path: str) -> BinaryIO:
    # Left open between members, and closed when it falls out of the cache.
    return open(path, "rb", buffering=0)


def _read_at(archive: BinaryIO, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes from ``offset`` on; one pread gives at most 2 GiB."""
    parts = []
    while size and (part := read_at(archive.fileno(), min(size, 64 * _CHUNK), offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _zip_data(archive: BinaryIO, path: str, offset: int, size: int) -> bytes:
    """Content of a zip member, found through its local header.

    ``zipfile`` would read the whole directory of the archive in every process that wants one
    member; a million entries take seconds and hundreds of megabytes.
    """
    fixed = read_at(archive.fileno(), _LOCAL_HEADER.size, offset)
    if len(fixed) != _LOCAL_HEADER.size or fixed[:4] != _LOCAL_SIGNATURE:
        raise MediaError("is not where the archive's directory says; the archive changed or is damaged")
    _, _, flags, method, _, _, checksum, packed, _, name_length, extra_length = _LOCAL_HEADER.unpack(fixed)
    start = offset + _LOCAL_HEADER.size + name_length + extra_length
    # Bit 3: sizes and checksum follow the data; all ones: they are in a zip64 field.
    unknown = bool(flags & 0x8) or packed == 0xFFFFFFFF
    if method == zipfile.ZIP_STORED:
        data = _read_at(archive, start, size if unknown else min(packed, size + 1))
        end = start + len(data)
    elif method == zipfile.ZIP_DEFLATED:
        data, end = _inflated(archive, start, size, None if unknown else packed)
    else:
        return _unusual_zip_data(path, offset, size)
    checksums = _described(archive, end) if flags & 0x8 else {checksum}
    if len(data) != size or zlib.crc32(data) not in checksums:
        raise MediaError("does not match its checksum in the archive")
    return data


def _inflated(archive: BinaryIO, start: int, size: int, packed: int | None) -> tuple[bytes, int]:
    """At most ``size`` + 1 bytes unpacked from ``start`` on, and where the packed ones end."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, room, at = [], size + 1, start
    end = None if packed is None else start + packed
    try:
        while room and not unpacker.eof:
            # A small first part: most pictures fit, and what lies behind one is not read with it.
            step = _FIRST_PART if at == start and end is None else _CHUNK
            part = read_at(archive.fileno(), step if end is None else min(step, end - at), at)
            if not part:
                break
            at += len(part)
            parts.append(unpacker.decompress(unpacker.unconsumed_tail + part, room))
            room -= len(parts[-1])
    except zlib.error as error:
        raise MediaError(f'cannot be unpacked: "{error}"') from None
    return b"".join(parts), at - len(unpacker.unused_data)


def _described(archive: BinaryIO, end: int) -> set[int]:
    """Checksums that the data descriptor at ``end`` may mean: its signature is optional."""
    fields = read_at(archive.fileno(), 8, end)
    return {int.from_bytes(fields[at : at + 4], "little") for at in ((0, 4) if fields[:4] == b"PK\x07\x08" else (0,))}


def _unusual_zip_data(path: str, offset: int, size: int) -> bytes:
    """Content of a member packed in another way, unpacked by ``zipfile``."""
    parts, room = [], size + 1
    try:
        # By position: of several members of one name, ``zipfile`` would take the last for it.
        info = _directory(path).get(offset)
        if info is None:
            raise MediaError("is not in the archive's directory any more; the archive changed")
        with _zip_file(path).open(info) as file:
            # Small parts, since what one part unpacks to is not bounded.
            while room > 0 and (part := file.read(_SMALL_PART)):
                parts.append(part)
                room -= len(part)
    except _DAMAGE as error:
        raise MediaError(f'cannot be unpacked: "{str(error)[:200]}"') from None
    data = b"".join(parts)
    if len(data) != size:
        raise MediaError(f"unpacks to {len(data):,} bytes; the archive's directory says {size:,}")
    return data


@lru_cache(maxsize=2)
def _zip_file(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@lru_cache(maxsize=2)
def _directory(path: str) -> dict[int, zipfile.ZipInfo]:
    return {info.header_offset: info for info in _zip_file(path).infolist()}
