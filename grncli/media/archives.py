"""Members of .tar and .zip archives: listed once, then read by position without listing again."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from grncli.media.members import Member
from grncli.media.tar_members import tar_members
from grncli.media.zip_members import LOCAL_SIGNATURE, zip_members
from grncli.runtime.errors import MediaError
from grncli.runtime.system import read_at

SUFFIXES = (".tar", ".zip")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""Refused: their members cannot be read by position."""
MAX_MEMBER = 2 << 30
"""Bytes a member may unpack to; a few kilobytes of zip can claim any size."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 20
_FIRST_PART = 1 << 16
_SMALL_PART = 1 << 12
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
            yield from zip_members(path)
        else:
            yield from tar_members(path)
    except _DAMAGE as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        kind = "zip" if path.lower().endswith(".zip") else "tar"
        raise MediaError(f'{path!r} is damaged or no {kind} archive: "{reason}".') from error


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
    if len(fixed) != _LOCAL_HEADER.size or fixed[:4] != LOCAL_SIGNATURE:
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
