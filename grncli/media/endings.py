"""Files that end early: pictures without their end marker or without pixels, clips without their last packets."""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from grncli.runtime.system import read_at

_JPEG_END = b"\xff\xd9"
"""End of image of JPEG, end of codestream of JPEG 2000."""
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left, top and steps of the pixels in each pass of an interlaced picture."""
_PART = 1 << 20
_TAIL = 1 << 17
"""More than the longest page of Ogg."""
_TS_PACKET = 188
_TS_CHAIN = 8
"""Packets of a transport stream, each beginning with the same byte, that show where packets begin."""
_QOI_END = bytes(7) + b"\x01"
# Behind complete data a decoder skips both; a single bit missing in front differs between them. No 0xff: a marker.
_FILLERS = (b"\xa5" * 512, b"\x5a" * 512)
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Start of a sequential or progressive frame, in Huffman or arithmetic coding."""
_JPEG_TABLES = frozenset({0xC4, 0xC8, 0xCC})
"""Huffman tables, a reserved marker, and arithmetic conditioning: their numbers are among those of frames."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# Markers cannot occur in the data of JPEG 2000; the length of a part may be left open, up to the end marker.
_OPEN_PART = re.compile(rb"\xff\x90\0\x0a..\0\0\0\0", re.DOTALL)


def misses_end(file: BinaryIO, image_format: str) -> bool:
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


def misses_rows(file: BinaryIO) -> bool:
    """Whether the data of a PNG unpack to less than its header says."""
    file.seek(0)
    data = file.read()
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", data, 16)
    bits = depth * _PNG_CHANNELS[colour]
    passes = _PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((_ceil_div(width - left, across), _ceil_div(height - top, down)) for left, top, across, down in passes)
    missing = sum(rows * (1 + _ceil_div(columns * bits, 8)) for columns, rows in sizes if columns > 0)
    unpacker = zlib.decompressobj()
    for kind, start, end in png_chunks(data):
        packed = data[start:end] if kind == b"IDAT" else b""
        while packed and missing > 0:
            try:
                missing -= len(unpacker.decompress(packed, _PART))
            except zlib.error:
                # Whoever read the picture has met it too, unless it is behind the last row.
                return False
            packed = unpacker.unconsumed_tail
    return missing > 0


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk of a PNG, and where its content begins and ends; the last may be cut short."""
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


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


@dataclass
class _Scans:
    """What the headers of a JPEG say of the data behind them."""

    frame: bytes = b""
    """Body of the start of frame."""
    missing: dict[int, list[int]] = field(default_factory=dict)
    """Bits still missing, of each coefficient of each component: a first scan sets it, the next take one away."""
    interval: int = 0
    """Units between two restart markers; 0 if there are none."""
    components: list[int] = field(default_factory=list)
    """Components of the last scan."""
    data: int = 0
    """Where the data of the last scan begin."""


def _all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG, the last of which may end early, hold every bit of every coefficient.

    A progressive JPEG of which whole scans are missing shows all pixels, but coarser than they are. And where restart
    markers divide a scan, only its last division may be incomplete.
    """
    scans = _read_scans(data)
    if scans is None or not scans.missing or any(any(bits) for bits in scans.missing.values()):
        return False
    if not scans.interval:
        return True
    divisions = _ceil_div(_units(scans), scans.interval)
    return len(_RESTART.findall(data, scans.data)) == divisions - 1


def _read_scans(data: bytes) -> _Scans | None:
    """Headers of a JPEG up to its last scan; None if it is of a kind that is not known here."""
    scans = _Scans()
    at = 2
    while match := _JPEG_MARKER.search(data, at):
        marker = data[match.start() + 1]
        body = data[match.end() + 2 : match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")]
        at = match.end() + 2 + len(body)
        try:
            if marker in _JPEG_FRAMES:
                scans.frame = body
                scans.missing = {body[6 + 3 * number]: [99] * 64 for number in range(body[5])}
            elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_TABLES:
                return None
            elif marker == 0xDD:
                scans.interval = int.from_bytes(body[:2], "big")
            elif marker == 0xDA:
                scans.components = [body[1 + 2 * number] for number in range(body[0])]
                first, last, shift = body[-3], min(body[-2], 63), body[-1] & 15
                for component in scans.components:
                    scans.missing[component][first : last + 1] = [shift] * (last + 1 - first)
                scans.data = at
        except LookupError:
            return None
    return scans


def _units(scans: _Scans) -> int:
    """Number of units (MCU) in the last scan."""
    height, width = (int.from_bytes(scans.frame[at : at + 2], "big") for at in (1, 3))
    factors = {scans.frame[at]: divmod(scans.frame[at + 1], 16) for at in range(6, 6 + 3 * scans.frame[5], 3)}
    across, down = (max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    if len(scans.components) > 1:
        return _ceil_div(width, 8 * across) * _ceil_div(height, 8 * down)
    own_across, own_down = factors[scans.components[0]]
    # Blocks of the component itself, at its own resolution.
    return _ceil_div(_ceil_div(width * own_across, across), 8) * _ceil_div(_ceil_div(height * own_down, down), 8)


def _ceil_div(number: int, by: int) -> int:
    return -(-number // by)


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


def ends_inside_packet(file: int, container: str | None) -> bool:
    """Whether a clip in a container that does not say how long it is ends with a part of a packet."""
    size = os.fstat(file).st_size
    tail = read_at(file, _TAIL, max(0, size - _TAIL))
    if container == "mpegts":
        # Plain packets, those with a time in front, and those with a checksum behind.
        chains = (tail[-rest::-step][:_TS_CHAIN] for rest in range(1, _TS_PACKET) for step in (_TS_PACKET, 192, 204))
        return any(chain == b"G" * _TS_CHAIN for chain in chains)
    if container == "ogg":
        at = tail.rfind(b"OggS\0")
        page = tail[at:] if at >= 0 else b""
        lacing = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return at >= 0 and len(page) < 27 + len(lacing) + sum(lacing)
    return container == "yuv4mpegpipe" and _ends_inside_frame(file, size)


def _ends_inside_frame(file: int, size: int) -> bool:
    """Whether the last frame of a YUV4MPEG2 file is shorter than its first."""
    with mmap.mmap(file, size, access=mmap.ACCESS_READ) as data:
        first = data.find(b"FRAME")
        step = data.find(b"FRAME", first + 1) - first
        rest = (size - first) % step if first > 0 and step > 0 else 0
        return rest > 0 and data[size - rest : size - rest + 5] == b"FRAME"[:rest]


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
