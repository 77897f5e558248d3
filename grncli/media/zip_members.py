"""Members of a .zip, by its directory."""

import struct
import zipfile
import zlib
from collections.abc import Iterator

from grncli.media.members import Member, name_problem

LOCAL_SIGNATURE = b"PK\x03\x04"
_DOS_SYSTEMS = frozenset({0, 10, 14})
"""Makers of zips (FAT, NTFS, VFAT) for whom a backslash cannot be a part of a name."""
_UNICODE_PATH = 0x7075


def zip_members(path: str) -> Iterator[Member]:
    """Files of the archive at ``path`` in the order of its directory."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        file.seek(0)
        begins_with_member = file.read(len(LOCAL_SIGNATURE)) == LOCAL_SIGNATURE
    # Programs of Windows that store backslashes do so in all names, and some call themselves Unix.
    backslashes = not any("/" in entry.orig_filename for entry in entries)
    for entry in entries:
        name = _zip_name(entry, backslashes)
        if name.endswith("/"):
            continue
        problem = name_problem(name)
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
