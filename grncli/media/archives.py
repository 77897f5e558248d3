"""Members of .tar and .zip archives: listed once, then read by position without listing again."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from grncli.errors import MediaError

SUFFIXES = (".tar", ".zip")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Refused: their members cannot be read by position."""
MAX_MEMBER = 2 << 30
"""Bytes a member may unpack to; a few kilobytes of zip can claim any size."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive; ``offset`` is where its data (tar) or local header (zip) begins."""

    name: str
    offset: int
    size: int
    problem: str | None


def members(path: str) -> Iterator[Member]:
    """Files of the archive at ``path``, in its own order, directories left out.

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
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, struct.error, zlib.error, ValueError) as error:
        reason = str(error).split("\n")[0]
        kind = "zip" if path.lower().endswith(".zip") else "tar"
        raise MediaError(f'{path!r} is damaged or no {kind} archive: "{reason}".') from error


def _zip_members(path: str) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = info.orig_filename
            problem = _name_problem(name)
            if info.flag_bits & 0x1:
                problem = "is encrypted"
            elif info.external_attr >> 28 == 0o12:
                problem = "is a link, which archives are not searched for"
            yield Member(name, info.header_offset, info.file_size, problem)


def _tar_members(path: str) -> Iterator[Member]:
    with tarfile.open(path, "r:") as archive:
        while (info := archive.next()) is not None:
            # TarFile remembers every member; a million of them would fill the memory.
            archive.members = []  # type: ignore[attr-defined]
            if info.isdir():
                continue
            problem = _name_problem(info.name)
            if info.issym() or info.islnk():
                problem = "is a link, which archives are not searched for"
            elif not info.isfile() or info.issparse():
                problem = "is not a plain file"
            yield Member(info.name, info.offset_data, info.size, problem)
        _check_tar_end(path, archive.offset)


def _check_tar_end(path: str, offset: int) -> None:
    """Raise ReadError if a tar goes on behind its last readable member: tarfile takes that for the end."""
    with open(path, "rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no member begins at byte {offset}, where one should")


def _name_problem(name: str) -> str | None:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        return "has a name that points outside the archive"
    return None


def open_member(path: str, member: str, offset: int, size: int) -> BinaryIO:
    """The content of one member as a stream with a ``seek``; small ones lie in memory.

    Parameters
    ----------
    path, member, offset, size : as given by :func:`members`

    Raises
    ------
    MediaError
        If the member is too large, cut short, or does not match its checksum.
    """
    if size > MAX_MEMBER:
        raise MediaError(f"unpacks to {size:,} bytes; at most {MAX_MEMBER:,} are read from an archive")
    archive = _archive(path)
    if path.lower().endswith(".zip"):
        return io.BytesIO(_zip_data(archive, path, member, offset, size))
    data = os.pread(archive.fileno(), size, offset) if size <= _CHUNK else _large(archive, offset, size)
    if len(data) != size:
        raise MediaError(f"is cut short: {len(data):,} of {size:,} bytes are in the archive")
    return io.BytesIO(data)


@lru_cache(maxsize=4)
def _archive(path: str) -> BinaryIO:
    # Left open between members, and closed when it falls out of the cache.
    return open(path, "rb", buffering=0)


def _large(archive: BinaryIO, offset: int, size: int) -> bytes:
    """One pread gives at most 2 GiB."""
    parts = []
    while size and (part := os.pread(archive.fileno(), min(size, 64 * _CHUNK), offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _zip_data(archive: BinaryIO, path: str, member: str, offset: int, size: int) -> bytes:
    """Content of a zip member, found through its local header.

    ``zipfile`` would read the whole directory of the archive in every process that wants one
    member; a million entries take seconds and hundreds of megabytes.
    """
    fixed = os.pread(archive.fileno(), _LOCAL_HEADER.size, offset)
    if len(fixed) != _LOCAL_HEADER.size or fixed[:4] != b"PK\x03\x04":
        raise MediaError("is not where the archive's directory says; the archive changed or is damaged")
    _, _, flags, method, _, _, checksum, packed, _, name_length, extra_length = _LOCAL_HEADER.unpack(fixed)
    start = offset + _LOCAL_HEADER.size + name_length + extra_length
    # Bit 3: sizes and checksum follow the data, whose end is not known here; all ones: zip64.
    if method not in (0, 8) or flags & 0x8 or packed == 0xFFFFFFFF:
        return _unusual_zip_data(path, member)
    packed_data = _large(archive, start, packed)
    try:
        data = packed_data if method == 0 else zlib.decompressobj(-15).decompress(packed_data, size + 1)
    except zlib.error as error:
        raise MediaError(f'cannot be unpacked: "{error}"') from None
    if len(data) != size or zlib.crc32(data) != checksum:
        raise MediaError("does not match its checksum in the archive")
    return data


def _unusual_zip_data(path: str, member: str) -> bytes:
    try:
        return _directory(path).read(member)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise MediaError(f'cannot be unpacked: "{str(error)[:200]}"') from None


@lru_cache(maxsize=2)
def _directory(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
