"""Pictures whose file ends early: those that lack nothing but an end marker, and those that lack pixels."""

from __future__ import annotations

import re
from typing import BinaryIO

_JPEG_END = b"\xff\xd9"
"""End of image of JPEG, end of codestream of JPEG 2000."""
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_QOI_END = bytes(7) + b"\x01"
# Behind complete data a decoder skips both; a single bit missing in front differs between them. No 0xff: a marker.
_FILLERS = (b"\xa5" * 512, b"\x5a" * 512)
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Start of a sequential or progressive frame, in Huffman or arithmetic coding."""
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Markers cannot occur in the data of JPEG 2000; the length of a part may be left open, up to the end marker.
_OPEN_PART = re.compile(rb"\xff\x90\0\x0a..\0\0\0\0", re.DOTALL)


def lacks_end(file: BinaryIO, image_format: str) -> bool:
    """Whether a file, all of whose picture was read, ends without the marker of its format."""
    marker = {"PNG": _PNG_END, "QOI": _QOI_END, "GIF": b";"}.get(image_format)
    if marker is None:
        return False
    file.seek(-min(len(marker), file.seek(0, 2)), 2)
    if file.read() == marker:
        return False
    file.seek(0)
    data = file.read()
    # Something may follow the marker; only in GIF it looks like any other byte.
    return not _gif_ends(data) if image_format == "GIF" else marker not in data


def with_end(data: bytes) -> list[bytes]:
    """Versions of a JPEG or JPEG 2000 without an end marker that have one; empty if no version can be right.

    If all of them decode to the same pixels, then the pixels do not depend on anything that is missing.
    """
    if data.startswith(b"\xff\xd8\xff"):
        # Half of a marker may be there, or the fill bytes in front of one.
        data = data.rstrip(b"\xff")
        return [data + filler + _JPEG_END for filler in (b"", *_FILLERS)] if _all_scans(data) else []
    if data[:4] == b"\xff\x4f\xff\x51" or data[4:8] == b"jP  ":
        # The decoder itself checks the lengths of the parts, where they are given.
        data = data.removesuffix(b"\xff")
        return [] if _OPEN_PART.search(data) else [data + _JPEG_END]
    return []


def _all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG, the last of which may end early, hold every bit of every coefficient.

    A progressive JPEG of which whole scans are missing shows all pixels, but coarser than they are.
    """
    # Bits still missing, of each coefficient of each component: a first scan sets it, the next take one away.
    missing: dict[int, list[int]] = {}
    at = 2
    while match := _JPEG_MARKER.search(data, at):
        marker, body = data[match.start() + 1], match.end() + 2
        at = match.end() + int.from_bytes(data[match.end() : body], "big")
        if marker in _JPEG_FRAMES and at <= len(data):
            missing = {data[body + 6 + 3 * number]: [99] * 64 for number in range(data[body + 5])}
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return False
        elif marker == 0xDA and at <= len(data):
            components = [data[body + 1 + 2 * number] for number in range(data[body])]
            first, last, shift = data[at - 3], min(data[at - 2], 63), data[at - 1] & 15
            for component in components:
                if component in missing:
                    missing[component][first : last + 1] = [shift] * (last + 1 - first)
    return bool(missing) and all(not any(bits) for bits in missing.values())


def _gif_ends(data: bytes) -> bool:
    """Whether the blocks of a GIF end with its trailer."""
    try:
        at = 13 + _palette_bytes(data[10])
        while data[at] != 0x3B:
            if data[at] == 0x2C:
                at += 11 + _palette_bytes(data[at + 9])
            else:
                at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        return False
    return True


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
